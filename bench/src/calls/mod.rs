//! The calls that are measured, each with the check of its answer.

use std::{
    fmt::Debug,
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use crate::{Failure, load::Caller};

pub(crate) mod deployments;
pub(crate) mod json;
pub(crate) mod ofrep;
pub(crate) mod outcomes;
pub(crate) mod seed;
pub(crate) mod traffic;
pub(crate) mod unleash;

/// A client that asks questions, one after the other.
pub(crate) trait Ask: Send + 'static {
    /// What it asks.
    type Question: Send + Sync;
    /// What it is told.
    type Answer: PartialEq + Debug + Send + Sync;

    /// Asks.
    fn ask(
        &mut self,
        question: &Self::Question,
    ) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;
}

/// Questions whose answers are known, since each has been asked once.
pub(crate) struct Known<C: Ask> {
    pairs: Vec<(C::Question, C::Answer)>,
    asked: AtomicUsize,
}

impl<C: Ask> Known<C> {
    /// Asks each question once.
    pub(crate) async fn learn(
        client: &mut C,
        questions: impl IntoIterator<Item = C::Question>,
    ) -> Result<Arc<Self>, Failure> {
        let mut pairs = Vec::new();
        for question in questions {
            let answer = client.ask(&question).await?;
            pairs.push((question, answer));
        }
        Ok(Arc::new(Self {
            pairs,
            asked: AtomicUsize::new(0),
        }))
    }

    /// The answers.
    pub(crate) fn answers(&self) -> impl Iterator<Item = &C::Answer> {
        self.pairs.iter().map(|(_, answer)| answer)
    }

    /// One of the questions, as if at random, each as often as the others.
    fn next(&self) -> &(C::Question, C::Answer) {
        // Multiples of the golden ratio lie scattered over a circle.
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let number = self.asked.fetch_add(1, Ordering::Relaxed) as u64;
        let place = number.wrapping_mul(GOLDEN) >> 32;
        &self.pairs[(place as usize * self.pairs.len()) >> 32]
    }
}

/// Asks over and over; every answer must be the one that is known.
pub(crate) struct Asking<C: Ask> {
    client: C,
    known: Arc<Known<C>>,
}

impl<C: Ask> Asking<C> {
    /// Asks through a client.
    pub(crate) fn new(client: C, known: &Arc<Known<C>>) -> Self {
        Self {
            client,
            known: Arc::clone(known),
        }
    }
}

impl<C: Ask> Caller for Asking<C> {
    async fn call(&mut self) -> Result<(), Failure> {
        let (question, expected) = self.known.next();
        let answer = self.client.ask(question).await?;
        if answer == *expected {
            Ok(())
        } else {
            Err(format!("the answer was {answer:?}, before {expected:?}").into())
        }
    }
}

/// Of the versions that the targeting keys are served, a rollout at ten percent must have made a
/// tenth the new one, give or take.
pub(crate) fn check_is_a_tenth(who: &str, versions: &[i32]) -> Result<(), Failure> {
    let new = versions.iter().filter(|version| **version == 2).count();
    let share = new as f64 / versions.len() as f64;
    if (0.05..0.15).contains(&share) {
        Ok(())
    } else {
        Err(format!("{who} serves the new version to a share of {share}, not to a tenth").into())
    }
}

fn told(call: &str, status: &tonic::Status) -> String {
    format!("{call} failed: {:?}: {}", status.code(), status.message())
}
