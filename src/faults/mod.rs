//! Faults made on purpose: crashes at named places, and bugs that the checkers must find.
//!
//! They exist in builds with the feature `faults` alone, which no release is built with; in any
//! other build everything here is nothing.

#[cfg(feature = "faults")]
use std::sync::Arc;
use std::time::Duration;

#[cfg(feature = "faults")]
use futures_util::future::BoxFuture;

#[cfg(feature = "faults")]
mod process;

#[cfg(feature = "faults")]
pub use process::{BadPlan, ProcessPlan};

/// A place between two effects, where a crash must lose nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Point {
    /// Nothing is claimed yet.
    ClaimBefore,
    /// Claims are stored, and nothing was done about them.
    ClaimAfter,
    /// A deployment's gates wait for evidence that has not been asked for.
    EvidenceBefore,
    /// Evidence was given, and is not stored.
    EvidenceAfter,
    /// A transaction is about to begin.
    BeginBefore,
    /// A transaction has written all of it, and has not been committed.
    CommitBefore,
    /// A transaction is committed, and nobody knows.
    CommitAfter,
    /// What is put on record is about to be written, within its transaction.
    EventBefore,
    /// What is put on record is written, within its transaction.
    EventAfter,
    /// Traffic has changed, and the other replicas have not been told.
    NotifyBefore,
    /// The other replicas have been told.
    NotifyAfter,
    /// Claims have not been given back by a replica that stops.
    ReleaseBefore,
    /// Claims have been given back.
    ReleaseAfter,
    /// A transaction that lost a race is about to be tried again.
    RetryBefore,
    /// What is acted on was read, and the transaction has not begun: with [`Bug::SkipsFence`] alone.
    FenceSkipped,
}

impl Point {
    /// Every place.
    pub const ALL: [Self; 15] = [
        Self::ClaimBefore,
        Self::ClaimAfter,
        Self::EvidenceBefore,
        Self::EvidenceAfter,
        Self::BeginBefore,
        Self::CommitBefore,
        Self::CommitAfter,
        Self::EventBefore,
        Self::EventAfter,
        Self::NotifyBefore,
        Self::NotifyAfter,
        Self::ReleaseBefore,
        Self::ReleaseAfter,
        Self::RetryBefore,
        Self::FenceSkipped,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClaimBefore => "claim.before",
            Self::ClaimAfter => "claim.after",
            Self::EvidenceBefore => "evidence.before",
            Self::EvidenceAfter => "evidence.after",
            Self::BeginBefore => "begin.before",
            Self::CommitBefore => "commit.before",
            Self::CommitAfter => "commit.after",
            Self::EventBefore => "event.before",
            Self::EventAfter => "event.after",
            Self::NotifyBefore => "notify.before",
            Self::NotifyAfter => "notify.after",
            Self::ReleaseBefore => "release.before",
            Self::ReleaseAfter => "release.after",
            Self::RetryBefore => "retry.before",
            Self::FenceSkipped => "fence.skipped",
        }
    }
}

/// A bug that can be switched on, to show that what should find it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bug {
    /// The reconciler acts on what it read when it claimed, and writes without asking whether the
    /// claim still holds.
    SkipsFence,
    /// A step of a rollout is taken twice.
    DoublesStep,
    /// A step is not put on record.
    LosesEvent,
    /// Traffic is not stored where a rollout is taken back.
    ForgetsTraffic,
    /// The answer under a caller's key is not kept.
    ForgetsAnswer,
    /// Now and then something is acknowledged that was not committed.
    AcknowledgesEarly,
}

impl Bug {
    /// Every bug.
    pub const ALL: [Self; 6] = [
        Self::SkipsFence,
        Self::DoublesStep,
        Self::LosesEvent,
        Self::ForgetsTraffic,
        Self::ForgetsAnswer,
        Self::AcknowledgesEarly,
    ];

    /// Its name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SkipsFence => "skips-fence",
            Self::DoublesStep => "doubles-step",
            Self::LosesEvent => "loses-event",
            Self::ForgetsTraffic => "forgets-traffic",
            Self::ForgetsAnswer => "forgets-answer",
            Self::AcknowledgesEarly => "acknowledges-early",
        }
    }
}

/// The answer to something that was done, or not, has been lost on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the answer was lost, by a fault made on purpose")]
pub struct Lost;

/// What is to go wrong.
#[cfg(feature = "faults")]
pub trait Plan: std::fmt::Debug + Send + Sync {
    /// Something has come to a place: it goes on when this returns, or not at all.
    fn reach(&self, point: Point) -> BoxFuture<'_, Result<(), Lost>>;

    /// Something has come to a place where it pauses: for so long, or as the plan has it.
    fn pause(&self, point: Point, pause: Duration) -> BoxFuture<'_, Result<(), Lost>> {
        Box::pin(async move {
            tokio::time::sleep(pause).await;
            self.reach(point).await
        })
    }

    /// Whether a bug is switched on, and bites here.
    fn has(&self, bug: Bug) -> bool;
}

/// The faults of one replica. Cheap to clone; none by default.
#[derive(Debug, Clone, Default)]
pub struct Faults {
    #[cfg(feature = "faults")]
    plan: Option<Arc<dyn Plan>>,
}

impl Faults {
    /// Faults by a plan.
    #[cfg(feature = "faults")]
    #[must_use]
    pub fn by(plan: Arc<dyn Plan>) -> Self {
        Self { plan: Some(plan) }
    }

    /// Comes to a place.
    ///
    /// # Errors
    /// What was done there was done, and its answer is lost.
    #[cfg_attr(
        not(feature = "faults"),
        expect(
            clippy::unused_async,
            reason = "a plan may wait, and there is none here"
        )
    )]
    pub async fn at(&self, point: Point) -> Result<(), Lost> {
        #[cfg(feature = "faults")]
        if let Some(plan) = &self.plan {
            return plan.reach(point).await;
        }
        let _ = point;
        Ok(())
    }

    /// Pauses at a place.
    ///
    /// # Errors
    /// The answer to what was done before is lost.
    pub async fn pause(&self, point: Point, pause: Duration) -> Result<(), Lost> {
        #[cfg(feature = "faults")]
        if let Some(plan) = &self.plan {
            return plan.pause(point, pause).await;
        }
        let _ = point;
        tokio::time::sleep(pause).await;
        Ok(())
    }

    /// Whether a bug is switched on, and bites here.
    #[must_use]
    pub fn has(&self, bug: Bug) -> bool {
        #[cfg(feature = "faults")]
        if let Some(plan) = &self.plan {
            return plan.has(bug);
        }
        let _ = bug;
        false
    }
}
