//! A PostgreSQL of this run's own, which is restarted and loses its sessions.

use std::{
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    process::Stdio,
};

use sqlx::{Connection as _, PgConnection, postgres::PgConnectOptions};
use tempfile::TempDir;
use tokio::process::Command;

use crate::Failure;

/// The database of the service.
pub(crate) const DATABASE: &str = "chaos";

/// How the server is stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    /// Sessions are cut, and what is open is rolled back.
    Fast,
    /// As by a crash: it recovers when it starts again.
    Immediate,
}

impl Stop {
    fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Immediate => "immediate",
        }
    }
}

/// A running server. Stopped when it is dropped.
pub(crate) struct Postgres {
    directory: TempDir,
    programs: PathBuf,
    /// PostgreSQL refuses to run as root; then another user runs it.
    by_other_user: bool,
    /// Where it listens, on the loopback.
    pub(crate) port: u16,
}

impl Postgres {
    /// Starts one, with the service's database in it, empty.
    pub(crate) async fn start() -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?
            .local_addr()?
            .port();
        let user = Command::new("id").arg("-u").output().await?;
        let server = Self {
            directory,
            programs: programs()?,
            by_other_user: user.stdout.starts_with(b"0\n"),
            port,
        };
        if server.by_other_user {
            let path = server.directory.path();
            ended_well(Command::new("chown").arg("postgres:").arg(path)).await?;
        }
        let data = server.data();
        let mut initialize = server.program("initdb");
        initialize.args(["-U", "postgres", "-A", "trust", "-E", "UTF8"]);
        initialize
            .args(["--locale=C", "--no-sync", "-D"])
            .arg(&data);
        ended_well(&mut initialize).await?;
        server.start_server().await?;
        let mut session = server.connect_to("postgres").await?;
        sqlx::raw_sql("CREATE DATABASE chaos")
            .execute(&mut session)
            .await?;
        Ok(server)
    }

    async fn start_server(&self) -> Result<(), Failure> {
        // The machine does not crash, so nothing has to reach the disk.
        let options = format!(
            "-h 127.0.0.1 -p {} -k {} -c fsync=off -c max_connections=300 -c shared_buffers=128MB",
            self.port,
            self.directory.path().display()
        );
        let mut start = self.program("pg_ctl");
        start.arg("-D").arg(self.data()).arg("-l");
        start.arg(self.directory.path().join("log"));
        start.args(["-w", "-o", &options, "start"]);
        ended_well(&mut start).await
    }

    /// Stops it and starts it again.
    pub(crate) async fn restart(&self, how: Stop) -> Result<(), Failure> {
        let mut stop = self.program("pg_ctl");
        stop.arg("-D").arg(self.data());
        stop.args(["-m", how.as_str(), "-w", "stop"]);
        ended_well(&mut stop).await?;
        self.start_server().await
    }

    /// Cuts every session of the service.
    pub(crate) async fn cut_sessions(&self) -> Result<(), Failure> {
        let mut session = self.connect_to("postgres").await?;
        sqlx::query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1")
            .bind(DATABASE)
            .execute(&mut session)
            .await?;
        Ok(())
    }

    /// A session with the service's database.
    pub(crate) async fn connect(&self) -> Result<PgConnection, Failure> {
        self.connect_to(DATABASE).await
    }

    async fn connect_to(&self, database: &str) -> Result<PgConnection, Failure> {
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username("postgres")
            .database(database)
            .application_name("chaos");
        Ok(PgConnection::connect_with(&options).await?)
    }

    fn data(&self) -> PathBuf {
        self.directory.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = if self.by_other_user {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.directory.path());
        command
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        let mut stop = self.program("pg_ctl");
        stop.arg("-D").arg(self.data());
        stop.args(["-m", "immediate", "-w", "stop"]);
        let stop = stop
            .as_std_mut()
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // It may be down already; then there is nothing to stop.
        let _ = stop.status();
    }
}

/// The newest of Debian's directories of PostgreSQL's programs.
fn programs() -> Result<PathBuf, Failure> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").map_err(|_| MISSING)?;
    let newest = versions
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok())
        .max()
        .ok_or(MISSING)?;
    Ok(PathBuf::from(format!("/usr/lib/postgresql/{newest}/bin")))
}

const MISSING: &str =
    "PostgreSQL's programs are missing; scripts/install-test-dependencies installs them";

/// Runs a command that must end well.
async fn ended_well(command: &mut Command) -> Result<(), Failure> {
    // A server that is started in the background keeps what it inherits, so nothing is piped.
    let status = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .await?;
    if status.success() {
        return Ok(());
    }
    Err(format!("{:?} ended with {status}", command.as_std()).into())
}
