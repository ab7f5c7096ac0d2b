//! `/v1/outcomes`: what became of the requests that were served.

use axum::{Json, extract::State};

use super::extract::Body;
use crate::{
    service::Service,
    wire::{convert, error::Problem, pb},
};

/// Report what became of requests
#[utoipa::path(
    post,
    path = "/v1/outcomes",
    tag = "Telemetry",
    operation_id = "ReportOutcomes",
    request_body(content = pb::ReportOutcomesRequest, example = json!({
        "outcomes": [{
            "id": "4bf92f3577b34da6",
            "prompt_id": "greeting",
            "environment": "production",
            "version": 2,
            "unit": "user-1",
            "latency_ms": 420.5,
            "quality_score": 0.9,
        }],
    })),
    responses((status = OK, body = pb::ReportOutcomesResponse, description = "What was stored, and what was refused")),
)]
pub(super) async fn report(
    State(service): State<Service>,
    Body(message): Body<pb::ReportOutcomesRequest>,
) -> Result<Json<pb::ReportOutcomesResponse>, Problem> {
    let (outcomes, scores) = convert::report(message);
    Ok(Json(service.report(outcomes, scores).await?.into()))
}
