//! Looks at the tables while everything goes on: what must hold at every moment.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use sqlx::{PgConnection, Row as _};
use tokio_util::sync::CancellationToken;

use crate::{
    check::{Strategy, Violation},
    cluster::Cluster,
};

/// How often it looks.
const EVERY: Duration = Duration::from_millis(50);
/// Longest a session may idle in a transaction: that of a replica that is paused there is ended by
/// the server after ten seconds.
const IDLE_MAX_SECONDS: f64 = 12.0;

/// One look at all traffic, beside the rollouts: a single statement, so a single moment.
const TRAFFIC: &str = "
SELECT t.prompt_id, t.revision, t.candidate_percentage, d.status, s.type AS kind,
       s.initial_percentage, s.increment
FROM traffic t
LEFT JOIN deployments d ON d.id = t.candidate_deployment_id
LEFT JOIN deployment_strategies s ON s.deployment_id = d.id";

/// Rollouts that are on their way without being what is served, in a single moment.
const ASTRAY: &str = "
SELECT d.id::text FROM deployments d
LEFT JOIN traffic t ON t.prompt_id = d.prompt_id AND t.environment = d.environment
WHERE d.status = 'IN_PROGRESS' AND t.candidate_deployment_id IS DISTINCT FROM d.id";

const IDLE: &str = "
SELECT coalesce(max(extract(epoch FROM clock_timestamp() - state_change)), 0)::float8
FROM pg_stat_activity WHERE state LIKE 'idle in transaction%'";

/// What was seen.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    /// How often it looked.
    pub(crate) looks: u64,
    pub(crate) violations: Vec<Violation>,
    /// The last revision of each prompt.
    revisions: BTreeMap<String, i64>,
}

/// Looks until it is told to stop.
pub(crate) async fn run(cluster: Arc<Cluster>, stop: CancellationToken) -> Seen {
    let mut seen = Seen::default();
    let mut session = None;
    while !stop.is_cancelled() {
        tokio::time::sleep(EVERY).await;
        if session.is_none() {
            // The database may be away.
            session = cluster.postgres.connect().await.ok();
        }
        let Some(connected) = &mut session else {
            continue;
        };
        match seen.look(connected).await {
            Ok(()) => seen.looks += 1,
            Err(_) => session = None,
        }
    }
    seen
}

impl Seen {
    async fn look(&mut self, session: &mut PgConnection) -> Result<(), sqlx::Error> {
        for row in sqlx::query(TRAFFIC).fetch_all(&mut *session).await? {
            let prompt: String = row.try_get("prompt_id")?;
            let revision: i64 = row.try_get("revision")?;
            let last = self.revisions.entry(prompt.clone()).or_default();
            if revision < *last {
                let what =
                    format!("the traffic of {prompt} went from revision {last} to {revision}");
                self.violations.push(Violation::of("I3", what));
            }
            *last = revision;
            let share: Option<i16> = row.try_get("candidate_percentage")?;
            let Some(share) = share else { continue };
            let status: Option<String> = row.try_get("status")?;
            let strategy = Strategy::read(&row)?;
            let is_allowed = strategy.shares().contains(&i32::from(share));
            if status.as_deref() != Some("IN_PROGRESS") || !is_allowed {
                let what = format!(
                    "{prompt} sends {share} % to a rollout that is {status:?} by {strategy:?}"
                );
                self.violations.push(Violation::of("I3", what));
            }
        }
        let astray: Vec<String> = sqlx::query_scalar(ASTRAY).fetch_all(&mut *session).await?;
        self.violations.extend(astray.into_iter().map(|id| {
            let what = format!("rollout {id} is on its way, and the traffic is another's");
            Violation::of("I3", what)
        }));
        let idle: f64 = sqlx::query_scalar(IDLE).fetch_one(&mut *session).await?;
        if idle > IDLE_MAX_SECONDS {
            let what = format!("a session has been idle in a transaction for {idle:.1} s");
            self.violations.push(Violation::of("I9", what));
        }
        Ok(())
    }
}
