//! What changes, one change after the other.

use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::{Change, Snapshot, Table, watchers::Registration};

/// The changes of an environment, or of all, for one who watches.
#[derive(Debug)]
pub struct Changes {
    environment: Option<String>,
    receiver: broadcast::Receiver<Arc<Change>>,
    closed: CancellationToken,
    registration: Registration,
    /// The sequence that is sent once the watcher takes the next change.
    taken: u64,
}

/// More has changed than could be kept for a watcher; some of it was missed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lagged;

impl Table {
    /// The changes from now on, of an environment or of all.
    #[must_use]
    pub fn changes(&self, environment: Option<String>) -> Changes {
        Changes {
            registration: self.watchers().register(environment.clone()),
            environment,
            receiver: self.subscribe(),
            closed: self.closed(),
            taken: 0,
        }
    }
}

impl Changes {
    /// The next change; none when the service stops.
    ///
    /// # Errors
    /// The watcher was too slow to be told of each.
    pub async fn next(&mut self) -> Option<Result<Arc<Change>, Lagged>> {
        // Who asks for the next one has passed on what it took before.
        self.registration.sent(self.taken);
        loop {
            let change = tokio::select! {
                change = self.receiver.recv() => change,
                () = self.closed.cancelled() => return None,
            };
            match change {
                Ok(change) => {
                    self.taken = change.sequence;
                    if self.is_meant(&change) {
                        return Some(Ok(change));
                    }
                    self.registration.sent(self.taken);
                }
                Err(RecvError::Lagged(_)) => return Some(Err(Lagged)),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// Notes that the watcher takes all that there is in a snapshot.
    pub fn takes(&mut self, snapshot: &Snapshot) {
        self.taken = self.taken.max(snapshot.sequence);
    }

    fn is_meant(&self, change: &Change) -> bool {
        let environment = self.environment.as_ref();
        environment.is_none_or(|environment| *environment == change.environment)
    }
}
