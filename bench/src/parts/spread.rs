//! How soon a rollback that one replica has committed is served by another one on the same
//! PostgreSQL, and known to everybody who watches that one; with notifications, and without.

use std::time::{Duration, Instant};

use delos_deploy::wire::pb::{ResolveVersionRequest, RollbackDeploymentRequest};

use super::watchers::Watchers;
use crate::{
    Failure,
    calls::{
        deployments, seed,
        traffic::{self, Client},
    },
    cli::{Settings, postgres_port},
    figures::{Figures, Latencies, Row, latencies},
    postgres::{self, hints},
    process::{self, Server},
    progress,
};

const PART: &str = "spread";
const DATABASE: &str = "spread";
/// How long a rollback may take to spread before something is wrong.
const PATIENCE: Duration = Duration::from_secs(15);
/// How often the other replica is asked what it serves.
const LOOK: Duration = Duration::from_millis(1);

/// A replica that is changed, and another one that is watched.
struct Replicas {
    changed: Server,
    watched: Server,
}

/// How long it took until the other replica served what was rolled back to, and until the last
/// watcher knew.
struct Spread {
    served: Latencies,
    told: Latencies,
}

/// Measures; nothing here has a peer.
pub(crate) async fn measure(settings: &Settings) -> Result<Vec<Row>, Failure> {
    let port = postgres_port()?;
    let storage = postgres::create(port, DATABASE, settings.callers).await?;
    let replicas = Replicas {
        changed: process::service(&storage).await?,
        watched: process::service(&storage).await?,
    };
    let mut rows = replicas.measure(settings, "hinted", "with NOTIFY").await?;
    let silenced = hints::silence(port, DATABASE).await?;
    rows.extend(
        replicas
            .measure(settings, "polled", "without NOTIFY")
            .await?,
    );
    drop(silenced);
    Ok(rows)
}

impl Replicas {
    async fn measure(
        &self,
        settings: &Settings,
        environment: &str,
        name: &str,
    ) -> Result<Vec<Row>, Failure> {
        progress(&format!("{PART}: preparing {} {name}", settings.changes));
        let prompts: Vec<String> = (0..settings.changes).map(|n| format!("p{n}")).collect();
        let deployments = seed::rollouts(self.changed.port, environment, &prompts).await?;
        seed::served(self.watched.port, environment, prompts.len(), |split| {
            split.candidate_version == 2
        })
        .await?;
        let mut watchers =
            Watchers::open(self.watched.port, environment, settings.watchers, &prompts).await?;
        progress(&format!("{PART}: rolling back {name}"));
        let mut spread = Spread {
            served: latencies()?,
            told: latencies()?,
        };
        let since = Instant::now();
        for (number, id) in deployments.iter().enumerate() {
            tokio::time::sleep(pause(number)).await;
            let asked = ResolveVersionRequest {
                preview: true,
                environment: environment.to_owned(),
                ..traffic::question(&prompts[number], "")
            };
            self.roll_back(id, asked, &mut watchers, &mut spread)
                .await?;
        }
        let took = since.elapsed();
        let row = |what: &str, latencies: &Latencies| {
            let mut row = Row::new(PART, &format!("{name}: {what}"));
            row.rounds.push(Figures::of(latencies, took));
            row
        };
        Ok(vec![
            row("served", &spread.served),
            row("last watcher told", &spread.told),
        ])
    }

    /// Rolls back on one replica and waits for the other one and its watchers.
    async fn roll_back(
        &self,
        id: &str,
        asked: ResolveVersionRequest,
        watchers: &mut Watchers,
        spread: &mut Spread,
    ) -> Result<(), Failure> {
        let mut changed = deployments::connect(self.changed.port).await?;
        let mut watched = traffic::connect(self.watched.port).await?;
        let request = RollbackDeploymentRequest {
            id: id.to_owned(),
            reason: "the bench".into(),
            request_id: String::new(),
        };
        changed.rollback_deployment(request).await?;
        let committed = Instant::now();
        let both = async {
            tokio::try_join!(
                served(&mut watched, &asked),
                watchers.told(&asked.prompt_id)
            )
        };
        let (served, told) = tokio::time::timeout(PATIENCE, both).await.map_err(|_| {
            format!(
                "{} was rolled back, and not everybody knows",
                asked.prompt_id
            )
        })??;
        // What is there before the answer took no time after it.
        let since = |at: Instant| at.saturating_duration_since(committed).as_micros();
        spread.served.record(u64::try_from(since(served))?)?;
        spread.told.record(u64::try_from(since(told))?)?;
        Ok(())
    }
}

/// Asks for the version that is being rolled out until it is no more, and says when that was.
async fn served(client: &mut Client, asked: &ResolveVersionRequest) -> Result<Instant, Failure> {
    loop {
        let answer = client.resolve_version(asked.clone()).await?.into_inner();
        match answer.version {
            1 => return Ok(Instant::now()),
            2 => tokio::time::sleep(LOOK).await,
            _ => return Err(format!("ResolveVersion answered {answer:?}").into()),
        }
    }
}

/// Up to a second, so that rollbacks fall everywhere between two polls.
fn pause(number: usize) -> Duration {
    const GOLDEN: f64 = 0.618_033_988_749_894_9;
    Duration::from_secs_f64((number as f64 * GOLDEN).fract())
}
