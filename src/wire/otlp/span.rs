//! A span as what became of a request.

use std::fmt::Write as _;

use chrono::DateTime;
use opentelemetry_proto::tonic::trace::v1::{Span, status::StatusCode};

use super::attributes::{Attributes, COST, ENVIRONMENT, ERROR_TYPE, PROMPT_NAME, QUALITY, UNIT};
use crate::domain::{Timestamp, outcome::OutcomeReport};

/// A trace's id and a span's, in bytes.
const TRACE_ID_BYTES: usize = 16;
const SPAN_ID_BYTES: usize = 8;

/// The outcome of a model's call; none where the span does not say which version of which prompt it
/// was, or where nobody but who asked for a preview has seen it.
pub(super) fn outcome(
    span: &Span,
    attributes: &Attributes<'_>,
    default_environment: &str,
) -> Option<OutcomeReport> {
    if attributes.is_preview() {
        return None;
    }
    let prompt_id = attributes.text(PROMPT_NAME)?.into_owned();
    let version = attributes.version()?;
    let id = outcome_id(&span.trace_id, &span.span_id)?;
    let environment = attributes.text_or_resource(ENVIRONMENT);
    let status = span.status.as_ref().map(|status| status.code);
    let is_error = status == Some(StatusCode::Error as i32);
    Some(OutcomeReport {
        id,
        prompt_id,
        environment: environment.map_or_else(|| default_environment.into(), Into::into),
        version,
        unit: attributes.text(UNIT).map(Into::into),
        // The version was chosen before the call.
        at: moment(span.start_time_unix_nano).map(Ok),
        error: is_error || attributes.text(ERROR_TYPE).is_some(),
        latency_ms: latency_ms(span),
        quality_score: attributes.number(QUALITY),
        cost_usd: attributes.number(COST),
    })
}

/// The id of the outcome that a span is; none where the span has none.
pub(super) fn outcome_id(trace_id: &[u8], span_id: &[u8]) -> Option<String> {
    let is_id = |id: &[u8], length| id.len() == length && id.iter().any(|byte| *byte != 0);
    let known = is_id(trace_id, TRACE_ID_BYTES) && is_id(span_id, SPAN_ID_BYTES);
    known.then(|| format!("{}-{}", hex(trace_id), hex(span_id)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String can't fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A time; none where it is not known.
pub(super) fn moment(unix_nanos: u64) -> Option<Timestamp> {
    let nanos = i64::try_from(unix_nanos).ok().filter(|nanos| *nanos > 0)?;
    Some(DateTime::from_timestamp_nanos(nanos))
}

fn latency_ms(span: &Span) -> Option<f64> {
    let (start, end) = (span.start_time_unix_nano, span.end_time_unix_nano);
    let nanos = (start > 0).then(|| end.checked_sub(start)).flatten()?;
    Some(nanos as f64 / 1e6)
}
