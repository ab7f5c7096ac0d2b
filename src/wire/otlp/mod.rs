//! OTLP, OpenTelemetry's protocol: spans and log records that applications write anyway, taken in
//! as what became of requests. Over gRPC, and over HTTP as protobuf or JSON.
//!
//! `attributes` has the names that are read, `span` and `evaluation` what they come to; `batch`
//! reports it; the others only speak the protocol. Nothing of a prompt or an answer is read.

use std::{sync::Arc, time::Duration};

use axum::{Router, extract::DefaultBodyLimit};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use utoipa::openapi::OpenApi;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    domain::ids::Environment,
    service::{Error, Service},
};

mod answer;
mod attributes;
mod batch;
mod evaluation;
mod grpc;
mod http;
mod span;
#[cfg(test)]
mod tests;

use batch::{Batch, Taken};

/// Largest body of a request, and largest message, in bytes, also once it is decompressed.
pub(super) const BODY_MAX: usize = 4 * 1024 * 1024;
/// When to try again where something can't be taken in at the moment.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// What takes spans and log records in.
#[derive(Debug, Clone)]
pub(super) struct Otlp {
    pub(super) service: Service,
    /// The environment of a span that names none.
    pub(super) default_environment: Arc<Environment>,
    /// The name of the evaluation that is the quality; none for any.
    pub(super) evaluation: Option<Arc<str>>,
}

/// What was refused of an export.
#[derive(Debug, Default, PartialEq)]
struct Refused {
    /// How many spans, or log records. 0 where only evaluations in spans were.
    count: i64,
    /// Why.
    message: String,
}

/// The routes, and the document that describes them.
pub(super) fn routes() -> (Router<Otlp>, OpenApi) {
    OpenApiRouter::new()
        .routes(routes!(http::traces))
        .routes(routes!(http::logs))
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .split_for_parts()
}

impl Otlp {
    async fn traces(&self, request: &ExportTraceServiceRequest) -> Result<Option<Refused>, Error> {
        let batch = Batch::of_traces(request, self);
        let taken = batch.report(&self.service).await.map_err(to_retry)?;
        self.count("traces", &taken);
        Ok(refused(taken.refused_outcomes, &taken))
    }

    async fn logs(&self, request: &ExportLogsServiceRequest) -> Result<Option<Refused>, Error> {
        let batch = Batch::of_logs(request, self);
        let taken = batch.report(&self.service).await.map_err(to_retry)?;
        self.count("logs", &taken);
        Ok(refused(taken.refused_scores, &taken))
    }

    fn evaluation(&self) -> Option<&str> {
        self.evaluation.as_deref()
    }

    fn count(&self, signal: &'static str, taken: &Taken) {
        let results = [
            ("outcome", taken.outcomes),
            ("score", taken.scores),
            ("dropped", taken.dropped),
            ("refused", taken.refused_outcomes + taken.refused_scores),
        ];
        for (result, count) in results {
            if count > 0 {
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                self.service.metrics().otlp_items(signal, result, count);
            }
        }
    }
}

/// What is said of it where anything was refused.
fn refused(count: usize, taken: &Taken) -> Option<Refused> {
    let all = taken.refused_outcomes + taken.refused_scores;
    (all > 0).then(|| Refused {
        count: i64::try_from(count).unwrap_or(i64::MAX),
        message: format!("{all} refused; the first because {}", taken.why),
    })
}

/// A failure as OTLP's clients understand it: they send again what was not taken in only where
/// they are told that it is unavailable, and when to.
fn to_retry(error: Error) -> Error {
    let unavailable = |what| Error::Unavailable {
        what,
        retry_after: RETRY_AFTER,
    };
    match error {
        // Too many reports wait to be stored.
        Error::Busy(_) => unavailable("the collector of outcomes"),
        Error::Conflict { .. } => unavailable("the storage"),
        Error::Invalid(_)
        | Error::NotFound { .. }
        | Error::NothingServed { .. }
        | Error::Denied { .. }
        | Error::KeyUsed
        | Error::TooMany(_)
        | Error::CorruptRow { .. }
        | Error::Unavailable { .. }
        | Error::Internal => error,
    }
}
