//! The table itself: a persistent map, swapped as a whole, read without a lock.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use rpds::HashTrieMapSync;
use tokio::sync::broadcast;
use tokio_util::sync::CancellationToken;

use crate::domain::traffic::Traffic;

/// How many changes a watcher may be behind before it is given all that differs instead.
const CHANGES_KEPT: usize = 1024;

/// What all environments serve, at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot(HashTrieMapSync<String, Environment>);

/// What one environment serves, at one moment.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Everything up to this revision is in.
    pub revision: i64,
    /// The split of each prompt.
    pub prompts: HashTrieMapSync<String, Arc<Traffic>>,
}

/// A change of one environment.
#[derive(Debug)]
pub struct Change {
    /// The environment.
    pub environment: String,
    /// Everything up to this revision is in, with this change.
    pub revision: i64,
    /// The splits that have changed.
    pub traffic: Vec<Arc<Traffic>>,
}

/// The traffic table of this replica. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Table(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    snapshot: ArcSwap<Snapshot>,
    /// Held by the one who makes the next snapshot; when the storage was last read.
    writer: Mutex<Instant>,
    changes: broadcast::Sender<Arc<Change>>,
    closed: CancellationToken,
}

impl Default for Table {
    fn default() -> Self {
        Self(Arc::new(Inner {
            snapshot: ArcSwap::from_pointee(Snapshot(HashTrieMapSync::new_sync())),
            writer: Mutex::new(Instant::now()),
            changes: broadcast::Sender::new(CHANGES_KEPT),
            closed: CancellationToken::new(),
        }))
    }
}

impl Snapshot {
    /// An environment, where anything was ever served there.
    #[must_use]
    pub fn environment(&self, name: &str) -> Option<&Environment> {
        self.0.get(name)
    }
}

impl Table {
    /// What all environments serve now.
    #[must_use]
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot.load_full()
    }

    /// The split of a prompt in an environment, as it is now.
    #[must_use]
    pub fn get(&self, environment: &str, prompt_id: &str) -> Option<Arc<Traffic>> {
        let snapshot = self.0.snapshot.load();
        snapshot
            .environment(environment)?
            .prompts
            .get(prompt_id)
            .cloned()
    }

    /// The changes from now on. Take a snapshot after subscribing, so that none is missed between.
    #[must_use]
    pub fn changes(&self) -> broadcast::Receiver<Arc<Change>> {
        self.0.changes.subscribe()
    }

    /// How many watch the changes.
    #[must_use]
    pub fn watchers(&self) -> usize {
        self.0.changes.receiver_count()
    }

    /// How long ago the storage was read.
    #[must_use]
    pub fn age(&self) -> Duration {
        self.0
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .elapsed()
    }

    /// Ends the streams of changes, because the service stops.
    pub fn close(&self) {
        self.0.closed.cancel();
    }

    /// Ends when the service stops.
    #[must_use]
    pub fn closed(&self) -> CancellationToken {
        self.0.closed.clone()
    }

    /// Takes in one split that this replica has just written.
    pub fn apply_own(&self, traffic: Traffic) {
        let environment = traffic.environment.to_string();
        let revision = traffic.revision;
        self.update(&environment, vec![traffic], |known| {
            // Where other replicas have written between, the poll brings what is missing.
            if known + 1 == revision {
                revision
            } else {
                known
            }
        });
    }

    /// Takes in all splits of an environment that have changed up to `revision`.
    pub(super) fn apply_all(&self, environment: &str, traffic: Vec<Traffic>, revision: i64) {
        self.update(environment, traffic, |known| known.max(revision));
    }

    /// Notes that the storage has been read.
    pub(super) fn has_been_fed(&self) {
        *self.0.writer.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn update(&self, name: &str, traffic: Vec<Traffic>, revision: impl FnOnce(i64) -> i64) {
        let _writer = self.0.writer.lock().unwrap_or_else(PoisonError::into_inner);
        let snapshot = self.0.snapshot.load_full();
        let mut environment = snapshot
            .environment(name)
            .cloned()
            .unwrap_or_else(|| Environment {
                revision: 0,
                prompts: HashTrieMapSync::new_sync(),
            });
        let mut changed = Vec::new();
        for row in traffic {
            let prompt = row.prompt_id.to_string();
            let is_news = environment
                .prompts
                .get(&prompt)
                .is_none_or(|known| known.revision < row.revision);
            if is_news {
                let row = Arc::new(row);
                environment.prompts.insert_mut(prompt, Arc::clone(&row));
                changed.push(row);
            }
        }
        let before = environment.revision;
        environment.revision = revision(before);
        if changed.is_empty() && environment.revision == before {
            return;
        }
        let change = Change {
            environment: name.to_owned(),
            revision: environment.revision,
            traffic: changed,
        };
        let next = Snapshot(snapshot.0.insert(name.to_owned(), environment));
        self.0.snapshot.store(Arc::new(next));
        // Nobody may be watching.
        let _ = self.0.changes.send(Arc::new(change));
    }
}

impl Environment {
    /// The splits that have changed after a revision, by prompt.
    #[must_use]
    pub fn after(&self, revision: i64) -> Vec<Arc<Traffic>> {
        let mut traffic: Vec<_> = self
            .prompts
            .values()
            .filter(|row| row.revision > revision)
            .cloned()
            .collect();
        traffic.sort_unstable_by(|a, b| a.prompt_id.cmp(&b.prompt_id));
        traffic
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{
        ids::{self, PromptId},
        traffic::Stable,
    };

    fn row(prompt: &str, version: i32, revision: i64) -> Traffic {
        let environment = ids::Environment::parse("production").unwrap();
        let mut traffic = Traffic::none(PromptId::parse(prompt).unwrap(), environment);
        traffic.stable = Some(Stable {
            version,
            deployment_id: Uuid::nil(),
        });
        traffic.revision = revision;
        traffic
    }

    fn revision(table: &Table) -> i64 {
        table.snapshot().environment("production").unwrap().revision
    }

    #[test]
    fn an_own_write_is_served_at_once_and_what_others_wrote_between_is_not_taken_as_seen() {
        let table = Table::default();
        table.apply_own(row("a", 1, 1));
        assert_eq!(revision(&table), 1);
        table.apply_own(row("a", 3, 3));
        assert_eq!(table.get("production", "a").unwrap().stable_version(), 3);
        assert_eq!(
            revision(&table),
            1,
            "revision 2 is another replica's, and has not been seen"
        );
        table.apply_all("production", vec![row("b", 2, 2), row("a", 3, 3)], 3);
        assert_eq!(revision(&table), 3);
        assert_eq!(
            table
                .snapshot()
                .environment("production")
                .unwrap()
                .after(1)
                .len(),
            2
        );
    }

    #[test]
    fn what_is_older_changes_nothing() {
        let table = Table::default();
        let mut changes = table.changes();
        table.apply_all("production", vec![row("a", 2, 2)], 2);
        assert_eq!(changes.try_recv().unwrap().traffic.len(), 1);
        table.apply_own(row("a", 1, 1));
        assert!(changes.try_recv().is_err());
        assert_eq!(table.get("production", "a").unwrap().stable_version(), 2);
    }
}
