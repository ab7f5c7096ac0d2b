//! Tells clients that keep the flags when to ask for them again.

use std::convert::Infallible;

use axum::{
    extract::{Query, State, rejection::QueryRejection},
    response::{
        Sse,
        sse::{Event, KeepAlive},
    },
};
use futures_util::{Stream, StreamExt as _, stream};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Ofrep, asked::Place, failure::EvaluationFailure};
use crate::wire::{grpc::KEEP_ALIVE, sse::EventOf};

/// Tells a client to ask for the flags again.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct RefetchEvent {
    /// What to do: `refetchEvaluation`.
    #[serde(rename = "type")]
    kind: &'static str,
    /// What to send as `flagConfigEtag`: the revision of the environment.
    etag: String,
    /// When it was told, in seconds since 1970.
    last_modified: i64,
}

/// What is to be watched.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub(super) struct Watched {
    /// The environment.
    #[serde(default)]
    #[param(pattern = "^([A-Za-z0-9][A-Za-z0-9_.-]{0,62})?$")]
    environment: Option<String>,
}

/// An event of the stream. (The attribute reads a generic type its own way.)
type FlagsEvent = EventOf<RefetchEvent>;

/// Hear when to evaluate all flags again, as Server-Sent Events
///
/// Each stream begins with an event, so that what changed before it began or while it was broken off is not missed.
/// Comments show now and then that the stream is alive.
#[utoipa::path(
    get,
    path = "/ofrep/v1/events",
    tag = "OpenFeature",
    operation_id = "WatchFlags",
    params(Watched),
    responses(
        (status = OK, content_type = "text/event-stream", body = FlagsEvent, description = "The events"),
        (status = BAD_REQUEST, content_type = "application/json", body = EvaluationFailure, description = "There can be no such environment"),
    ),
)]
pub(super) async fn events(
    State(ofrep): State<Ofrep>,
    place: Place,
    query: Result<Query<Watched>, QueryRejection>,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, EvaluationFailure> {
    let asked = query.ok().and_then(|query| query.0.environment);
    let environment = ofrep.environment(place.environment.or(asked));
    let watch = ofrep.service.watch(&environment, 0)?;
    let clock = ofrep.service.store().clock().clone();
    let updates = stream::unfold(watch, async |mut watch| Some((watch.next().await?, watch)));
    let news = updates.filter(|update| std::future::ready(update.is_news()));
    let events = news.map(move |update| {
        let event = RefetchEvent {
            kind: "refetchEvaluation",
            etag: update.revision.to_string(),
            last_modified: clock.now().timestamp(),
        };
        // An event of ours can always be written.
        let data = serde_json::to_string(&event).unwrap_or_default();
        let event = Event::default().event("message");
        Ok(event.id(update.revision.to_string()).data(data))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}
