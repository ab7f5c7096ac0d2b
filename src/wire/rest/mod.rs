//! REST: the proto messages as JSON. A handler converts, asks the service, converts back.

use axum::{
    Router,
    extract::{DefaultBodyLimit, FromRef},
};
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::health::Readiness;
use crate::service::Service;

mod deployments;
mod events;
mod extract;
mod gates;
mod health;
mod outcomes;
mod traffic;

/// Largest body of a request, in bytes.
pub(super) const BODY_MAX: usize = 1024 * 1024;

/// What handlers ask.
#[derive(Debug, Clone, FromRef)]
pub(super) struct Rest {
    pub(super) service: Service,
    pub(super) readiness: Readiness,
}

/// The routes, and the document that describes them: what is served is documented.
pub(super) fn routes() -> (Router<Rest>, OpenApi) {
    OpenApiRouter::new()
        .routes(routes!(deployments::create, deployments::list))
        .routes(routes!(deployments::get))
        .routes(routes!(deployments::approve))
        .routes(routes!(deployments::report_condition))
        .routes(routes!(deployments::rollback))
        .routes(routes!(deployments::cancel))
        .routes(routes!(deployments::status))
        .routes(routes!(deployments::explain))
        .routes(routes!(events::of_deployment))
        .routes(routes!(events::list))
        .routes(routes!(gates::create, gates::list))
        .routes(routes!(outcomes::report))
        .routes(routes!(traffic::resolve))
        .routes(routes!(traffic::get))
        .routes(routes!(traffic::list))
        .routes(routes!(traffic::watch))
        .routes(routes!(health::health))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .split_for_parts()
}
