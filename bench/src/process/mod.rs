//! The processes that are measured, each on a free port of the loopback.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use tokio::{net::TcpStream, process::Child, process::Command};

use crate::Failure;

pub(crate) mod peers;

/// How long a process may take until it listens.
const PATIENCE: Duration = Duration::from_secs(30);

/// A process that listens. Killed when it is dropped.
pub(crate) struct Server {
    /// Where it listens, on the loopback.
    pub(crate) port: u16,
    _child: Child,
}

/// Where the service keeps deployments.
#[derive(Debug, Clone)]
pub(crate) enum Storage {
    /// SQLite in memory.
    Memory,
    /// An SQLite file.
    SqliteFile(PathBuf),
    /// A database of PostgreSQL.
    Postgres {
        /// The server's port on the loopback.
        port: u16,
        /// The database.
        database: String,
        /// Most connections for requests.
        connections: usize,
    },
}

impl Storage {
    fn environment(&self) -> Vec<(&'static str, String)> {
        match self {
            Self::Memory => vec![("DELOS_STORAGE_BACKEND", "memory".into())],
            Self::SqliteFile(path) => vec![
                ("DELOS_STORAGE_BACKEND", "sqlite".into()),
                ("DELOS_SQLITE_PATH", path.display().to_string()),
            ],
            Self::Postgres {
                port,
                database,
                connections,
            } => vec![
                ("DELOS_STORAGE_BACKEND", "postgres".into()),
                ("DELOS_DB_HOST", "127.0.0.1".into()),
                ("DELOS_DB_PORT", port.to_string()),
                ("DELOS_DB_USER", "postgres".into()),
                ("DELOS_DB_NAME", database.clone()),
                ("DELOS_DB_MAX_CONNECTIONS", connections.to_string()),
            ],
        }
    }
}

/// Starts the bare server over tonic, in a process of its own as the service is.
pub(crate) async fn echo() -> Result<Server, Failure> {
    bare("echo").await
}

/// Starts the bare server over axum.
pub(crate) async fn axum() -> Result<Server, Failure> {
    bare("axum").await
}

async fn bare(kind: &str) -> Result<Server, Failure> {
    let port = free_port()?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args([kind, &port.to_string()]);
    start(command, port).await
}

/// Starts the service.
pub(crate) async fn service(storage: &Storage) -> Result<Server, Failure> {
    let port = free_port()?;
    let mut command = delos_deploy(storage)?;
    command.env("DELOS_GRPC_PORT", port.to_string());
    start(command, port).await
}

/// Makes the service's schema, and nothing else.
pub(crate) async fn migrate(storage: &Storage) -> Result<(), Failure> {
    let status = delos_deploy(storage)?.arg("migrate").status().await?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("delos-deploy migrate ended with {status}").into())
    }
}

/// The service's binary, which is built beside this one.
fn delos_deploy(storage: &Storage) -> Result<Command, Failure> {
    let own = std::env::current_exe()?;
    let path = own.parent().unwrap_or(Path::new(".")).join("delos-deploy");
    if !path.is_file() {
        let path = path.display();
        return Err(format!("{path} is missing; scripts/bench builds it").into());
    }
    let mut command = Command::new(path);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DELOS_") {
            command.env_remove(name);
        }
    }
    command
        .envs(storage.environment())
        .env("DELOS_TRACING_ENABLED", "false")
        .env("DELOS_LOG_LEVEL", "warn")
        .stdout(Stdio::from(std::io::stderr()));
    Ok(command)
}

async fn start(mut command: Command, port: u16) -> Result<Server, Failure> {
    let mut child = command.kill_on_drop(true).spawn()?;
    let since = Instant::now();
    while TcpStream::connect((Ipv4Addr::LOCALHOST, port))
        .await
        .is_err()
    {
        if let Some(status) = child.try_wait()? {
            return Err(format!("{command:?} ended with {status}").into());
        }
        if since.elapsed() > PATIENCE {
            return Err(format!("{command:?} does not listen").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(Server {
        port,
        _child: child,
    })
}

fn free_port() -> Result<u16, Failure> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
        .local_addr()?
        .port())
}
