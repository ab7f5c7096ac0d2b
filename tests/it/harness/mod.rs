//! Starts the service in this process, on a free port, with a clock that tests move, and talks to
//! it as its users do.

pub(crate) mod audit;
pub(crate) mod binary;
pub(crate) mod eval;
pub(crate) mod http;
pub(crate) mod openapi;
pub(crate) mod postgres;
pub(crate) mod proxy;
pub(crate) mod redis;
pub(crate) mod rpc;
pub(crate) mod users;
pub(crate) mod webhook;

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use chrono::{DateTime, Utc};
use delos_deploy::{
    clock::{Clock, ManualClock},
    config::Config,
    reconciler::Reconciler,
    server::{self, Server, Stop, Stopper},
    service::Service,
    store::Store,
    telemetry::Telemetry,
    wire::pb::{
        WatchTrafficRequest, WatchTrafficResponse, audit_service_client::AuditServiceClient,
        deploy_service_client::DeployServiceClient, traffic_service_client::TrafficServiceClient,
    },
};
use serde_json::Value;
use tokio::task::JoinHandle;
use tonic::{Streaming, transport::Channel};

/// Where the service under test keeps deployments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Storage {
    /// SQLite in memory.
    Memory,
    /// An SQLite file.
    SqliteFile,
    /// A database of its own on the test run's PostgreSQL.
    Postgres,
}

