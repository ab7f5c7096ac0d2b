//! Requests that count once, however often they are sent: under a key of the caller's, the answer
//! is stored with the effect, and given again.

use uuid::Uuid;

use super::{Error, Service, error::of_store};
use crate::store::{self, FirstAnswer, Tx};

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

/// How the transaction of a request ended that may count once.
pub(super) enum Ended<D, R> {
    /// It was done.
    Done(Box<D>),
    /// The same was asked before, and was answered so.
    Before(Vec<u8>),
    /// Something else was asked under its key.
    KeyUsed,
    /// It was refused, which is not kept: it may be tried again.
    Refused(R),
}

impl<D, R> Ended<D, R> {
    /// What is replied.
    pub(super) fn reply<T>(
        self,
        done: impl FnOnce(D) -> T,
        refused: impl FnOnce(R) -> Error,
    ) -> Result<Reply<T>, Error> {
        match self {
            Self::Done(value) => Ok(Reply::Now(done(*value))),
            Self::Before(answer) => Ok(Reply::Before(answer)),
            Self::KeyUsed => Err(Error::KeyUsed),
            Self::Refused(why) => Err(refused(why)),
        }
    }
}

/// Does what is asked, within its transaction, unless it was done before under its key; its answer
/// is then kept with it.
pub(super) async fn at_most_once<T, D, R>(
    tx: &Tx,
    once: Option<&Once<T>>,
    effect: impl Future<Output = Result<Result<D, R>, store::Error>>,
) -> Result<Ended<D, R>, store::Error>
where
    D: Clone + Into<T>,
{
    let Some(once) = once else {
        return Ok(match effect.await? {
            Ok(done) => Ended::Done(Box::new(done)),
            Err(why) => Ended::Refused(why),
        });
    };
    tx.hold_key(once.key).await?;
    let now = tx.now().await?;
    if let Some(first) = tx.first_answer(once.key, now).await? {
        return Ok(match once.answer_of(first) {
            Some(answer) => Ended::Before(answer),
            None => Ended::KeyUsed,
        });
    }
    let done = match effect.await? {
        Ok(done) => done,
        Err(why) => return Ok(Ended::Refused(why)),
    };
    let answer = FirstAnswer {
        content: once.content,
        answer: (once.encode)(&done.clone().into()),
    };
    tx.put_first_answer(once.key, answer, now).await?;
    Ok(Ended::Done(Box::new(done)))
}

impl<T> Once<T> {
    /// The first answer, where the same was asked; none where something else was.
    fn answer_of(&self, first: FirstAnswer) -> Option<Vec<u8>> {
        (first.content == self.content).then_some(first.answer)
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
        let answer = first.map(|first| once.answer_of(first).ok_or(Error::KeyUsed));
        Ok(answer.transpose()?.map(Reply::Before))
    }
}
