//! `/v1/environments`: what is served.

use std::convert::Infallible;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response, Sse, sse::Event},
};
use futures_util::{Stream, StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::extract::Query;
use crate::{
    service::Service,
    wire::{
        convert::stale_seconds, error::Problem, etag::IfNoneMatch, grpc::KEEP_ALIVE, pb,
        sse::EventOf,
    },
};

/// Say which version to serve
#[utoipa::path(
    get,
    path = "/v1/environments/{environment}/prompts/{prompt_id}/version",
    tag = "Traffic",
    operation_id = "ResolveVersion",
    params(pb::ResolveVersionRequest),
    responses(
        (status = OK, body = pb::ResolveVersionResponse, headers(("ETag" = String, description = "Names this answer")), description = "The version"),
        (status = NOT_MODIFIED, description = "The split is the one of `If-None-Match`"),
    ),
)]
pub(super) async fn resolve(
    State(service): State<Service>,
    known: IfNoneMatch,
    Query(message): Query<pb::ResolveVersionRequest>,
) -> Result<Response, Problem> {
    let split = service.resolve(
        &message.environment,
        &message.prompt_id,
        &message.targeting_key,
        message.preview,
    )?;
    // With the deployment and the version, a tag of another storage with the same revisions is not
    // taken for one of this.
    let assignment = &split.assignment;
    let etag = format!(
        "\"{}-{}-{}\"",
        split.traffic.revision,
        assignment.deployment_id.simple(),
        assignment.version
    );
    let known = known.names(&etag);
    let etag = [
        (header::ETAG, etag),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
    ];
    // An answer without a body must say it, too.
    let age = split
        .staleness
        .map(|_| [(header::AGE, stale_seconds(split.staleness).to_string())]);
    if known {
        return Ok((StatusCode::NOT_MODIFIED, age, etag).into_response());
    }
    Ok((age, etag, Json(pb::ResolveVersionResponse::from(split))).into_response())
}

/// Get the split of a prompt
#[utoipa::path(
    get,
    path = "/v1/environments/{environment}/prompts/{prompt_id}/traffic",
    tag = "Traffic",
    operation_id = "GetTraffic",
    params(pb::GetTrafficRequest),
    responses((status = OK, body = pb::GetTrafficResponse, description = "The split")),
)]
pub(super) async fn get(
    State(service): State<Service>,
    Query(message): Query<pb::GetTrafficRequest>,
) -> Result<Json<pb::GetTrafficResponse>, Problem> {
    Ok(Json(
        service
            .split(&message.environment, &message.prompt_id)?
            .into(),
    ))
}

/// List the splits of an environment
#[utoipa::path(
    get,
    path = "/v1/environments/{environment}/traffic",
    tag = "Traffic",
    operation_id = "ListTraffic",
    params(pb::ListTrafficRequest),
    responses((status = OK, body = pb::ListTrafficResponse, description = "The splits")),
)]
pub(super) async fn list(
    State(service): State<Service>,
    Query(message): Query<pb::ListTrafficRequest>,
) -> Result<Json<pb::ListTrafficResponse>, Problem> {
    Ok(Json(service.splits(&message.environment)?.into()))
}

/// An event of the stream. (The attribute reads a generic type its own way.)
type TrafficEvent = EventOf<pb::WatchTrafficResponse>;

/// Watch the splits of an environment, as Server-Sent Events
///
/// Each event is a WatchTrafficResponse, its id the revision; a client that connects again goes on where it was by
/// `Last-Event-ID`. Comments show now and then that the stream is alive.
#[utoipa::path(
    get,
    path = "/v1/environments/{environment}/traffic/events",
    tag = "Traffic",
    operation_id = "WatchTraffic",
    params(pb::WatchTrafficRequest),
    responses((status = OK, content_type = "text/event-stream", body = TrafficEvent, description = "The events")),
)]
pub(super) async fn watch(
    State(service): State<Service>,
    headers: HeaderMap,
    Query(mut message): Query<pb::WatchTrafficRequest>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    if let Some(id) = headers.get("last-event-id") {
        message.revision = last_event(id)?;
    }
    let watch = service.watch(&message.environment, message.revision)?;
    let updates = stream::unfold(watch, async |mut watch| Some((watch.next().await?, watch)));
    let events = updates.map(|update| {
        let revision = update.revision.to_string();
        let message = pb::WatchTrafficResponse::from(update);
        // A message of ours can always be written.
        let data = serde_json::to_string(&message).unwrap_or_default();
        Ok(Event::default().event("traffic").id(revision).data(data))
    });
    let keep_alive = axum::response::sse::KeepAlive::new().interval(KEEP_ALIVE);
    Ok(Sse::new(events).keep_alive(keep_alive))
}

fn last_event(id: &HeaderValue) -> Result<i64, Problem> {
    let revision = id.to_str().ok().and_then(|id| id.parse().ok());
    revision
        .ok_or_else(|| Problem::of_field("Last-Event-ID", "is no id of an event of this stream"))
}
