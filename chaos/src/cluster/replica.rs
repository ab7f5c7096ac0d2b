//! A replica of the service: its own program, in a process of its own.

use std::{
    ffi::OsString,
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    os::unix::process::ExitStatusExt as _,
    path::PathBuf,
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::process::{Child, Command};
use uuid::Uuid;

use crate::Failure;

/// How long a stop may take that the service was asked for.
const STOP_MAX: Duration = Duration::from_secs(30);
/// Debian's libfaketime, which gives a process another wall clock.
const FAKETIME: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";
/// A process that ends in one of these has crashed by itself: abort, bus error, segmentation fault.
const CRASHES: [i32; 3] = [6, 7, 11];

/// A replica, running or not. Killed when it is dropped.
pub(crate) struct Replica {
    /// Where it listens while it runs, on the loopback.
    pub(crate) address: SocketAddr,
    program: PathBuf,
    environment: Vec<(String, OsString)>,
    log: PathBuf,
    /// How much of the log is of processes before this one.
    lines_before: usize,
    child: Option<Child>,
    is_paused: bool,
}

impl Replica {
    /// One that is not running yet, with a port that it keeps.
    pub(crate) fn new(
        program: PathBuf,
        mut environment: Vec<(String, OsString)>,
        log: PathBuf,
    ) -> Result<Self, Failure> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        environment.push(("DELOS_GRPC_PORT".into(), address.port().to_string().into()));
        Ok(Self {
            address,
            program,
            environment,
            log,
            lines_before: 0,
            child: None,
            is_paused: false,
        })
    }

    /// Has it run another program from its next start on.
    pub(crate) fn replace_by(&mut self, program: PathBuf) {
        self.program = program;
    }

    /// Starts it, with a wall clock that is `skew` seconds ahead. Does not wait until it serves.
    pub(crate) fn start(&mut self, skew: i64) -> Result<(), Failure> {
        let said = std::fs::read_to_string(&self.log).unwrap_or_default();
        self.lines_before = said.lines().count();
        let log = File::options().create(true).append(true).open(&self.log)?;
        let mut command = Command::new(&self.program);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DELOS_") {
                command.env_remove(name);
            }
        }
        command.envs(self.environment.iter().cloned());
        if skew != 0 {
            command
                .env("LD_PRELOAD", FAKETIME)
                .env("FAKETIME", format!("{skew:+}s"))
                // Time that passes is not skewed, and nothing is shared that a kill would leave.
                .env("DONT_FAKE_MONOTONIC", "1")
                .env("FAKETIME_DISABLE_SHM", "1");
        }
        command.stdin(Stdio::null());
        command
            .stderr(log.try_clone()?)
            .stdout(log)
            .kill_on_drop(true);
        self.child = Some(command.spawn()?);
        Ok(())
    }

    /// Who it is, as it says itself, once it serves.
    pub(crate) fn id(&self) -> Option<Uuid> {
        let said = std::fs::read_to_string(&self.log).ok()?;
        let serving = said
            .lines()
            .skip(self.lines_before)
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .find(|line| line["message"] == "serving")?;
        serving["replica"].as_str()?.parse().ok()
    }

    /// Whether its clock can be skewed on this machine.
    pub(crate) fn can_be_skewed() -> bool {
        std::path::Path::new(FAKETIME).is_file()
    }

    /// SIGKILL; waits until the process is gone.
    pub(crate) async fn kill(&mut self) -> Result<(), Failure> {
        if let Some(mut child) = self.child.take() {
            self.is_paused = false;
            child.kill().await?;
        }
        Ok(())
    }

    /// SIGTERM; waits until the process has ended by itself, and says how long that took.
    pub(crate) async fn terminate(&mut self) -> Result<Duration, Failure> {
        let since = Instant::now();
        self.signal("TERM").await?;
        let Some(mut child) = self.child.take() else {
            return Ok(Duration::ZERO);
        };
        let Ok(status) = tokio::time::timeout(STOP_MAX, child.wait()).await else {
            child.kill().await?;
            return Err("a replica did not stop when it was asked to".into());
        };
        let status = status?;
        if status.success() {
            Ok(since.elapsed())
        } else {
            Err(format!("a replica that was asked to stop ended with {status}").into())
        }
    }

    /// SIGSTOP.
    pub(crate) async fn pause(&mut self) -> Result<(), Failure> {
        self.is_paused = true;
        self.signal("STOP").await
    }

    /// SIGCONT.
    pub(crate) async fn resume(&mut self) -> Result<(), Failure> {
        self.is_paused = false;
        self.signal("CONT").await
    }

    /// Whether it runs, and is not paused.
    pub(crate) fn is_up(&self) -> bool {
        self.child.is_some() && !self.is_paused
    }

    /// Whether a process that was not killed has ended, and how: it never should.
    pub(crate) fn ended_by_itself(&mut self) -> Result<Option<String>, Failure> {
        let Some(child) = &mut self.child else {
            return Ok(None);
        };
        let Some(status) = child.try_wait()? else {
            return Ok(None);
        };
        self.child = None;
        let crashed = status
            .signal()
            .is_some_and(|signal| CRASHES.contains(&signal));
        let how = if crashed { "crashed" } else { "ended" };
        let log = self.log.display();
        Ok(Some(format!(
            "a replica {how} by itself: {status}; see {log}"
        )))
    }

    async fn signal(&self, name: &str) -> Result<(), Failure> {
        let Some(pid) = self.child.as_ref().and_then(Child::id) else {
            return Ok(());
        };
        let status = Command::new("kill")
            .args([format!("-{name}"), pid.to_string()])
            .status()
            .await?;
        if status.success() {
            Ok(())
        } else {
            Err(format!("SIG{name} could not be sent: {status}").into())
        }
    }
}
