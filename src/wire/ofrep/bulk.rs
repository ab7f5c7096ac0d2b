//! All flags of an environment at once, for clients that keep them.

use std::hash::{DefaultHasher, Hasher as _};

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::{IntoResponse as _, Response},
};
use http::{StatusCode, header};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Ofrep,
    asked::{Asked, EvaluationRequest},
    evaluate::Evaluation,
    failure::{ErrorCode, EvaluationFailure},
};
use crate::{
    service::Service,
    wire::{convert::stale_seconds, etag::IfNoneMatch},
};

/// Every flag's value for a context.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BulkEvaluation {
    /// The flags, by key.
    flags: Vec<Evaluation>,
    /// Where to hear of changes.
    event_streams: [EventStream; 1],
    /// What is true of all flags.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<BulkMetadata>,
}

/// What is true of all flags.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct BulkMetadata {
    /// How old the answer may be, where the service can't read its storage.
    stale_seconds: i32,
}

/// Where to hear of changes.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct EventStream {
    /// The kind of stream: `sse`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// Where it is.
    endpoint: EventEndpoint,
}

/// An address on the origin that the client has called.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EventEndpoint {
    /// Path and query.
    request_uri: String,
}

/// What a client has been told by the event that makes it ask.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase")]
#[into_params(parameter_in = Query)]
pub(super) struct Refetch {
    /// The `etag` of the event.
    #[serde(default)]
    flag_config_etag: Option<String>,
}

/// Evaluate all flags of an environment
///
/// For OpenFeature's web and mobile SDKs, which ask again when `eventStreams` tells of a change.
#[utoipa::path(
    post,
    path = "/ofrep/v1/evaluate/flags",
    tag = "OpenFeature",
    operation_id = "EvaluateFlags",
    params(Refetch),
    request_body(content = Option<EvaluationRequest>, description = "Whom the evaluations are for"),
    responses(
        (status = OK, body = BulkEvaluation, headers(("ETag" = String, description = "The revision of the environment, and a hash of the answer")), description = "The flags' values"),
        (status = NOT_MODIFIED, description = "The answer is the one of `If-None-Match`"),
        (status = BAD_REQUEST, body = EvaluationFailure, description = "The body or the context can't be used"),
        (status = PAYLOAD_TOO_LARGE, body = EvaluationFailure, description = "The body is too large"),
    ),
)]
pub(super) async fn flags(
    State(ofrep): State<Ofrep>,
    query: Result<Query<Refetch>, QueryRejection>,
    known: IfNoneMatch,
    asked: Asked,
) -> Result<Response, EvaluationFailure> {
    let Asked {
        environment,
        targeting_key,
        preview,
        ..
    } = asked;
    if let Some(told) = query.ok().and_then(|query| query.0.flag_config_etag) {
        wait_for_revision(&ofrep.service, &environment, &told).await?;
    }
    let (splits, revision) = ofrep
        .service
        .resolve_all(&environment, &targeting_key, preview)?;
    let has_targeting_key = !targeting_key.is_empty();
    let evaluations = splits
        .iter()
        .map(|split| Evaluation::new(split, has_targeting_key));
    let mut answer = BulkEvaluation {
        flags: evaluations.collect(),
        event_streams: [EventStream {
            kind: "sse",
            endpoint: EventEndpoint {
                request_uri: format!("/environments/{environment}/ofrep/v1/events"),
            },
        }],
        metadata: None,
    };
    let mut body = json(&answer)?;
    let etag = etag(revision, &body);
    // It is the same for all.
    let staleness = splits.first().and_then(|split| split.staleness);
    if staleness.is_some() {
        // An answer that grows older is still the same.
        answer.metadata = Some(BulkMetadata {
            stale_seconds: stale_seconds(staleness),
        });
        body = json(&answer)?;
    }
    let known = known.names(&etag);
    let headers = [
        (header::ETAG, etag),
        (header::CACHE_CONTROL, "no-cache".to_owned()),
        (header::CONTENT_TYPE, "application/json".to_owned()),
    ];
    if known {
        let [etag, caching, _] = headers;
        return Ok((StatusCode::NOT_MODIFIED, [etag, caching]).into_response());
    }
    Ok((headers, body).into_response())
}

fn json(answer: &BulkEvaluation) -> Result<Vec<u8>, EvaluationFailure> {
    serde_json::to_vec(answer).map_err(|error| {
        tracing::error!(%error, "an evaluation can't be written");
        let details = "an internal error occurred";
        EvaluationFailure::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            ErrorCode::General,
            details,
        )
    })
}

/// The answer depends on the context too, and revisions in memory begin anew with each process:
/// what is answered is hashed.
fn etag(revision: i64, body: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    format!("\"{revision}-{:016x}\"", hasher.finish())
}

/// Waits until this replica knows the revision that an event of another one has told of. What it
/// knows is served where that takes too long.
async fn wait_for_revision(
    service: &Service,
    environment: &str,
    told: &str,
) -> Result<(), EvaluationFailure> {
    // A watcher of a revision is waited for; one of none begins with a snapshot, at once.
    if let Some(told) = told.parse().ok().filter(|told| *told > 0) {
        service.watch(environment, told)?.next().await;
    }
    Ok(())
}
