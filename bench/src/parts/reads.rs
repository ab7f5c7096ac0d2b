//! GetDeployment: the service on each storage against an echo; and Health, which shows what the
//! service's layers cost without a storage.

use std::sync::Arc;

use prost::Message as _;

use crate::{
    Failure,
    calls::deployments::{Call, Calling, Create, connect, example},
    cli::{Settings, postgres_port},
    figures::Row,
    load::grpc,
    postgres,
    process::{self, Server, Storage},
    progress,
};

const PART: &str = "reads";

/// What is called in turns.
struct Target {
    server: Arc<Server>,
    call: Arc<Call>,
    row: Row,
}

/// Measures; the first row is the peer.
pub(crate) async fn measure(settings: &Settings) -> Result<Vec<Row>, Failure> {
    let directory = tempfile::tempdir()?;
    let storages = [
        ("memory", Storage::Memory),
        (
            "sqlite",
            Storage::SqliteFile(directory.path().join("reads.db")),
        ),
        (
            "postgres",
            postgres::create(postgres_port()?, "reads", settings.callers).await?,
        ),
    ];
    let mut targets = vec![echo().await?];
    for (name, storage) in storages {
        targets.push(service(name, &storage).await?);
    }
    let memory = Arc::clone(&targets[1].server);
    targets.insert(1, target(memory, Call::Health, "Health, no storage"));
    for round in 1..=settings.rounds {
        for target in &mut targets {
            progress(&format!("{PART}, round {round}: {}", target.row.name));
            let callers = grpc::callers(
                settings.connections,
                settings.calls,
                target.server.port,
                |channel| Calling::new(channel, &target.call),
            );
            let figures = settings.load().run(callers.await?).await?;
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

async fn echo() -> Result<Target, Failure> {
    let server = Arc::new(process::echo().await?);
    let call = Call::get(&mut connect(server.port).await?, &example().id).await?;
    let name = sized("echo", &call);
    Ok(target(server, call, &name))
}

async fn service(name: &str, storage: &Storage) -> Result<Target, Failure> {
    let server = Arc::new(process::service(storage).await?);
    let mut client = connect(server.port).await?;
    let deployment = Create::new("support-answer".into(), 1)
        .one(&mut client)
        .await?;
    let call = Call::get(&mut client, &deployment.id).await?;
    let name = sized(name, &call);
    Ok(target(server, call, &name))
}

fn target(server: Arc<Server>, call: Call, name: &str) -> Target {
    Target {
        server,
        call: Arc::new(call),
        row: Row::new(PART, name),
    }
}

/// The name with the size of the answer, which must be alike for a comparison to say something.
fn sized(name: &str, call: &Call) -> String {
    match call {
        Call::Get(answer) => format!("{name}, {} bytes", answer.encoded_len()),
        Call::Health | Call::Create(_) => name.to_owned(),
    }
}
