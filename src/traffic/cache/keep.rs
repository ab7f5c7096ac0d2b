//! Keeps what the table has in Redis, and hints at this replica's own writes.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use redis::{AsyncTypedCommands as _, RedisError, aio::MultiplexedConnection};
use tokio_util::sync::CancellationToken;

use super::{AGAIN, Cache, format};
use crate::{clock::Clock, telemetry::Metrics, traffic::Table};

/// How often it is looked whether there is anything new to keep.
const LOOK: Duration = Duration::from_secs(1);
/// How often everything is written anew, whatever Redis may have by then.
const REWRITE: Duration = Duration::from_secs(60);

pub(super) struct Keeper {
    cache: Cache,
    table: Table,
    clock: Clock,
    metrics: Metrics,
    /// The revision of each environment that was written last.
    kept: HashMap<String, i64>,
    rewritten: Option<Instant>,
}

impl Keeper {
    pub(super) fn new(cache: Cache, table: Table, clock: Clock, metrics: Metrics) -> Self {
        Self {
            cache,
            table,
            clock,
            metrics,
            kept: HashMap::new(),
            rewritten: None,
        }
    }

    pub(super) async fn run(mut self, stop: CancellationToken) {
        let mut answers = None;
        loop {
            let outcome = tokio::select! {
                outcome = self.keep(&mut answers) => outcome,
                () = stop.cancelled() => return,
            };
            if let Err(error) = outcome
                && answers != Some(false)
            {
                answers = Some(false);
                tracing::info!(%error, "Redis does not answer; the service goes on without it");
            }
            self.metrics.redis(false);
            tokio::select! {
                () = tokio::time::sleep(AGAIN) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// Writes until Redis fails.
    async fn keep(&mut self, answers: &mut Option<bool>) -> Result<(), RedisError> {
        let mut redis = self.cache.connect().await?;
        if answers.replace(true) != Some(true) {
            tracing::info!("Redis answers");
        }
        self.metrics.redis(true);
        self.rewritten = None;
        loop {
            self.save(&mut redis).await?;
            tokio::select! {
                () = self.table.own_write() => {
                    redis.publish(&self.cache.names.hints, "").await?;
                }
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    /// Writes what has changed. Several replicas do: they have it from the same storage, and who is
    /// behind by a moment writes again when it has caught up.
    async fn save(&mut self, redis: &mut MultiplexedConnection) -> Result<(), RedisError> {
        // What did not come from the storage, or not lately, is not passed on.
        if self.table.is_unproven() || self.table.staleness().is_some() {
            return Ok(());
        }
        if self.rewritten.is_none_or(|at| at.elapsed() >= REWRITE) {
            self.kept.clear();
            self.rewritten = Some(Instant::now());
        }
        let snapshot = self.table.snapshot();
        for (name, environment) in snapshot.environments() {
            if self.kept.get(name) == Some(&environment.revision) {
                continue;
            }
            let text = format::write(environment.revision, &environment.after(0));
            let text = text.map_err(std::io::Error::other)?;
            redis.hset(&self.cache.names.table, name, text).await?;
            self.kept.insert(name.clone(), environment.revision);
        }
        let agreed = self.clock.now().timestamp_millis();
        redis.set(&self.cache.names.agreed, agreed).await
    }
}
