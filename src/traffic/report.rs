//! Tells the other replicas, through the storage, how far this one has spread what is served.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Table;
use crate::{
    domain::convergence::Spread,
    store::{self, Store},
};

/// How often it is looked whether there is anything new to report.
const LOOK: Duration = Duration::from_secs(1);
/// How often a replica reports that has nothing new to say: well before it counts as silent.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Reports until it is told to stop.
pub async fn report(table: Table, store: Store, replica: Uuid, stop: CancellationToken) {
    let mut reporter = Reporter {
        table,
        store,
        replica,
        last: None,
    };
    loop {
        // The feed says it where the storage is away.
        if let Err(error) = reporter.report().await {
            tracing::debug!(%error, "this replica's state could not be reported");
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK) => {}
            () = stop.cancelled() => return,
        }
    }
}

struct Reporter {
    table: Table,
    store: Store,
    replica: Uuid,
    last: Option<(Instant, BTreeMap<String, Spread>)>,
}

impl Reporter {
    async fn report(&mut self) -> Result<(), store::Error> {
        let spreads = self.table.spread();
        let last = self.last.as_ref();
        let is_due = last.is_none_or(|(at, _)| at.elapsed() >= HEARTBEAT);
        let is_news = |(name, spread): &(&String, &Spread)| {
            last.and_then(|(_, spreads)| spreads.get(*name)) != Some(*spread)
        };
        let news: BTreeMap<_, _> = spreads.iter().filter(is_news).collect();
        if news.is_empty() && !is_due {
            return Ok(());
        }
        let news = news
            .into_iter()
            .map(|(name, spread)| (name.clone(), *spread));
        let reported = self
            .store
            .report_replica(self.replica, news.collect())
            .await;
        // What may not have arrived is told again in full.
        self.last = reported.is_ok().then(|| (Instant::now(), spreads));
        reported
    }
}
