//! Whether the service is alive, and whether it should be sent requests.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::StatusCode;
use serde::Serialize;
use tonic_health::{
    ServingStatus,
    pb::health_server::HealthServer,
    server::{HealthReporter, HealthService},
};

use super::{error::Problem, flagd, pb};

/// Whether the service should be sent requests: its storage answers, and it is not stopping.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    storage_answers: AtomicBool,
    stopping: AtomicBool,
    version: String,
    reporter: HealthReporter,
}

#[derive(Debug, Serialize)]
struct Ready {
    status: &'static str,
}

impl Readiness {
    /// Not ready yet.
    #[must_use]
    pub fn new(version: String) -> Self {
        Self(Arc::new(Inner {
            storage_answers: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            version,
            reporter: HealthReporter::new(),
        }))
    }

    /// `grpc.health.v1`, which tells its watchers of changes.
    pub(super) fn grpc_service(&self) -> HealthServer<HealthService> {
        let reporter = self.0.reporter.clone();
        HealthServer::new(HealthService::from_health_reporter(reporter))
    }

    /// Notes whether the storage answers.
    pub async fn set_storage(&self, answers: bool) {
        self.0.storage_answers.store(answers, Ordering::Relaxed);
        self.report().await;
    }

    /// Notes that the service stops: from now on it is not ready.
    pub async fn stop(&self) {
        self.0.stopping.store(true, Ordering::Relaxed);
        self.report().await;
    }

    /// Whether the service should be sent requests.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.0.storage_answers.load(Ordering::Relaxed) && !self.0.stopping.load(Ordering::Relaxed)
    }

    /// Ends the streams of those who watch `grpc.health.v1`, which would hold up the stop.
    pub async fn dismiss_watchers(&self) {
        let mut reporter = self.0.reporter.clone();
        for name in reported() {
            reporter.clear_service_status(&name).await;
        }
    }

    /// Whether the service should be asked which versions to serve, which it answers from memory:
    /// it goes on while the storage is away.
    #[must_use]
    pub fn is_ready_for_traffic(&self) -> bool {
        !self.0.stopping.load(Ordering::Relaxed)
    }

    async fn report(&self) {
        let status = |ready| {
            if ready {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            }
        };
        let (all, traffic) = (status(self.is_ready()), status(self.is_ready_for_traffic()));
        for name in reported() {
            let status = if is_answered_from_memory(&name) {
                traffic
            } else {
                all
            };
            self.0.reporter.set_service_status(name, status).await;
        }
    }

    /// The answer to `Health`.
    pub(super) fn health(&self) -> pb::HealthResponse {
        let status = if self.0.storage_answers.load(Ordering::Relaxed) {
            "healthy"
        } else {
            "unhealthy"
        };
        pb::HealthResponse {
            status: status.into(),
            version: self.0.version.clone(),
        }
    }
}

/// What `grpc.health.v1` knows: every service, and the empty name for all of them.
fn reported() -> impl Iterator<Item = String> {
    let ours = pb::descriptors().services();
    let services = ours.chain(flagd::pb::descriptors().services());
    let names = services.map(|service| service.full_name().to_owned());
    names.chain([String::new()])
}

fn is_answered_from_memory(name: &str) -> bool {
    name == "delos.deploy.v1.TrafficService" || name.starts_with("flagd.")
}

/// `/healthz`: the process is alive. Says nothing of what it depends on.
pub(super) async fn healthz() -> Response {
    Json(Ready { status: "alive" }).into_response()
}

/// `/readyz`: whether the service should be sent requests.
pub(super) async fn readyz(State(readiness): State<Readiness>) -> Response {
    if readiness.is_ready() {
        return Json(Ready { status: "ready" }).into_response();
    }
    not_ready(if readiness.0.stopping.load(Ordering::Relaxed) {
        "the service is stopping"
    } else {
        "the storage does not answer"
    })
}

/// `/readyz/traffic`: whether the service should be asked which versions to serve.
pub(super) async fn readyz_traffic(State(readiness): State<Readiness>) -> Response {
    if readiness.is_ready_for_traffic() {
        return Json(Ready { status: "ready" }).into_response();
    }
    not_ready("the service is stopping")
}

fn not_ready(why: &str) -> Response {
    Problem::of_http(
        StatusCode::SERVICE_UNAVAILABLE,
        "NOT_READY",
        "The service is not ready",
        why,
    )
    .into_response()
}
