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

use super::{error::Problem, pb};

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

    async fn report(&self) {
        let status = if self.is_ready() {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for name in reported() {
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

/// What `grpc.health.v1` knows: our services, and the empty name for all of them.
fn reported() -> impl Iterator<Item = String> {
    let ours = pb::descriptors()
        .services()
        .map(|service| service.full_name().to_owned());
    ours.chain([String::new()])
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
    let why = if readiness.0.stopping.load(Ordering::Relaxed) {
        "the service is stopping"
    } else {
        "the storage does not answer"
    };
    Problem::of_http(
        StatusCode::SERVICE_UNAVAILABLE,
        "NOT_READY",
        "The service is not ready",
        why,
    )
    .into_response()
}
