//! Questions over HTTP/1.1 whose answers are JSON.

use std::{fmt::Debug, marker::PhantomData};

use serde::de::DeserializeOwned;

use super::Ask;
use crate::{Failure, load::http::Connection};

/// A client over one connection that reads every answer as an `A`.
pub(crate) struct Client<A> {
    connection: Connection,
    answers: PhantomData<fn() -> A>,
}

impl<A> Client<A> {
    /// Connects.
    pub(crate) async fn open(port: u16) -> Result<Self, Failure> {
        Ok(Self {
            connection: Connection::open(port).await?,
            answers: PhantomData,
        })
    }
}

impl<A: DeserializeOwned + PartialEq + Debug + Send + Sync + 'static> Ask for Client<A> {
    type Question = Vec<u8>;
    type Answer = A;

    async fn ask(&mut self, question: &Vec<u8>) -> Result<A, Failure> {
        let answer = self.connection.ask(question).await?;
        let said = || String::from_utf8_lossy(answer.body);
        if answer.status != 200 {
            return Err(format!("status {}: {}", answer.status, said()).into());
        }
        serde_json::from_slice(answer.body).map_err(|error| format!("{error} in {}", said()).into())
    }
}
