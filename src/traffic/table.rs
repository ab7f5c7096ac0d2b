//! The table itself: a persistent map, swapped as a whole, read without a lock.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use rpds::{HashTrieMapSync, HashTrieSetSync};
use tokio::sync::{Notify, broadcast};
use tokio_util::sync::CancellationToken;

use super::{Cached, watchers::Watchers};
use crate::domain::traffic::Traffic;

/// How many changes a watcher may be behind before it is given all that differs instead.
const CHANGES_KEPT: usize = 1024;
/// From when on answers say how old the table is: some polls have failed by then.
const STALE_AFTER: Duration = Duration::from_secs(5);

/// What all environments serve, at one moment.
#[derive(Debug, Clone)]
pub struct Snapshot {
    environments: HashTrieMapSync<String, Environment>,
    /// Counts the changes of this replica's table, of all environments.
    pub(super) sequence: u64,
}

/// What one environment serves, at one moment.
#[derive(Debug, Clone)]
pub struct Environment {
    /// Everything up to this revision is in.
    pub revision: i64,
    /// The split of each prompt.
    pub prompts: HashTrieMapSync<String, Arc<Traffic>>,
    /// The prompts whose rows can't be read: what is known of them may be old.
    pub(super) unreadable: HashTrieSetSync<String>,
    /// The sequence of its last change.
    pub(super) changed: u64,
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
    /// Whether revisions told before count no more: the storage has another past than was known.
    pub is_reset: bool,
    pub(super) sequence: u64,
}

/// What an environment serves, as it was read from the storage or the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The environment.
    pub environment: String,
    /// Everything up to this revision is in.
    pub revision: i64,
    /// The split of each prompt.
    pub traffic: Vec<Traffic>,
    /// The prompts of which that can't be read.
    pub unreadable: Vec<String>,
}

/// The traffic table of this replica. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Table(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    snapshot: ArcSwap<Snapshot>,
    /// Held by the one who makes the next snapshot.
    writer: Mutex<()>,
    /// What is in it is the cache's, and has not been held against the storage yet.
    is_unproven: AtomicBool,
    created: Instant,
    /// When the table last agreed with the storage, in ms after `created`.
    agreed: AtomicI64,
    changes: broadcast::Sender<Arc<Change>>,
    own_writes: Notify,
    watchers: Watchers,
    closed: CancellationToken,
}

impl Default for Table {
    fn default() -> Self {
        let empty = Snapshot {
            environments: HashTrieMapSync::new_sync(),
            sequence: 0,
        };
        Self(Arc::new(Inner {
            snapshot: ArcSwap::from_pointee(empty),
            writer: Mutex::new(()),
            is_unproven: AtomicBool::new(false),
            created: Instant::now(),
            agreed: AtomicI64::new(0),
            changes: broadcast::Sender::new(CHANGES_KEPT),
            own_writes: Notify::new(),
            watchers: Watchers::default(),
            closed: CancellationToken::new(),
        }))
    }
}

impl Snapshot {
    /// An environment, where anything was ever served there.
    #[must_use]
    pub fn environment(&self, name: &str) -> Option<&Environment> {
        self.environments.get(name)
    }

    /// Every environment where anything was ever served, by name.
    pub fn environments(&self) -> impl Iterator<Item = (&String, &Environment)> {
        self.environments.iter()
    }

    /// The revision up to which an environment is known, 0 for none.
    #[must_use]
    pub fn revision(&self, name: &str) -> i64 {
        self.environment(name)
            .map_or(0, |environment| environment.revision)
    }
}