/// Runs a test on every storage.
macro_rules! on_every_storage {
    ($($(#[$attribute:meta])* async fn $name:ident($app:ident: &App) $body:block)*) => {$(
        mod $name {
            use super::*;

            $(#[$attribute])*
            async fn test($app: &App) $body

            async fn on(storage: Storage) {
                let app = App::start(storage).await;
                test(&app).await;
                app.finish().await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn memory() {
                on(Storage::Memory).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite_file() {
                on(Storage::SqliteFile).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() {
                on(Storage::Postgres).await;
            }
        }
    )*};
}
pub(crate) use on_every_storage;

/// Runs a test, a function of the storage, on each one that outlives a process.
macro_rules! on_lasting_storage {
    ($name:ident, $test:ident $(,)?) => {
        mod $name {
            use super::*;

            #[tokio::test(flavor = "multi_thread")]
            async fn sqlite_file() {
                $test(Storage::SqliteFile).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() {
                $test(Storage::Postgres).await;
            }
        }
    };
}
pub(crate) use on_lasting_storage;

/// The service, running in this process.
pub(crate) struct App {
    pub(crate) clock: ManualClock,
    pub(crate) address: String,
    pub(crate) service: Service,
    reconciler: Reconciler,
    stopper: Stopper,
    server: JoinHandle<()>,
    settings: BTreeMap<String, String>,
    _files: tempfile::TempDir,
}

impl App {
    /// Starts the service over an empty storage.
    pub(crate) async fn start(storage: Storage) -> Self {
        Self::start_with(storage, &[]).await
    }

    /// Starts the service with some variables set.
    pub(crate) async fn start_with(storage: Storage, variables: &[(&str, &str)]) -> Self {
        let files = tempfile::tempdir().unwrap();
        let mut settings = settings(storage, files.path()).await;
        for (name, value) in variables {
            settings.insert((*name).into(), (*value).into());
        }
        let config = Config::from_map(settings.clone()).unwrap();
        let clock = ManualClock::new("2026-01-01T00:00:00Z".parse().unwrap());
        let store = Store::open(&config.storage, Clock::Manual(clock.clone()))
            .await
            .unwrap();
        let telemetry = Arc::new(Telemetry::start(&config.telemetry).unwrap());
        let cache = server::cache(&config).unwrap();
        let server = Server::bind(&config, store, cache, telemetry)
            .await
            .unwrap()
            .without_reconciler();
        let address = server.address().to_string();
        let service = server.service().clone();
        let stopper = server.stopper();
        let app = Self {
            clock,
            address,
            reconciler: Reconciler::new(&service),
            service,
            stopper,
            server: tokio::spawn(server.run()),
            settings,
            _files: files,
        };
        wait_until_ready(&app.address).await;
        app
    }

    /// The variables that this service was started with, to start another one over its storage.
    pub(crate) fn settings(&self) -> &BTreeMap<String, String> {
        &self.settings
    }

    /// A client of the deploy service.
    pub(crate) async fn deploy(&self) -> DeployServiceClient<Channel> {
        DeployServiceClient::new(self.channel().await)
    }

    /// A client of the audit service.
    pub(crate) async fn audit(&self) -> AuditServiceClient<Channel> {
        AuditServiceClient::new(self.channel().await)
    }

    /// A new gRPC connection.
    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(format!("http://{}", self.address))
            .unwrap()
            .connect()
            .await
            .unwrap()
    }

    /// Calls REST; the answer is checked against the OpenAPI document.
    pub(crate) async fn rest(&self, method: &str, path: &str, body: Option<Value>) -> http::Answer {
        let headers: &[(&str, &str)] = match body {
            Some(_) => &[("content-type", "application/json")],
            None => &[],
        };
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        self.rest_with(method, path, headers, body).await
    }

    /// Calls REST with headers and any body; the answer is checked against the OpenAPI document.
    pub(crate) async fn rest_with(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<bytes::Bytes>,
    ) -> http::Answer {
        let answer = http::send(&self.address, method, path, headers, body.into())
            .await
            .unwrap();
        openapi::check(method, path, &answer);
        answer
    }

    /// Creates a deployment over REST and returns it.
    pub(crate) async fn create(&self, body: Value) -> Value {
        let answer = self.rest("POST", "/v1/deployments", Some(body)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        answer.json()["deployment"].clone()
    }

    /// A deployment as it is now.
    pub(crate) async fn get(&self, id: &str) -> Value {
        let answer = self
            .rest("GET", &format!("/v1/deployments/{id}"), None)
            .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["deployment"].clone()
    }

    /// What an environment serves of a prompt.
    pub(crate) async fn traffic(
        &self,
        prompt: &str,
        environment: &str,
    ) -> delos_deploy::domain::traffic::Traffic {
        use delos_deploy::domain::ids::{Environment, PromptId};
        self.service
            .store()
            .traffic(
                &PromptId::parse(prompt).unwrap(),
                &Environment::parse(environment).unwrap(),
            )
            .await
            .unwrap()
    }

    /// Moves the clock and does what is due then.
    pub(crate) async fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.tick().await;
    }

    /// Does what is due now.
    pub(crate) async fn tick(&self) {
        self.reconciler.tick().await.unwrap();
    }

    /// What the clock shows.
    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.clock.now()
    }

    /// Checks that the audit trail of every deployment is one legal path, and stops the service.
    pub(crate) async fn finish(self) {
        audit::check_all(&self).await;
        self.stopper.stop(Stop::AtOnce);
        self.server.await.unwrap();
    }
}

impl App {
    /// Tells the service to stop, without waiting.
    pub(crate) fn stop(&self, how: Stop) {
        self.stopper.stop(how);
    }
}

/// Waits until something holds; panics with `what` is wrong where it does not within 30 seconds.
pub(crate) async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !holds().await {
        assert!(Instant::now() < patience, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Watches the traffic of production from a snapshot on, over a connection of its own.
pub(crate) async fn watch(address: &str) -> Streaming<WatchTrafficResponse> {
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    let mut client = TrafficServiceClient::new(channel.connect().await.unwrap());
    let request = WatchTrafficRequest {
        environment: "production".into(),
        revision: 0,
    };
    client.watch_traffic(request).await.unwrap().into_inner()
}

/// Waits until a service says that it is ready.
async fn wait_until_ready(address: &str) {
    for _ in 0..500 {
        if http::get(address, "/readyz")
            .await
            .is_ok_and(|answer| answer.status == 200)
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the service does not become ready");
}

/// The variables of a service over an empty storage.
pub(crate) async fn settings(
    storage: Storage,
    files: &std::path::Path,
) -> BTreeMap<String, String> {
    let mut settings = BTreeMap::from([
        ("DELOS_GRPC_PORT", "0".to_owned()),
        ("DELOS_TRACING_ENABLED", "false".to_owned()),
        ("DELOS_DRAIN_SECONDS", "0".to_owned()),
    ]);
    match storage {
        Storage::Memory => {}
        Storage::SqliteFile => {
            settings.insert("DELOS_STORAGE_BACKEND", "sqlite".into());
            settings.insert(
                "DELOS_SQLITE_PATH",
                files.join("deploy.db").display().to_string(),
            );
        }
        Storage::Postgres => settings.extend(postgres::settings().await),
    }
    settings
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Minutes as a duration.
pub(crate) const fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(minutes * 60)
}
