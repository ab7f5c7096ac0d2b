//! Feeds the table from the storage.

use std::{sync::Arc, time::Duration};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::Table;
use crate::{
    store::{self, Store},
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
        for (name, revision) in store.traffic_revisions().await? {
            let known = self
                .snapshot()
                .environment(&name)
                .map_or(0, |environment| environment.revision);
            if revision > known {
                let (traffic, revision) = store.traffic_after(&name, known).await?;
                self.apply_all(&name, traffic, revision);
            }
        }
        self.has_been_fed();
        Ok(())
    }
}

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
        metrics.traffic(
            table.age(),
            u64::try_from(table.watchers()).unwrap_or(u64::MAX),
        );
    }
}
