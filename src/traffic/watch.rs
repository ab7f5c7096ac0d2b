//! Watches an environment: all of it, then each change, in the order of its revisions.

use std::sync::Arc;

use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

use super::{Change, Table};
use crate::domain::traffic::Traffic;

/// What a watcher is told.
#[derive(Debug, Clone)]
pub struct Update {
    /// The splits: all of them in a snapshot, otherwise those that have changed.
    pub traffic: Vec<Arc<Traffic>>,
    /// Everything up to this revision has been told.
    pub revision: i64,
    /// Whether this is all there is.
    pub snapshot: bool,
}

/// A watcher of an environment.
#[derive(Debug)]
pub struct Watch {
    table: Table,
    environment: String,
    changes: broadcast::Receiver<Arc<Change>>,
    closed: CancellationToken,
    /// Everything up to this revision has been told.
    told: i64,
    has_begun: bool,
}

impl Table {
    /// Watches an environment from a revision on; from a snapshot where it is 0.
    #[must_use]
    pub fn watch(&self, environment: &str, revision: i64) -> Watch {
        Watch {
            table: self.clone(),
            environment: environment.to_owned(),
            changes: self.changes(),
            closed: self.closed(),
            told: revision,
            has_begun: false,
        }
    }
}

impl Watch {
    /// The next thing to tell; none when the service stops.
    pub async fn next(&mut self) -> Option<Update> {
        if !self.has_begun {
            self.has_begun = true;
            return Some(self.begin());
        }
        loop {
            let change = tokio::select! {
                change = self.changes.recv() => change,
                () = self.closed.cancelled() => return None,
            };
            match change {
                Ok(change) if change.environment == self.environment => {
                    return Some(self.tell(&change));
                }
                Ok(_) => {}
                // It was too slow to be told of each: it is told what differs.
                Err(RecvError::Lagged(_)) => return Some(self.catch_up()),
                Err(RecvError::Closed) => return None,
            }
        }
    }

    /// The revision up to which everything has been told.
    #[must_use]
    pub fn revision(&self) -> i64 {
        self.told
    }

    fn begin(&mut self) -> Update {
        let now = self.table.snapshot();
        let now = now
            .environment(&self.environment)
            .map_or(0, |environment| environment.revision);
        // A revision that was never given out is of another storage: begin anew.
        let snapshot = self.told == 0 || self.told > now;
        if snapshot {
            self.told = 0;
        }
        Update {
            snapshot,
            ..self.catch_up()
        }
    }

    fn catch_up(&mut self) -> Update {
        let snapshot = self.table.snapshot();
        let environment = snapshot.environment(&self.environment);
        let traffic = environment
            .map(|environment| environment.after(self.told))
            .unwrap_or_default();
        self.told = self
            .told
            .max(environment.map_or(0, |environment| environment.revision));
        Update {
            traffic,
            revision: self.told,
            snapshot: false,
        }
    }

    fn tell(&mut self, change: &Change) -> Update {
        self.told = self.told.max(change.revision);
        Update {
            traffic: change.traffic.clone(),
            revision: self.told,
            snapshot: false,
        }
    }
}
