//! ReportOutcomes in batches: the service on each storage, while a rollout goes on, against a bare
//! server that only decodes the same messages; and outcomes of many prompts.

use std::sync::{Arc, atomic::AtomicU64};

use crate::{
    Failure,
    calls::{
        outcomes::{Reporting, Reports, User, users},
        seed,
        traffic::ENVIRONMENT,
    },
    cli::{Settings, postgres_port},
    figures::{Figures, Row},
    load::grpc,
    postgres,
    process::{self, Server, Storage},
    progress,
};

const PART: &str = "ingest";
/// The share of the rollouts.
const PERCENT: i32 = 10;
/// How many prompts many are.
const MANY: usize = 100;

/// Where outcomes are reported to, and whose.
struct Target {
    row: Row,
    server: Server,
    users: Arc<[User]>,
}

/// Measures; the first row is the peer.
pub(crate) async fn measure(settings: &Settings) -> Result<Vec<Row>, Failure> {
    let directory = tempfile::tempdir()?;
    let file = directory.path().join("ingest.db");
    let mut targets = vec![
        rolling_out(settings, "memory", &Storage::Memory, 1).await?,
        rolling_out(settings, "sqlite", &Storage::SqliteFile(file), 1).await?,
        rolling_out(
            settings,
            "postgres",
            &database(settings, "ingest").await?,
            1,
        )
        .await?,
        rolling_out(
            settings,
            &format!("postgres, {MANY} prompts"),
            &database(settings, "ingest_many").await?,
            MANY,
        )
        .await?,
    ];
    let bare = Target {
        row: Row::new(PART, "bare tonic"),
        server: process::echo().await?,
        users: Arc::clone(&targets[0].users),
    };
    targets.insert(0, bare);
    for round in 1..=settings.rounds {
        for target in &mut targets {
            progress(&format!("{PART}, round {round}: {}", target.row.name));
            let figures = target.measure(settings, round).await?;
            target.row.rounds.push(figures);
        }
    }
    let mut rows: Vec<Row> = targets.into_iter().map(|target| target.row).collect();
    if let [peer, ours @ ..] = rows.as_mut_slice() {
        for row in ours {
            row.compare(peer);
        }
    }
    Ok(rows)
}

async fn database(settings: &Settings, name: &str) -> Result<Storage, Failure> {
    postgres::create(postgres_port()?, name, settings.callers).await
}

/// The service with rollouts that are judged and stay at their share: both versions do the same.
async fn rolling_out(
    settings: &Settings,
    name: &str,
    storage: &Storage,
    prompts: usize,
) -> Result<Target, Failure> {
    let server = process::service(storage).await?;
    let prompts: Vec<String> = (0..prompts).map(|number| format!("p{number}")).collect();
    let ids = seed::canaries(server.port, ENVIRONMENT, &prompts, PERCENT).await?;
    let users = users(settings.users, &prompts, &ids, PERCENT.unsigned_abs())?;
    Ok(Target {
        row: Row::new(PART, name),
        server,
        users: users.into(),
    })
}

impl Target {
    async fn measure(&self, settings: &Settings, round: usize) -> Result<Figures, Failure> {
        let reports = Arc::new(Reports {
            name: format!("call-{round}"),
            users: Arc::clone(&self.users),
            batch: settings.batch,
            begun: AtomicU64::new(0),
        });
        let make = |channel| Reporting::new(channel, &reports);
        let (connections, calls) = (settings.connections, settings.calls);
        let callers = grpc::callers(connections, calls, self.server.port, make).await?;
        let figures = settings.load().run(callers).await?;
        Ok(Figures {
            per_second: figures.per_second * f64::from(settings.batch),
            ..figures
        })
    }
}
