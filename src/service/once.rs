//! Requests that count once, however often they are sent: under a key of the caller's, the answer
//! is stored with the effect, and given again.

use uuid::Uuid;

use super::{Error, Service, error::of_store};
use crate::{
    domain::Timestamp,
    store::{self, FirstAnswer, Tx},
};

/// A request that counts once, and how its answer is kept.
#[derive(Debug)]
pub struct Once<T> {
    /// A digest of the key, and of whose it is.
    pub key: Uuid,
    /// A digest of what is asked for.
    pub content: Uuid,
    /// Encodes the answer.
    pub encode: fn(&T) -> Vec<u8>,
}

impl<T> Clone for Once<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Once<T> {}

/// An answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply<T> {
    /// What was done now.
    Now(T),
    /// What was answered when it was done, as it was encoded.
    Before(Vec<u8>),
}

/// What is known under the key of a request.
pub(super) enum Found {
    /// Nothing: it is to be done.
    Nothing,
    /// The same was asked before.
    Answer(Vec<u8>),
    /// Something else was asked.
    OtherContent,
}

impl<T> Once<T> {
    /// What is known under its key, within the transaction that does it otherwise.
    pub(super) async fn find(&self, tx: &Tx) -> Result<Found, store::Error> {
        Ok(self.found(tx.first_answer(self.key).await?))
    }

    /// Keeps the answer with its effect.
    pub(super) async fn keep(
        &self,
        tx: &Tx,
        value: &T,
        now: Timestamp,
    ) -> Result<(), store::Error> {
        let answer = FirstAnswer {
            content: self.content,
            answer: (self.encode)(value),
        };
        tx.put_first_answer(self.key, answer, now).await
    }

    fn found(&self, first: Option<FirstAnswer>) -> Found {
        match first {
            None => Found::Nothing,
            Some(first) if first.content == self.content => Found::Answer(first.answer),
            Some(_) => Found::OtherContent,
        }
    }
}

impl<T> Reply<T> {
    /// The answer, by making it of what was done or reading what was kept.
    ///
    /// # Errors
    /// What was kept can't be read.
    pub fn answer<A, E>(
        self,
        make: impl FnOnce(T) -> A,
        read: impl FnOnce(&[u8]) -> Result<A, E>,
    ) -> Result<A, E> {
        match self {
            Self::Now(value) => Ok(make(value)),
            Self::Before(bytes) => read(&bytes),
        }
    }
}

impl Service {
    /// The answer that was given before, where there is one: asked before anything else is, which may
    /// have changed since.
    pub(super) async fn answered<T>(
        &self,
        once: Option<&Once<T>>,
    ) -> Result<Option<Reply<T>>, Error> {
        let Some(once) = once else { return Ok(None) };
        let first = self.store.first_answer(once.key).await;
        let first = first.map_err(|error| of_store(&error, "request", ""))?;
        match once.found(first) {
            Found::Nothing => Ok(None),
            Found::Answer(bytes) => Ok(Some(Reply::Before(bytes))),
            Found::OtherContent => Err(Error::KeyUsed),
        }
    }
}
