//! How soon a version that is worse is taken back: from the answer to the report whose outcomes
//! show it until who watches the traffic is told. The service does nothing else meanwhile.

use std::time::{Duration, Instant};

use delos_deploy::wire::pb::Outcome;

use super::watchers::Watchers;
use crate::{
    Failure,
    calls::{
        deployments::{self, Client},
        outcomes::{self, User, users},
        seed,
        traffic::ENVIRONMENT,
    },
    cli::{Settings, postgres_port},
    figures::{Figures, Latencies, Row, latencies},
    postgres,
    process::{self, Storage},
    progress,
};

const PART: &str = "tipping";
/// The share of the rollouts: with half of the users on each side the fewest are needed.
const PERCENT: i32 = 50;
/// Users of each rollout; far fewer show that it is worse.
const USERS: u32 = 1000;
/// How many outcomes are reported at once.
const BATCH: usize = 4;
/// How good the answers of the version that is replaced are, and of the new one.
const QUALITY: (f64, f64) = (0.8, 0.6);
/// How far answers are from that, one up and the next one down.
const SPREAD: f64 = 0.1;
/// How long the traffic may take to come back before something is wrong.
const PATIENCE: Duration = Duration::from_secs(15);

/// Measures; nothing here has a peer.
pub(crate) async fn measure(settings: &Settings) -> Result<Vec<Row>, Failure> {
    let directory = tempfile::tempdir()?;
    let storages = [
        ("memory", Storage::Memory),
        (
            "sqlite",
            Storage::SqliteFile(directory.path().join("tipping.db")),
        ),
        (
            "postgres",
            postgres::create(postgres_port()?, PART, settings.callers).await?,
        ),
    ];
    let mut rows = Vec::new();
    for (name, storage) in storages {
        progress(&format!("{PART}: {name}"));
        let mut row = Row::new(PART, name);
        row.rounds.push(tip_all(settings, &storage).await?);
        rows.push(row);
    }
    Ok(rows)
}

/// Tips one rollout after the other.
async fn tip_all(settings: &Settings, storage: &Storage) -> Result<Figures, Failure> {
    let server = process::service(storage).await?;
    let prompts: Vec<String> = (0..settings.tippings).map(|n| format!("p{n}")).collect();
    let ids = seed::canaries(server.port, ENVIRONMENT, &prompts, PERCENT).await?;
    let mut watchers = Watchers::open(server.port, ENVIRONMENT, 1, &prompts).await?;
    let mut rollout = Rollout {
        client: deployments::connect(server.port).await?,
        reports: outcomes::connect(server.port).await?,
    };
    let mut latencies = latencies()?;
    let since = Instant::now();
    for (prompt, id) in prompts.iter().zip(&ids) {
        let own = std::slice::from_ref;
        let users = users(USERS, own(prompt), own(id), PERCENT.unsigned_abs())?;
        let answered = rollout.tip(prompt, id, &users).await?;
        let at = tokio::time::timeout(PATIENCE, watchers.told(prompt));
        let at = at
            .await
            .map_err(|_| format!("{prompt} is shown to be worse, and its traffic is not back"))??;
        record(&mut latencies, at.saturating_duration_since(answered))?;
    }
    Ok(Figures::of(&latencies, since.elapsed()))
}

fn record(latencies: &mut Latencies, took: Duration) -> Result<(), Failure> {
    // What is there before the answer took no time after it.
    Ok(latencies.record(u64::try_from(took.as_micros())?)?)
}

struct Rollout {
    client: Client,
    reports: outcomes::Client,
}

impl Rollout {
    /// Reports, a few at a time, what becomes of users until it is shown that the new version is
    /// worse; says when the report was answered that did.
    async fn tip(&mut self, prompt: &str, id: &str, users: &[User]) -> Result<Instant, Failure> {
        for users in users.chunks(BATCH) {
            let outcomes = users.iter().map(outcome).collect();
            outcomes::report(&mut self.reports, outcomes).await?;
            let answered = Instant::now();
            if deployments::is_rolled_back(&mut self.client, id).await? {
                return Ok(answered);
            }
        }
        Err(format!("{prompt} is much worse, and {USERS} users do not show it").into())
    }
}

/// What became of the one request of a user; answers of either version are not all alike.
fn outcome(user: &User) -> Outcome {
    let quality = if user.has_new() { QUALITY.1 } else { QUALITY.0 };
    let better = if user.number().is_multiple_of(2) {
        SPREAD
    } else {
        -SPREAD
    };
    user.outcome(
        format!("{}-{}", user.prompt_id(), user.number()),
        quality + better,
    )
}
