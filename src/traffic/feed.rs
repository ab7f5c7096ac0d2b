//! Feeds the table from the storage.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Snapshot, Stored, Table};
use crate::{
    store::{self, Store, TrafficRead},
    telemetry::Metrics,
};

/// How often the storage is asked for what others have written: the truth.
const POLL: Duration = Duration::from_secs(1);

impl Table {
    /// Brings the table up to what the storage has now.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn refresh(&self, store: &Store) -> Result<(), store::Error> {
        // Read before the storage: what this replica writes meanwhile is in the storage, too.
        let before = self.snapshot();
        let stored = store.traffic_revisions().await?;
        if self.is_unproven() {
            return self.prove(store, &before, &stored).await;
        }
        for (name, revision) in stored {
            let known = before.revision(&name);
            if revision > known {
                let read = store.traffic_after(&name, known).await?;
                self.apply_all(Stored::read(&name, read));
            } else if revision < known {
                // A backup was restored, or a failover has lost writes.
                tracing::warn!(environment = %name, revision, known, "the storage has gone back in time; its word is taken");
                self.read_anew(store, &name, known).await?;
            }
        }
        self.read_again(store, &before).await?;
        self.agrees();
        Ok(())
    }

    /// Reads again what could not be read: who puts it right does not raise its revision.
    async fn read_again(&self, store: &Store, before: &Snapshot) -> Result<(), store::Error> {
        for (name, environment) in before.environments() {
            let prompts = environment.unreadable.iter();
            if environment.unreadable.is_empty() {
                continue;
            }
            let read = store.traffic_of(name, prompts.cloned()).await?;
            // What has changed meanwhile comes with what is after the revision that is known.
            let revision = environment.revision;
            self.apply_all(Stored {
                revision,
                ..Stored::read(name, read)
            });
        }
        Ok(())
    }

    /// Puts the storage's word in the place of the cache's, whatever that says of revisions.
    async fn prove(
        &self,
        store: &Store,
        before: &Snapshot,
        stored: &[(String, i64)],
    ) -> Result<(), store::Error> {
        let stored = stored.iter().map(|(name, _)| name);
        let cached = before.environments().map(|(name, _)| name);
        let names: BTreeSet<_> = stored.chain(cached).collect();
        let mut all = true;
        for name in names {
            all &= self.read_anew(store, name, before.revision(name)).await?;
        }
        if all {
            self.agrees();
        }
        Ok(())
    }

    async fn read_anew(&self, store: &Store, name: &str, known: i64) -> Result<bool, store::Error> {
        let read = store.traffic_after(name, 0).await?;
        Ok(self.replace(Stored::read(name, read), known))
    }
}

impl Stored {
    fn read(environment: &str, read: TrafficRead) -> Self {
        Self {
            environment: environment.to_owned(),
            revision: read.revision,
            traffic: read.traffic,
            unreadable: read.unreadable,
        }
    }
}

/// Shortest time between two reads, however often is hinted: hints may come from anybody who can
/// reach Redis.
const GAP: Duration = Duration::from_millis(10);

/// Keeps the table fed until it is told to stop. `hint` says that another replica has written.
pub async fn feed(
    table: Table,
    store: Store,
    metrics: Metrics,
    hint: Arc<Notify>,
    stop: CancellationToken,
) {
    let mut failing = false;
    loop {
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = hint.notified() => {}
            () = stop.cancelled() => return,
        }
        match table.refresh(&store).await {
            Ok(()) => failing = false,
            Err(error) if !failing => {
                failing = true;
                tracing::warn!(%error, "the traffic table can't be read; the last one known is served on");
            }
            Err(_) => {}
        }
        tokio::time::sleep(GAP).await;
        metrics.traffic(
            table.age(),
            u64::try_from(table.watcher_count()).unwrap_or(u64::MAX),
        );
    }
}
