//! What is tested, and what it runs on: PostgreSQL, an Eval service, and replicas, with a proxy on
//! each side of each replica.

mod eval;
mod link;
mod postgres;
mod replica;

use std::{ffi::OsString, net::SocketAddr, path::PathBuf, time::Duration};

use tempfile::TempDir;
use tokio::{net::TcpStream, sync::Mutex, time::Instant};

pub(crate) use eval::Eval;
pub(crate) use link::{Link, Mode};
pub(crate) use postgres::{DATABASE, Postgres, Stop};
pub(crate) use replica::Replica;

use crate::Failure;

/// How long all replicas may take until they serve, on a slow machine.
const START_MAX: Duration = Duration::from_secs(60);

/// A replica with its two proxies.
pub(crate) struct Member {
    /// The process; one fault at a time is made to it.
    pub(crate) replica: Mutex<Replica>,
    /// From its callers to it.
    pub(crate) callers: Link,
    /// From it to the database.
    pub(crate) database: Link,
}

/// Everything that runs.
pub(crate) struct Cluster {
    /// The database server.
    pub(crate) postgres: Postgres,
    /// The Eval service.
    pub(crate) eval: Eval,
    /// The replicas.
    pub(crate) members: Vec<Member>,
    logs: Option<TempDir>,
}

impl Cluster {
    /// Starts one replica of each program, and waits until all of them serve.
    pub(crate) async fn start(programs: &[PathBuf], bugs: &str) -> Result<Self, Failure> {
        let postgres = Postgres::start().await?;
        let eval = Eval::start().await?;
        let logs = tempfile::tempdir()?;
        let mut members = Vec::new();
        for (program, number) in programs.iter().zip(1..) {
            let server = SocketAddr::from(([127, 0, 0, 1], postgres.port));
            let database = Link::before(server).await?;
            let environment = environment(&database, &eval, bugs);
            let log = logs.path().join(format!("replica-{number}.log"));
            let mut replica = Replica::new(program.clone(), environment, log)?;
            let callers = Link::before(replica.address).await?;
            replica.start(0)?;
            members.push(Member {
                replica: Mutex::new(replica),
                callers,
                database,
            });
        }
        let cluster = Self {
            postgres,
            eval,
            members,
            logs: Some(logs),
        };
        cluster.all_ready().await?;
        Ok(cluster)
    }

    /// Waits until every replica is ready.
    pub(crate) async fn all_ready(&self) -> Result<(), Failure> {
        for member in &self.members {
            let address = member.replica.lock().await.address;
            let patience = Instant::now() + START_MAX;
            while !is_ready(address).await {
                let ended = member.replica.lock().await.ended_by_itself()?;
                if let Some(how) = ended {
                    return Err(how.into());
                }
                if Instant::now() > patience {
                    return Err("a replica does not become ready".into());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        Ok(())
    }

    /// Lets everything through, and has every replica run again.
    pub(crate) async fn heal(&self) -> Result<(), Failure> {
        for member in &self.members {
            member.callers.heal();
            member.database.heal();
            let mut replica = member.replica.lock().await;
            replica.resume().await?;
            if !replica.is_up() {
                replica.start(0)?;
            }
        }
        self.all_ready().await
    }

    /// Keeps the logs of the replicas, and says where.
    pub(crate) fn keep_logs(&mut self) -> Option<PathBuf> {
        self.logs.take().map(TempDir::keep)
    }
}

fn environment(database: &Link, eval: &Eval, bugs: &str) -> Vec<(String, OsString)> {
    let mut variables = vec![
        ("DELOS_STORAGE_BACKEND", "postgres".to_owned()),
        ("DELOS_DB_HOST", database.address.ip().to_string()),
        ("DELOS_DB_PORT", database.address.port().to_string()),
        ("DELOS_DB_USER", "postgres".to_owned()),
        ("DELOS_DB_NAME", DATABASE.to_owned()),
        ("DELOS_EVAL_ENDPOINT", eval.address.to_string()),
        ("DELOS_TRACING_ENABLED", "false".to_owned()),
        ("DELOS_DRAIN_SECONDS", "0".to_owned()),
    ];
    if !bugs.is_empty() {
        variables.push(("DELOS_FAULT_BUGS", bugs.to_owned()));
    }
    let owned = |(name, value): (&str, String)| (name.to_owned(), OsString::from(value));
    variables.into_iter().map(owned).collect()
}

/// Whether a replica says that it is ready.
pub(crate) async fn is_ready(address: SocketAddr) -> bool {
    let status = tokio::time::timeout(Duration::from_secs(2), async {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = TcpStream::connect(address).await?;
        let request = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await?;
        Ok::<_, std::io::Error>(answer.starts_with("HTTP/1.1 200"))
    });
    matches!(status.await, Ok(Ok(true)))
}
