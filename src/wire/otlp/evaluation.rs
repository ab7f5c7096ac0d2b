//! `gen_ai.evaluation.result`: what an evaluation of an answer came to, as a score of an outcome.
//!
//! It is a log record whose span is the one that was evaluated, or an event of that span, or of a
//! span below it.

use opentelemetry_proto::tonic::{
    common::v1::KeyValue,
    logs::v1::LogRecord,
    trace::v1::{Span, span},
};

use super::{
    attributes::{Attributes, EVALUATION_NAME, EVALUATION_SCORE, EVENT_NAME},
    span::{moment, outcome_id},
};
use crate::domain::outcome::ScoreReport;

/// The name of the event.
const EVENT: &str = "gen_ai.evaluation.result";

/// The evaluations that are an event of a span.
pub(super) fn events(span: &Span) -> impl Iterator<Item = &span::Event> {
    span.events.iter().filter(|event| event.name == EVENT)
}

/// Of which outcome the evaluations are that are events of a span: its own, where it is one, and
/// otherwise that of the span above it.
pub(super) fn evaluated(span: &Span, is_outcome: bool) -> Option<String> {
    let span_id = if is_outcome {
        &span.span_id
    } else {
        &span.parent_span_id
    };
    outcome_id(&span.trace_id, span_id)
}

/// The score that a span's event is.
pub(super) fn of_event(
    event: &span::Event,
    outcome_id: String,
    only: Option<&str>,
) -> Option<ScoreReport> {
    Some(ScoreReport {
        outcome_id,
        quality_score: score(&event.attributes, only)?,
        at: moment(event.time_unix_nano).map(Ok),
    })
}

/// The score that a log record is; none where it is something else, or does not say of which span.
pub(super) fn of_record(record: &LogRecord, only: Option<&str>) -> Option<ScoreReport> {
    let attributes = Attributes::new(&record.attributes, &[]);
    let is_evaluation = if record.event_name.is_empty() {
        attributes.text(EVENT_NAME).as_deref() == Some(EVENT)
    } else {
        record.event_name == EVENT
    };
    if !is_evaluation || attributes.is_preview() {
        return None;
    }
    let at = moment(record.time_unix_nano).or_else(|| moment(record.observed_time_unix_nano));
    Some(ScoreReport {
        outcome_id: outcome_id(&record.trace_id, &record.span_id)?,
        quality_score: score(&record.attributes, only)?,
        at: at.map(Ok),
    })
}

/// The score, where it is a number and of the evaluation that is meant.
fn score(attributes: &[KeyValue], only: Option<&str>) -> Option<f64> {
    let attributes = Attributes::new(attributes, &[]);
    if only.is_some_and(|name| attributes.text(EVALUATION_NAME).as_deref() != Some(name)) {
        return None;
    }
    attributes.number(EVALUATION_SCORE)
}