impl Stored {
    /// Rows that can all be read.
    #[must_use]
    pub fn of(environment: &str, traffic: Vec<Traffic>, revision: i64) -> Self {
        Self {
            environment: environment.to_owned(),
            revision,
            traffic,
            unreadable: Vec::new(),
        }
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

    /// Whether it can't be said what is served of a prompt: its row can't be read, and was not before.
    #[must_use]
    pub fn is_unreadable(&self, environment: &str, prompt_id: &str) -> bool {
        let snapshot = self.0.snapshot.load();
        let environment = snapshot.environment(environment);
        environment.is_some_and(|known| {
            known.unreadable.contains(prompt_id) && !known.prompts.contains_key(prompt_id)
        })
    }

    /// How long ago the table last agreed with the storage.
    #[must_use]
    pub fn age(&self) -> Duration {
        let agreed = self.0.agreed.load(Ordering::Relaxed);
        let now = milliseconds(self.0.created.elapsed());
        Duration::from_millis((now - agreed).unsigned_abs())
    }

    /// How old the table is where it is older than it should be: the storage does not answer.
    #[must_use]
    pub fn staleness(&self) -> Option<Duration> {
        let age = self.age();
        (age >= STALE_AFTER).then_some(age)
    }

    /// Ends the streams of changes, because the service stops.
    pub fn close(&self) {
        self.0.closed.cancel();
    }

    /// Ends when the service stops.
    pub(super) fn closed(&self) -> CancellationToken {
        self.0.closed.clone()
    }

    /// Those who watch the changes.
    pub(super) fn watchers(&self) -> &Watchers {
        &self.0.watchers
    }

    /// The changes from now on. Take a snapshot after subscribing, so that none is missed between.
    pub(super) fn subscribe(&self) -> broadcast::Receiver<Arc<Change>> {
        self.0.changes.subscribe()
    }

    /// Takes in one split that this replica has just written.
    pub fn apply_own(&self, traffic: Traffic) {
        let environment = traffic.environment.to_string();
        let revision = traffic.revision;
        self.update(&environment, vec![traffic], &[], |known| {
            // Where other replicas have written between, the poll brings what is missing.
            if known + 1 == revision {
                revision
            } else {
                known
            }
        });
        self.0.own_writes.notify_one();
    }

    /// Waits until this replica has written something. For one who waits.
    pub(super) async fn own_write(&self) {
        self.0.own_writes.notified().await;
    }

    /// Takes in all splits of an environment that have changed up to `revision`. Of those that can't be
    /// read, what was known before is served on.
    pub(super) fn apply_all(&self, stored: Stored) {
        let Stored {
            environment,
            revision,
            traffic,
            unreadable,
        } = stored;
        self.update(&environment, traffic, &unreadable, |known| {
            known.max(revision)
        });
    }

    /// Fills the table from the cache, because the storage does not answer.
    /// When it does, [`Table::refresh`] puts in the storage's word for all of it.
    pub fn fill_unproven(&self, cached: Cached) {
        self.0.is_unproven.store(true, Ordering::Relaxed);
        let agreed =
            milliseconds(self.0.created.elapsed()).saturating_sub(milliseconds(cached.age));
        self.0.agreed.store(agreed, Ordering::Relaxed);
        for stored in cached.environments {
            self.apply_all(stored);
        }
    }

    /// Whether what is in it is the cache's word.
    pub(super) fn is_unproven(&self) -> bool {
        self.0.is_unproven.load(Ordering::Relaxed)
    }

    /// Notes that the table agrees with the storage.
    pub(super) fn agrees(&self) {
        self.0.is_unproven.store(false, Ordering::Relaxed);
        let now = milliseconds(self.0.created.elapsed());
        self.0.agreed.store(now, Ordering::Relaxed);
    }

    fn update(
        &self,
        name: &str,
        traffic: Vec<Traffic>,
        unreadable: &[String],
        revision: impl FnOnce(i64) -> i64,
    ) {
        let _writer = self.hold();
        let snapshot = self.snapshot();
        let mut environment = snapshot.environment(name).cloned().unwrap_or_default();
        let mut changed = Vec::new();
        let mut is_other = false;
        for row in traffic {
            let prompt = row.prompt_id.to_string();
            is_other |= environment.unreadable.remove_mut(&prompt);
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
        for prompt in unreadable {
            is_other |= !environment.unreadable.contains(prompt);
            environment.unreadable.insert_mut(prompt.clone());
        }
        let before = environment.revision;
        environment.revision = revision(before);
        if changed.is_empty() && environment.revision == before && !is_other {
            return;
        }
        self.publish(&snapshot, name, environment, changed, false);
    }

    /// Puts all of an environment in the place of what was known of it, where that was up to the
    /// revision `known`; says whether it was.
    pub(super) fn replace(&self, stored: Stored, known: i64) -> bool {
        let _writer = self.hold();
        let snapshot = self.snapshot();
        let name = &stored.environment;
        if snapshot.revision(name) != known {
            return false;
        }
        let before = snapshot.environment(name).cloned().unwrap_or_default();
        let rows = stored.traffic.into_iter().map(Arc::new);
        // What can't be read is served on as it was known.
        let kept = stored.unreadable.iter();
        let kept = kept.filter_map(|prompt| before.prompts.get(prompt).cloned());
        let prompts: HashTrieMapSync<_, _> = rows
            .chain(kept)
            .map(|row| (row.prompt_id.to_string(), row))
            .collect();
        let names: BTreeSet<_> = before.prompts.keys().chain(prompts.keys()).collect();
        let changed = names.into_iter().filter_map(|prompt| {
            match (before.prompts.get(prompt), prompts.get(prompt)) {
                (Some(old), Some(new)) if old == new => None,
                (_, Some(new)) => Some(Arc::clone(new)),
                // It is not served any more.
                (Some(old), None) => Some(Arc::new(Traffic {
                    revision: stored.revision,
                    ..Traffic::none(old.prompt_id.clone(), old.environment.clone())
                })),
                (None, None) => None,
            }
        });
        let changed: Vec<_> = changed.collect();
        let unreadable = stored.unreadable.into_iter().collect();
        let is_same = changed.is_empty() && before.unreadable == unreadable;
        if is_same && before.revision == stored.revision {
            return true;
        }
        let after = Environment {
            revision: stored.revision,
            prompts: prompts.clone(),
            unreadable,
            changed: 0,
        };
        self.publish(&snapshot, name, after, changed, true);
        true
    }

    fn hold(&self) -> impl Drop {
        self.0.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes the next snapshot of the last one, and tells who watches.
    fn publish(
        &self,
        last: &Snapshot,
        name: &str,
        mut environment: Environment,
        traffic: Vec<Arc<Traffic>>,
        is_reset: bool,
    ) {
        let sequence = last.sequence + 1;
        environment.changed = sequence;
        let change = Change {
            environment: name.to_owned(),
            revision: environment.revision,
            traffic,
            is_reset,
            sequence,
        };
        self.0.snapshot.store(Arc::new(Snapshot {
            environments: last.environments.insert(name.to_owned(), environment),
            sequence,
        }));
        // Nobody may be watching.
        let _ = self.0.changes.send(Arc::new(change));
    }
}

fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl Default for Environment {
    fn default() -> Self {
        Self {
            revision: 0,
            prompts: HashTrieMapSync::new_sync(),
            unreadable: HashTrieSetSync::new_sync(),
            changed: 0,
        }
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
        table.apply_all(Stored::of(
            "production",
            vec![row("b", 2, 2), row("a", 3, 3)],
            3,
        ));
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
        let mut changes = table.subscribe();
        table.apply_all(Stored::of("production", vec![row("a", 2, 2)], 2));
        assert_eq!(changes.try_recv().unwrap().traffic.len(), 1);
        table.apply_own(row("a", 1, 1));
        assert!(changes.try_recv().is_err());
        assert_eq!(table.get("production", "a").unwrap().stable_version(), 2);
    }
}
