//! `/v1/deployments`.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{StatusCode, header};

use super::extract::{Body, Caller, Id, Placed, Query};
use crate::{
    domain::deployment::Deployment,
    service::{RolledBack, Service},
    wire::{convert, error::Problem, once, pb},
};

/// Create a deployment
#[utoipa::path(
    post,
    path = "/v1/deployments",
    tag = "Deployments",
    operation_id = "CreateDeployment",
    request_body(content = pb::CreateDeploymentRequest, example = json!({
        "prompt_id": "greeting",
        "environment": "production",
        "to_version": 2,
        "strategy": {
            "type": "DEPLOYMENT_TYPE_CANARY",
            "initial_percentage": 10,
            "interval_seconds": 600,
            "auto_rollback": true,
        },
        "skip_approval": true,
        "metadata": {"ticket": "PROMPT-42"},
    })),
    responses((status = CREATED, body = pb::CreateDeploymentResponse, headers(("Location" = String, description = "Path of the deployment")), description = "Created")),
)]
pub(super) async fn create(
    State(service): State<Service>,
    caller: Caller,
    Body(message): Body<pb::CreateDeploymentRequest>,
) -> Result<Response, Problem> {
    let once = caller.once::<_, Deployment, pb::CreateDeploymentResponse>(&message)?;
    let request = convert::deployment_request(message);
    let reply = service.create(request, &caller.caller, once).await?;
    let answer: pb::CreateDeploymentResponse = once::answer(reply)?;
    let id = answer.deployment.as_ref().map(|made| made.id.as_str());
    let location = format!("/v1/deployments/{}", id.unwrap_or_default());
    Ok((
        StatusCode::CREATED,
        [(header::LOCATION, location)],
        Json(answer),
    )
        .into_response())
}

/// List deployments, the newest first
#[utoipa::path(
    get,
    path = "/v1/deployments",
    tag = "Deployments",
    operation_id = "ListDeployments",
    params(pb::ListDeploymentsRequest),
    responses((status = OK, body = pb::ListDeploymentsResponse, description = "The deployments")),
)]
pub(super) async fn list(
    State(service): State<Service>,
    Query(message): Query<pb::ListDeploymentsRequest>,
) -> Result<Json<pb::ListDeploymentsResponse>, Problem> {
    let page = service
        .deployments(&convert::deployment_query(message))
        .await?;
    Ok(Json(page.into()))
}

/// Get a deployment
#[utoipa::path(
    get,
    path = "/v1/deployments/{id}",
    tag = "Deployments",
    operation_id = "GetDeployment",
    params(pb::GetDeploymentRequest),
    responses((status = OK, body = pb::GetDeploymentResponse, description = "The deployment")),
)]
pub(super) async fn get(
    State(service): State<Service>,
    Query(message): Query<pb::GetDeploymentRequest>,
) -> Result<Json<pb::GetDeploymentResponse>, Problem> {
    Ok(Json(service.deployment(&message.id).await?.into()))
}

/// Approve a deployment
#[utoipa::path(
    post,
    path = "/v1/deployments/{id}/approve",
    tag = "Deployments",
    operation_id = "ApproveDeployment",
    params(pb::GetDeploymentRequest),
    request_body = Option<pb::ApproveDeploymentRequest>,
    responses((status = OK, body = pb::ApproveDeploymentResponse, description = "Approved")),
)]
pub(super) async fn approve(
    State(service): State<Service>,
    id: Id,
    caller: Caller,
    Body(mut message): Body<pb::ApproveDeploymentRequest>,
) -> Result<Json<pb::ApproveDeploymentResponse>, Problem> {
    message.id = id.agree("id", &message.id)?;
    let once = caller.once::<_, Deployment, pb::ApproveDeploymentResponse>(&message)?;
    let (id, comment) = (&message.id, &message.comment);
    let reply = service.approve(id, comment, &caller.caller, once).await?;
    Ok(Json(once::answer(reply)?))
}

