//! `/v1/quality-gates`.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{StatusCode, header};

use super::extract::{Body, Caller, Query};
use crate::{
    domain::gate::Gate,
    service::Service,
    wire::{convert, error::Problem, once, pb},
};

/// Create a quality gate
#[utoipa::path(
    post,
    path = "/v1/quality-gates",
    tag = "Quality gates",
    operation_id = "CreateQualityGate",
    request_body(content = pb::CreateQualityGateRequest, example = json!({
        "name": "answers on examples",
        "prompt_id": "greeting",
        "conditions": [
            {"type": "eval_score", "operator": "gte", "threshold": 0.8, "dataset_id": "golden-set"},
            {"type": "latency", "operator": "lte", "threshold": 1500},
        ],
        "required": true,
    })),
    responses((status = CREATED, body = pb::CreateQualityGateResponse, headers(("Location" = String, description = "Path of the prompt's gates")), description = "Created")),
)]
pub(super) async fn create(
    State(service): State<Service>,
    caller: Caller,
    Body(message): Body<pb::CreateQualityGateRequest>,
) -> Result<Response, Problem> {
    let once = caller.once::<_, Gate, pb::CreateQualityGateResponse>(&message)?;
    let request = convert::gate_request(message);
    let reply = service.create_gate(&request, &caller.caller, once).await?;
    let answer: pb::CreateQualityGateResponse = once::answer(reply)?;
    let gate = answer.quality_gate.as_ref();
    let prompt_id = gate.map(|gate| gate.prompt_id.as_str());
    let location = format!(
        "/v1/quality-gates?prompt_id={}",
        prompt_id.unwrap_or_default()
    );
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(answer),
    )
        .into_response())
}

/// List the quality gates of a prompt
#[utoipa::path(
    get,
    path = "/v1/quality-gates",
    tag = "Quality gates",
    operation_id = "ListQualityGates",
    params(pb::ListQualityGatesRequest),
    responses((status = OK, body = pb::ListQualityGatesResponse, description = "The gates")),
)]
pub(super) async fn list(
    State(service): State<Service>,
    Query(message): Query<pb::ListQualityGatesRequest>,
) -> Result<Json<pb::ListQualityGatesResponse>, Problem> {
    Ok(Json(service.list_gates(&message.prompt_id).await?.into()))
}
