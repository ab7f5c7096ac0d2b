//! Watches an environment: all of it, then each change, in the order of its revisions.

use std::{sync::Arc, time::Duration};

use super::{Change, Changes, Lagged, Table};
use crate::domain::traffic::Traffic;

/// How long a watcher is waited for who knows more than this replica: two polls.
const CATCH_UP: Duration = Duration::from_secs(2);

/// What a watcher is told.
#[derive(Debug, Clone)]
pub struct Update {
    /// The splits: all of them in a snapshot, otherwise those that have changed.
    pub traffic: Vec<Arc<Traffic>>,
    /// Everything up to this revision has been told.
    pub revision: i64,
    /// Whether this is all there is.
    pub snapshot: bool,
    /// How old it may be, where the storage does not answer.
    pub staleness: Option<Duration>,
}

impl Update {
    /// Whether it says anything of a split: a replica may learn that it has seen all up to a
    /// revision without any change to tell of.
    #[must_use]
    pub fn is_news(&self) -> bool {
        self.snapshot || !self.traffic.is_empty()
    }
}

/// A watcher of an environment.
#[derive(Debug)]
pub struct Watch {
    table: Table,
    environment: String,
    changes: Changes,
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
            changes: self.changes(Some(environment.to_owned())),
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
            return self.begin().await;
        }
        loop {
            match self.changes.next().await? {
                Ok(change) if change.is_reset => return Some(self.start_over()),
                Ok(change) => {
                    if let Some(update) = self.tell(&change) {
                        return Some(update);
                    }
                }
                // It was too slow to be told of each: it is told what differs. A reset may be
                // among what it missed.
                Err(Lagged) if self.told > self.known() => return Some(self.start_over()),
                Err(Lagged) => return Some(self.catch_up()),
            }
        }
    }

    /// That nothing has changed, to show that the stream is alive.
    #[must_use]
    pub fn nothing_new(&self) -> Update {
        self.update(Vec::new())
    }

    fn update(&self, traffic: Vec<Arc<Traffic>>) -> Update {
        Update {
            traffic,
            revision: self.told,
            snapshot: false,
            staleness: self.table.staleness(),
        }
    }

    /// The first thing to tell. A client may have come from a replica that knows more than this one
    /// yet; it is not told what is older, but waited for.
    async fn begin(&mut self) -> Option<Update> {
        let deadline = tokio::time::Instant::now() + CATCH_UP;
        while self.told > self.known() {
            match tokio::time::timeout_at(deadline, self.changes.next()).await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                // It was never given out here: it is of another storage.
                Err(_) => self.told = 0,
            }
        }
        if self.told == 0 {
            return Some(self.start_over());
        }
        Some(self.catch_up())
    }

    /// The revision up to which this replica knows the environment.
    fn known(&self) -> i64 {
        self.table.snapshot().revision(&self.environment)
    }

    fn start_over(&mut self) -> Update {
        self.told = 0;
        Update {
            snapshot: true,
            ..self.catch_up()
        }
    }

    fn catch_up(&mut self) -> Update {
        let snapshot = self.table.snapshot();
        let environment = snapshot.environment(&self.environment);
        let traffic = environment
            .map(|environment| environment.after(self.told))
            .unwrap_or_default();
        self.told = self.told.max(snapshot.revision(&self.environment));
        self.changes.takes(&snapshot);
        self.update(traffic)
    }

    /// What to tell of a change: the splits as they are now, since a change may have waited in line
    /// while a later one was told already. None where all of it has been told.
    fn tell(&mut self, change: &Change) -> Option<Update> {
        let snapshot = self.table.snapshot();
        let environment = snapshot.environment(&self.environment)?;
        let now = |row: &Arc<Traffic>| environment.prompts.get(row.prompt_id.as_str()).cloned();
        let traffic: Vec<_> = change
            .traffic
            .iter()
            .filter_map(now)
            .filter(|row| row.revision > self.told)
            .collect();
        if traffic.is_empty() && change.revision <= self.told {
            return None;
        }
        self.told = self.told.max(change.revision);
        Some(self.update(traffic))
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
    use crate::traffic::Stored;

    fn row(prompt: &str, revision: i64) -> Traffic {
        let environment = ids::Environment::parse("production").unwrap();
        let mut traffic = Traffic::none(PromptId::parse(prompt).unwrap(), environment);
        traffic.stable = Some(Stable {
            version: 1,
            deployment_id: Uuid::nil(),
        });
        traffic.revision = revision;
        traffic
    }

    fn revisions(update: &Update) -> Vec<i64> {
        update.traffic.iter().map(|row| row.revision).collect()
    }

    #[tokio::test]
    async fn what_is_older_than_what_was_told_is_never_told() {
        let table = Table::default();
        table.apply_all(Stored::of("production", vec![row("a", 1)], 1));
        let mut watch = table.watch("production", 0);
        // These wait in line while the snapshot, which has them, is told.
        table.apply_all(Stored::of("production", vec![row("a", 2)], 2));
        table.apply_all(Stored::of("production", vec![row("a", 3)], 3));
        let snapshot = watch.next().await.unwrap();
        assert_eq!(
            (revisions(&snapshot), snapshot.revision, snapshot.snapshot),
            (vec![3], 3, true)
        );
        table.apply_all(Stored::of("production", vec![row("b", 4)], 4));
        let change = watch.next().await.unwrap();
        assert_eq!((revisions(&change), change.revision), (vec![4], 4));
    }

    #[tokio::test]
    async fn who_comes_from_a_replica_that_knows_more_is_not_sent_back_in_time() {
        let table = Table::default();
        table.apply_all(Stored::of("production", vec![row("a", 3)], 3));
        let mut watch = table.watch("production", 5);
        let feed = async { table.apply_all(Stored::of("production", vec![row("a", 6)], 6)) };
        let (update, ()) = tokio::join!(watch.next(), feed);
        let update = update.unwrap();
        assert_eq!(
            (revisions(&update), update.revision, update.snapshot),
            (vec![6], 6, false)
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_revision_of_another_storage_is_answered_with_a_snapshot() {
        let table = Table::default();
        table.apply_all(Stored::of("production", vec![row("a", 3)], 3));
        let update = table.watch("production", 99).next().await.unwrap();
        assert_eq!(
            (revisions(&update), update.revision, update.snapshot),
            (vec![3], 3, true)
        );
    }

    #[tokio::test]
    async fn where_the_storage_has_another_past_a_watcher_starts_over() {
        let table = Table::default();
        table.apply_all(Stored::of("production", vec![row("a", 8), row("b", 9)], 9));
        let mut watch = table.watch("production", 0);
        watch.next().await.unwrap();
        let restored = Stored::of("production", vec![row("a", 4)], 4);
        assert!(!table.replace(restored.clone(), 8), "it has changed since");
        assert!(table.replace(restored, 9));
        let update = watch.next().await.unwrap();
        assert_eq!(
            (revisions(&update), update.revision, update.snapshot),
            (vec![4], 4, true)
        );
        table.apply_all(Stored::of("production", vec![row("b", 5)], 5));
        assert_eq!(revisions(&watch.next().await.unwrap()), [5]);
    }

    #[tokio::test]
    async fn a_watcher_has_been_sent_a_change_when_it_asks_for_the_next() {
        let table = Table::default();
        table.apply_all(Stored::of("production", vec![row("a", 1)], 1));
        let mut watch = table.watch("production", 0);
        let mut all = table.changes(None);
        let behind = |table: &Table| {
            let spread = table.spread()["production"];
            (spread.revision, spread.watchers, spread.watchers_behind)
        };
        assert_eq!(behind(&table), (1, 2, 2));
        all.takes(&table.snapshot());
        watch.next().await.unwrap();
        table.apply_all(Stored::of("staging", vec![], 1));
        table.apply_all(Stored::of("production", vec![row("a", 2)], 2));
        for _ in ["staging", "production"] {
            all.next().await.unwrap().unwrap();
            assert_eq!(behind(&table), (2, 2, 2), "what is taken is not sent yet");
        }
        let nothing = Duration::from_millis(1);
        assert!(tokio::time::timeout(nothing, all.next()).await.is_err());
        assert_eq!(behind(&table), (2, 2, 1));
        watch.next().await.unwrap();
        assert!(tokio::time::timeout(nothing, watch.next()).await.is_err());
        assert_eq!(behind(&table), (2, 2, 0));
        drop((watch, all));
        assert_eq!(behind(&table), (2, 0, 0));
    }
}
