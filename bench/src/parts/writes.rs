//! CreateDeployment of gradual rollouts that start at once: on PostgreSQL against pgbench with the
//! same statements, and on SQLite.

use std::sync::Arc;

use crate::{
    Failure,
    calls::deployments::{Call, Calling, Create},
    cli::{Settings, postgres_port},
    figures::{Figures, Row},
    load::grpc,
    postgres::{self, pgbench},
    process::{self, Server, Storage},
    progress,
};

const PART: &str = "writes";
const PEER_DATABASE: &str = "writes_pgbench";

/// What is measured in turns.
enum Target {
    Pgbench {
        port: u16,
    },
    Service {
        server: Box<Server>,
        name: &'static str,
    },
}

/// Measures; the first row is the peer, the second is compared with it.
pub(crate) async fn measure(settings: &Settings) -> Result<Vec<Row>, Failure> {
    let port = postgres_port()?;
    let directory = tempfile::tempdir()?;
    let peer = postgres::create(port, PEER_DATABASE, settings.callers).await?;
    process::migrate(&peer).await?;
    let storages = [
        (
            "postgres",
            postgres::create(port, "writes", settings.callers).await?,
        ),
        (
            "sqlite",
            Storage::SqliteFile(directory.path().join("writes.db")),
        ),
        ("memory", Storage::Memory),
    ];
    let mut targets = vec![(Row::new(PART, "pgbench"), Target::Pgbench { port })];
    for (name, storage) in storages {
        let server = Box::new(process::service(&storage).await?);
        targets.push((Row::new(PART, name), Target::Service { server, name }));
    }
    for round in 1..=settings.rounds {
        for (row, target) in &mut targets {
            progress(&format!("{PART}, round {round}: {}", row.name));
            row.rounds.push(target.measure(settings, round).await?);
        }
    }
    let mut rows: Vec<Row> = targets.into_iter().map(|(row, _)| row).collect();
    if let [peer, postgres, ..] = rows.as_mut_slice() {
        postgres.compare(peer);
    }
    Ok(rows)
}

impl Target {
    async fn measure(&self, settings: &Settings, round: usize) -> Result<Figures, Failure> {
        match self {
            Self::Pgbench { port } => pgbench::run(*port, PEER_DATABASE, settings).await,
            Self::Service { server, name } => {
                let create = Create::new(format!("{name}-{round}"), settings.environments);
                let call = Arc::new(Call::Create(create));
                let make = |channel| Calling::new(channel, &call);
                let callers = grpc::callers(1, settings.callers, server.port, make).await?;
                settings.load().run(callers).await
            }
        }
    }
}