/// Report a condition that is decided outside
#[utoipa::path(
    post,
    path = "/v1/deployments/{id}/gates/{gate_id}/conditions/{index}",
    tag = "Deployments",
    operation_id = "ReportGateCondition",
    params(("id" = String, Path, description = "The deployment's id"), ("gate_id" = String, Path, format = "uuid", description = "The gate's id"), ("index" = i32, Path, minimum = 0, description = "Which of the gate's conditions, counted from 0")),
    request_body = pb::ReportGateConditionRequest,
    responses((status = OK, body = pb::ReportGateConditionResponse, description = "Reported")),
)]
pub(super) async fn report_condition(
    State(service): State<Service>,
    caller: Caller,
    Placed(message): Placed<pb::ReportGateConditionRequest>,
) -> Result<Json<pb::ReportGateConditionResponse>, Problem> {
    let once = caller.once::<_, Deployment, pb::ReportGateConditionResponse>(&message)?;
    let id = message.id.clone();
    let report = convert::condition_report(message);
    let reply = service.report_condition(&id, &report, &caller.caller, once);
    Ok(Json(once::answer(reply.await?)?))
}

/// Roll a deployment back
#[utoipa::path(
    post,
    path = "/v1/deployments/{id}/rollback",
    tag = "Deployments",
    operation_id = "RollbackDeployment",
    params(pb::GetDeploymentRequest),
    request_body = Option<pb::RollbackDeploymentRequest>,
    responses((status = OK, body = pb::RollbackDeploymentResponse, description = "Rolled back")),
)]
pub(super) async fn rollback(
    State(service): State<Service>,
    id: Id,
    caller: Caller,
    Body(mut message): Body<pb::RollbackDeploymentRequest>,
) -> Result<Json<pb::RollbackDeploymentResponse>, Problem> {
    message.id = id.agree("id", &message.id)?;
    let once = caller.once::<_, RolledBack, pb::RollbackDeploymentResponse>(&message)?;
    let (id, reason) = (&message.id, &message.reason);
    let reply = service.roll_back(id, reason, &caller.caller, once).await?;
    Ok(Json(once::answer(reply)?))
}

/// Cancel a deployment
#[utoipa::path(
    post,
    path = "/v1/deployments/{id}/cancel",
    tag = "Deployments",
    operation_id = "CancelDeployment",
    params(pb::GetDeploymentRequest),
    request_body = Option<pb::CancelDeploymentRequest>,
    responses((status = OK, body = pb::CancelDeploymentResponse, description = "Cancelled")),
)]
pub(super) async fn cancel(
    State(service): State<Service>,
    id: Id,
    caller: Caller,
    Body(mut message): Body<pb::CancelDeploymentRequest>,
) -> Result<Json<pb::CancelDeploymentResponse>, Problem> {
    message.id = id.agree("id", &message.id)?;
    let once = caller.once::<_, Deployment, pb::CancelDeploymentResponse>(&message)?;
    let (id, reason) = (&message.id, &message.reason);
    let reply = service.cancel(id, reason, &caller.caller, once).await?;
    Ok(Json(once::answer(reply)?))
}

/// Get where a deployment stands now
#[utoipa::path(
    get,
    path = "/v1/deployments/{id}/status",
    tag = "Deployments",
    operation_id = "GetDeploymentStatus",
    params(pb::GetDeploymentStatusRequest),
    responses((status = OK, body = pb::GetDeploymentStatusResponse, description = "Where it stands")),
)]
pub(super) async fn status(
    State(service): State<Service>,
    Query(message): Query<pb::GetDeploymentStatusRequest>,
) -> Result<Json<pb::GetDeploymentStatusResponse>, Problem> {
    Ok(Json(service.progress(&message.id).await?.into()))
}

/// Explain why a deployment is where it is
#[utoipa::path(
    get,
    path = "/v1/deployments/{id}/explain",
    tag = "Deployments",
    operation_id = "ExplainDeployment",
    params(pb::ExplainDeploymentRequest),
    responses((status = OK, body = pb::ExplainDeploymentResponse, description = "Why it is there, and what would move it")),
)]
pub(super) async fn explain(
    State(service): State<Service>,
    Query(message): Query<pb::ExplainDeploymentRequest>,
) -> Result<Json<pb::ExplainDeploymentResponse>, Problem> {
    Ok(Json(service.explain(&message.id).await?.into()))
}
