//! Other flag servers, where `scripts/install-bench-peers` has installed them.

use std::path::{Path, PathBuf};

use tokio::process::Command;

use super::{Server, free_port, start};
use crate::{Failure, calls::unleash};

/// Where they are installed, seen from where `scripts/bench` runs.
const UNLEASH_EDGE: &str = ".cache/bin/unleash-edge";
const UVICORN: &str = ".cache/bench-venv/bin/uvicorn";

/// A peer's program, where it is installed.
pub(crate) fn unleash_edge() -> Option<PathBuf> {
    installed(UNLEASH_EDGE)
}

/// The program that serves `fast-feature`, where both are installed.
pub(crate) fn fast_feature() -> Option<PathBuf> {
    installed(UVICORN)
}

fn installed(path: &str) -> Option<PathBuf> {
    let path = Path::new(path);
    path.is_file().then(|| path.to_owned())
}

/// Starts `unleash-edge` without an Unleash behind it.
pub(crate) async fn start_unleash_edge(program: &Path, toggles: &Path) -> Result<Server, Failure> {
    let port = free_port()?;
    let mut command = Command::new(program);
    command
        .args(["--interface", "127.0.0.1", "--port", &port.to_string()])
        .args(["offline", "--bootstrap-file"])
        .arg(toggles)
        .args(["--client-tokens", unleash::TOKEN])
        .args(["--frontend-tokens", unleash::TOKEN]);
    start_quietly(command, port).await
}

/// Starts `fast-feature` as uvicorn does by default, which is one process, and without a log of
/// each request. Its admin API is on, since a flag in memory can't be had otherwise.
pub(crate) async fn start_fast_feature(program: &Path) -> Result<Server, Failure> {
    let port = free_port()?;
    let mut command = Command::new(program);
    command
        .args(["--factory", "fast_feature.server:Application.create"])
        .args(["--host", "127.0.0.1", "--port", &port.to_string()])
        .arg("--no-access-log")
        .env("FAST_FEATURE_ADMIN", "true");
    start_quietly(command, port).await
}

async fn start_quietly(mut command: Command, port: u16) -> Result<Server, Failure> {
    command
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null());
    start(command, port).await
}
