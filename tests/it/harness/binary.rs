//! The built binary as a process of its own: to be killed, stopped and started again.

use std::{
    collections::BTreeMap,
    io::{BufRead as _, BufReader},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    time::{Duration, Instant},
};

use serde_json::Value;

use super::http;

/// A running process of the service. Killed when it is dropped.
pub(crate) struct Binary {
    child: Child,
    pub(crate) address: String,
    lines: mpsc::Receiver<String>,
}

/// The binary under test, with nothing of this process's own configuration.
pub(crate) fn command(settings: &BTreeMap<String, String>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_delos-deploy"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("DELOS_") {
            command.env_remove(name);
        }
    }
    command.envs(settings);
    command
}

impl Binary {
    /// Starts the service and waits until it listens.
    pub(crate) fn start(settings: &BTreeMap<String, String>) -> Self {
        Self::try_start(settings).unwrap_or_else(|status| panic!("it ended with {status}"))
    }

    /// Starts the service and waits until it listens, or has ended.
    pub(crate) fn try_start(settings: &BTreeMap<String, String>) -> Result<Self, ExitStatus> {
        let mut child = command(settings).stdout(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                // Nobody reads on once the test has ended.
                let _ = send.send(line);
            }
        });
        let mut binary = Self {
            child,
            address: String::new(),
            lines,
        };
        match binary.next_line(|line| line["message"] == "serving") {
            Ok(line) => {
                binary.address = line["address"].as_str().unwrap().to_owned();
                Ok(binary)
            }
            Err(RecvTimeoutError::Disconnected) => Err(binary.wait()),
            Err(RecvTimeoutError::Timeout) => panic!("the service does not listen"),
        }
    }

    /// The next log line that is meant.
    pub(crate) fn wait_for_line(&mut self, is_meant: impl Fn(&Value) -> bool) -> Value {
        self.next_line(is_meant)
            .expect("the service says what is waited for")
    }

    fn next_line(&mut self, is_meant: impl Fn(&Value) -> bool) -> Result<Value, RecvTimeoutError> {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let line = self.lines.recv_timeout(left)?;
            let line: Value =
                serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
            if is_meant(&line) {
                return Ok(line);
            }
        }
    }

    /// What the process has said and nobody has read, once it has ended.
    pub(crate) fn remaining_lines(&self) -> Vec<Value> {
        self.lines
            .iter()
            .map(|line| serde_json::from_str(&line).unwrap())
            .collect()
    }

    /// Waits until the service says that it is ready.
    pub(crate) async fn wait_until_ready(&self) {
        super::wait_until_ready(&self.address).await;
    }

    /// Posts JSON, and expects that it is taken.
    pub(crate) async fn post(&self, path: &str, body: Value) -> Value {
        let answer = http::post(&self.address, path, &body).await.unwrap();
        assert!(answer.status < 300, "{answer:?}");
        answer.json()
    }

    /// Waits until a deployment is as it should be.
    pub(crate) async fn deployment_becomes(
        &self,
        id: &str,
        is_meant: impl Fn(&Value) -> bool,
    ) -> Value {
        let path = format!("/v1/deployments/{id}");
        let patience = Instant::now() + Duration::from_secs(30);
        loop {
            let answer = http::get(&self.address, &path).await.unwrap();
            let deployment = answer.json()["deployment"].clone();
            if is_meant(&deployment) {
                return deployment;
            }
            assert!(Instant::now() < patience, "{deployment}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// How many files, sockets included, the process has open.
    pub(crate) fn open_files(&self) -> usize {
        let path = format!("/proc/{}/fd", self.child.id());
        std::fs::read_dir(path).unwrap().count()
    }

    /// SIGKILL.
    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub(crate) fn terminate(&self) {
        let pid = self.child.id().to_string();
        assert!(
            Command::new("kill")
                .args(["-TERM", &pid])
                .status()
                .unwrap()
                .success()
        );
    }

    /// Waits until the process has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let until = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "the process does not end");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Binary {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
