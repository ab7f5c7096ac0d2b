//! The service under test: a process of its own, which can be stopped and started again on the same port and storage,
//! and its REST API.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;

/// Longest wait for anything that a test expects to happen.
const WAIT: Duration = Duration::from_secs(20);
const READY_WAIT: Duration = Duration::from_secs(60);

/// Asks again until it holds.
pub async fn until(what: &str, holds: impl AsyncFnMut() -> bool) {
    within(WAIT, what, holds).await;
}

async fn within(wait: Duration, what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + wait;
    while !holds().await {
        assert!(Instant::now() < end, "not within {wait:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A free port below those that systems give to outgoing connections: none of these may take it while the service is
/// stopped, not even the one of a client that tries to connect to it.
fn free_port() -> u16 {
    loop {
        // The standard library has no other source of chance.
        let chance = RandomState::new().build_hasher().finish();
        let port = 20_000 + (chance % 12_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

pub struct Service {
    pub port: u16,
    directory: TempDir,
    process: Child,
    http: reqwest::Client,
}

impl Service {
    /// Starts the service with an empty storage, and waits until it is ready.
    pub async fn create() -> Self {
        let directory = TempDir::new().expect("a directory for the storage");
        let port = free_port();
        let mut service = Self {
            port,
            process: spawn(port, &directory),
            directory,
            http: reqwest::Client::new(),
        };
        service.is_ready().await;
        service
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Starts it again, and waits until it is ready.
    pub async fn start(&mut self) {
        self.process = spawn(self.port, &self.directory);
        self.is_ready().await;
    }

    async fn is_ready(&mut self) {
        let url = format!("{}/readyz", self.url());
        within(READY_WAIT, "the service is ready", async || {
            let ended = self.process.try_wait().expect("the state of the service");
            assert_eq!(ended, None, "the service ended before it was ready");
            let answer = self.http.get(&url).send().await;
            answer.is_ok_and(|answer| answer.status().is_success())
        })
        .await;
    }

    /// Stops it as an operator does; its storage stays.
    pub fn terminate(&mut self) {
        let pid = self.process.id().to_string();
        // The standard library knows SIGKILL only.
        let sent = Command::new("kill").args(["-s", "TERM", &pid]).status();
        assert!(sent.is_ok_and(|sent| sent.success()), "SIGTERM");
        assert!(self.ended().success(), "a stop in good order");
    }

    /// Stops it as a crash does; its storage stays.
    pub fn kill(&mut self) {
        self.process.kill().expect("SIGKILL");
        self.ended();
    }

    fn ended(&mut self) -> ExitStatus {
        self.process.wait().expect("the end of the service")
    }

    /// Creates a deployment that begins at once, and answers its id.
    async fn deploy(&self, prompt: &str, version: i64, strategy: Value) -> String {
        let body = json!({
            "prompt_id": prompt,
            "environment": "production",
            "to_version": version,
            "strategy": strategy,
            "skip_approval": true,
        });
        let answer = self.post("/deployments", body).await;
        answer["deployment"]["id"]
            .as_str()
            .expect("an id")
            .to_owned()
    }

    /// Serves a version of a prompt to everybody.
    pub async fn serve(&self, prompt: &str, version: i64) {
        let immediate = json!({"type": "DEPLOYMENT_TYPE_IMMEDIATE"});
        self.deploy(prompt, version, immediate).await;
    }

    /// Begins to roll out a version: 30 % of the keys, one percent more each second.
    pub async fn roll_out(&self, prompt: &str, version: i64) -> String {
        let gradual = json!({
            "type": "DEPLOYMENT_TYPE_GRADUAL",
            "initial_percentage": 30,
            "increment": 1,
            "interval_seconds": 1,
        });
        self.deploy(prompt, version, gradual).await
    }

    pub async fn roll_back(&self, deployment: &str) {
        let path = format!("/deployments/{deployment}/rollback");
        self.post(&path, json!({"reason": "the test asks for it"}))
            .await;
    }

    /// The service's own answer, and the revision that it is of: what ResolveVersion says.
    pub async fn version(&self, prompt: &str, key: &str) -> (i64, i64) {
        let path = format!("/environments/production/prompts/{prompt}/version?targeting_key={key}");
        let request = self.http.get(format!("{}/v1{path}", self.url()));
        let answer = answered(request).await;
        // JSON has a 64-bit number of protobuf as text.
        let revision = answer["revision"]
            .as_str()
            .and_then(|revision| revision.parse().ok());
        (
            answer["version"].as_i64().expect("a version"),
            revision.expect("a revision"),
        )
    }

    async fn post(&self, path: &str, body: Value) -> Value {
        answered(
            self.http
                .post(format!("{}/v1{path}", self.url()))
                .json(&body),
        )
        .await
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        // It may have ended before; then there is nothing left to do.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn spawn(port: u16, directory: &TempDir) -> Child {
    let built = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../target/debug/delos-deploy"
    );
    let binary = std::env::var("DELOS_BIN").unwrap_or_else(|_| built.to_owned());
    Command::new(&binary)
        .env("DELOS_GRPC_PORT", port.to_string())
        .env("DELOS_STORAGE_BACKEND", "sqlite")
        .env(
            "DELOS_SQLITE_PATH",
            directory.path().join("delos-deploy.db"),
        )
        .env("DELOS_DRAIN_SECONDS", "0")
        .env("DELOS_TRACING_ENABLED", "false")
        .env("DELOS_LOG_LEVEL", "warn")
        .stdout(Stdio::null())
        .spawn()
        .unwrap_or_else(|error| panic!("{binary}: {error}"))
}

async fn answered(request: reqwest::RequestBuilder) -> Value {
    let response = request.send().await.expect("an answer of the service");
    let status = response.status();
    let answer: Value = response.json().await.expect("JSON");
    assert!(status.is_success(), "{status}: {answer}");
    answer
}
