//! The service: its own program, in a process of its own, on a free port of the loopback.

use std::{
    fs::File,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Stdio,
    time::{Duration, Instant},
};

use serde_json::Value;
use tokio::process::{Child, Command};

use crate::Failure;

/// How long it may take until it serves.
const PATIENCE: Duration = Duration::from_secs(30);
/// How much of its log is shown where something went wrong.
const LAST_LINES: usize = 20;

/// The running service. Killed when it is dropped.
pub(crate) struct Service {
    /// Where it serves.
    pub(crate) address: SocketAddr,
    log: PathBuf,
    _child: Child,
}

impl Service {
    /// Starts it, with its storage in memory and its log in a file, and waits until it serves.
    pub(crate) async fn start(directory: &Path, eval: SocketAddr) -> Result<Self, Failure> {
        let log = directory.join("service.log");
        let file = File::create(&log)?;
        let mut command = Command::new(program()?);
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("DELOS_") {
                command.env_remove(name);
            }
        }
        command
            .env("DELOS_STORAGE_BACKEND", "memory")
            .env("DELOS_GRPC_PORT", "0")
            .env("DELOS_EVAL_ENDPOINT", eval.to_string())
            .env("DELOS_TRACING_ENABLED", "false")
            .stdin(Stdio::null())
            .stderr(file.try_clone()?)
            .stdout(file)
            .kill_on_drop(true);
        let mut child = command.spawn()?;
        let since = Instant::now();
        loop {
            if let Some(address) = serving(&log)? {
                return Ok(Self {
                    address,
                    log,
                    _child: child,
                });
            }
            let ended = child.try_wait()?;
            if ended.is_some() || since.elapsed() > PATIENCE {
                let why =
                    ended.map_or("does not serve".into(), |status| format!("ended: {status}"));
                return Err(format!("the service {why}\n{}", last_lines(&log)).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The last that it has said.
    pub(crate) fn last_lines(&self) -> String {
        last_lines(&self.log)
    }
}

/// The service's program, which is built beside this one.
fn program() -> Result<PathBuf, Failure> {
    let own = std::env::current_exe()?;
    let path = own.parent().unwrap_or(Path::new(".")).join("delos-deploy");
    if path.is_file() {
        Ok(path)
    } else {
        Err(format!("{} is missing; `make demo` builds it", path.display()).into())
    }
}

/// The address that the log says is served on, once it does.
fn serving(log: &Path) -> Result<Option<SocketAddr>, Failure> {
    let said = std::fs::read_to_string(log)?;
    let lines = said.lines().flat_map(serde_json::from_str::<Value>);
    let address = lines
        .filter(|line| line["message"] == "serving")
        .find_map(|line| line["address"].as_str()?.parse().ok());
    Ok(address)
}

fn last_lines(log: &Path) -> String {
    let said = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = said.lines().collect();
    let from = lines.len().saturating_sub(LAST_LINES);
    lines[from..].join("\n")
}
