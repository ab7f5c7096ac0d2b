//! Time as a value: real, or moved by a test.

use std::sync::Arc;

use chrono::{SubsecRound as _, Utc};
use tokio::sync::watch;

use crate::domain::Timestamp;

/// Where the time comes from.
#[derive(Debug, Clone)]
pub enum Clock {
    /// The system's clock. Where there is a database server, its clock decides instead, so that
    /// replicas whose clocks differ agree.
    System,
    /// A clock that stands still until it is moved.
    Manual(ManualClock),
}

/// A clock that stands still until it is moved.
#[derive(Debug, Clone)]
pub struct ManualClock(Arc<watch::Sender<Timestamp>>);

impl ManualClock {
    /// A clock that stands at `now`.
    #[must_use]
    pub fn new(now: Timestamp) -> Self {
        Self(Arc::new(watch::Sender::new(now)))
    }

    /// What it shows.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        *self.0.borrow()
    }

    /// Moves it on, and wakes who sleeps by it.
    pub fn advance(&self, by: std::time::Duration) {
        self.0.send_modify(|now| *now += by);
    }
}

impl Clock {
    /// The time of this process, to the microsecond.
    #[must_use]
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    pub fn now(&self) -> Timestamp {
        match self {
            Self::System => Utc::now().trunc_subsecs(6),
            Self::Manual(clock) => clock.now(),
        }
    }

    /// Sleeps for `wait` by this clock; not at all where that is not positive.
    pub async fn sleep(&self, wait: chrono::TimeDelta) {
        match self {
            Self::System => tokio::time::sleep(wait.to_std().unwrap_or_default()).await,
            Self::Manual(clock) => {
                let until = clock.now() + wait;
                let mut now = clock.0.subscribe();
                // The sender lives as long as `clock`, so this can't fail.
                let _ = now.wait_for(|now| *now >= until).await;
            }
        }
    }
}
