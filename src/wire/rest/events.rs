//! The audit trail.

use axum::{Json, extract::State};

use super::extract::Query;
use crate::{
    service::Service,
    wire::{convert, error::Problem, pb},
};

/// List the events of a deployment, the oldest first
#[utoipa::path(
    get,
    path = "/v1/deployments/{deployment_id}/events",
    tag = "Audit",
    operation_id = "ListDeploymentEvents",
    params(pb::ListEventsRequest),
    responses((status = OK, body = pb::ListEventsResponse, description = "The events")),
)]
pub(super) async fn of_deployment(
    State(service): State<Service>,
    Query(message): Query<pb::ListEventsRequest>,
) -> Result<Json<pb::ListEventsResponse>, Problem> {
    let (query, size, token) = convert::event_query(message);
    Ok(Json(service.events(&query, size, &token).await?.into()))
}

/// List the events of all deployments, the newest first
#[utoipa::path(
    get,
    path = "/v1/events",
    tag = "Audit",
    operation_id = "ListEvents",
    params(pb::ListEventsRequest),
    responses((status = OK, body = pb::ListEventsResponse, description = "The events")),
)]
pub(super) async fn list(
    State(service): State<Service>,
    Query(message): Query<pb::ListEventsRequest>,
) -> Result<Json<pb::ListEventsResponse>, Problem> {
    let (query, size, token) = convert::event_query(message);
    Ok(Json(service.events(&query, size, &token).await?.into()))
}
