//! `/v1/health`.

use axum::{Json, extract::State};

use crate::wire::{health::Readiness, pb};

/// Say whether the service is healthy
#[utoipa::path(
    get,
    path = "/v1/health",
    tag = "Health",
    operation_id = "Health",
    responses((status = OK, body = pb::HealthResponse, description = "How it is")),
)]
pub(super) async fn health(State(readiness): State<Readiness>) -> Json<pb::HealthResponse> {
    Json(readiness.health())
}
