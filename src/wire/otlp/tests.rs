//! What is read of a span and of an evaluation, name by name.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::LogRecord,
    trace::v1::{Span, Status, span::Event, status::StatusCode},
};

use super::{
    answer::{Encoding, ExportFailure},
    attributes::{self, Attributes},
    evaluation, span, to_retry,
};
use crate::{
    domain::outcome::{OutcomeReport, ScoreReport},
    service::Error,
};

const EVALUATION: &str = "gen_ai.evaluation.result";
const SPAN: &str = "01010101010101010101010101010101-0202020202020202";
const PARENT: &str = "01010101010101010101010101010101-0303030303030303";

fn text(name: &str, value: &str) -> KeyValue {
    of(name, Value::StringValue(value.into()))
}

fn of(name: &str, value: Value) -> KeyValue {
    KeyValue {
        key: name.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn call(attributes: &[KeyValue]) -> Span {
    Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        parent_span_id: vec![3; 8],
        start_time_unix_nano: 1_000_000_000,
        end_time_unix_nano: 1_250_500_000,
        attributes: attributes.to_vec(),
        ..Span::default()
    }
}

/// A call of version 3 of `greeting`, with more said of it.
fn greeting(more: &[KeyValue]) -> Span {
    let mut attributes = vec![
        text("gen_ai.prompt.name", "greeting"),
        text("gen_ai.prompt.version", "3"),
    ];
    attributes.extend_from_slice(more);
    call(&attributes)
}

fn read(span: &Span, resource: &[KeyValue]) -> Option<OutcomeReport> {
    let attributes = Attributes::new(&span.attributes, resource);
    span::outcome(span, &attributes, "production")
}

fn outcome(more: &[KeyValue]) -> OutcomeReport {
    read(&greeting(more), &[]).unwrap()
}

#[test]
fn a_call_becomes_an_outcome() {
    let expected = OutcomeReport {
        id: SPAN.into(),
        prompt_id: "greeting".into(),
        environment: "production".into(),
        version: 3,
        unit: None,
        at: Some(Ok("1970-01-01T00:00:01Z".parse().unwrap())),
        error: false,
        latency_ms: Some(250.5),
        quality_score: None,
        cost_usd: None,
    };
    assert_eq!(outcome(&[]), expected);
}

#[test]
fn a_prompt_is_read_by_every_name_of_it_and_the_first_counts() {
    for name in attributes::PROMPT_NAME {
        for version in attributes::PROMPT_VERSION {
            let span = call(&[text(name, "greeting"), of(version, Value::IntValue(7))]);
            let outcome = read(&span, &[]).unwrap();
            assert_eq!(
                (&*outcome.prompt_id, outcome.version),
                ("greeting", 7),
                "{name} {version}"
            );
        }
    }
    let others = [
        text("traceloop.prompt.key", "another"),
        text("traceloop.prompt.version", "9"),
    ];
    let both = outcome(&others);
    assert_eq!((&*both.prompt_id, both.version), ("greeting", 3));
}

#[test]
fn a_version_is_a_number_or_the_span_is_dropped() {
    let version = |value| {
        let span = call(&[
            text("gen_ai.prompt.name", "greeting"),
            of("gen_ai.prompt.version", value),
        ]);
        read(&span, &[]).map(|outcome| outcome.version)
    };
    assert_eq!(version(Value::IntValue(3)), Some(3));
    for (written, number) in [("3", Some(3)), ("v3", Some(3)), ("V12", Some(12))] {
        assert_eq!(version(Value::StringValue(written.into())), number);
    }
    for written in [
        "",
        "v",
        "vv3",
        "3.0",
        "-3",
        "+3",
        "production",
        "99999999999",
    ] {
        assert_eq!(
            version(Value::StringValue(written.into())),
            None,
            "{written}"
        );
    }
    assert_eq!(version(Value::BoolValue(true)), None);
}

#[test]
fn a_span_that_says_too_little_is_dropped() {
    let name = text("gen_ai.prompt.name", "greeting");
    let version = text("gen_ai.prompt.version", "3");
    assert_eq!(read(&call(&[]), &[]), None);
    assert_eq!(read(&call(std::slice::from_ref(&name)), &[]), None);
    assert_eq!(read(&call(std::slice::from_ref(&version)), &[]), None);
    // What a resource says is of the application, not of a call.
    assert_eq!(read(&call(&[]), &[name, version]), None);
    for (trace_id, span_id) in [
        (vec![], vec![2; 8]),
        (vec![1; 16], vec![]),
        (vec![0; 16], vec![2; 8]),
        (vec![1; 16], vec![2; 9]),
    ] {
        let span = Span {
            trace_id,
            span_id,
            ..greeting(&[])
        };
        assert_eq!(read(&span, &[]), None);
    }
}

#[test]
fn a_preview_is_dropped() {
    for name in attributes::ARM {
        assert_eq!(read(&greeting(&[text(name, "preview")]), &[]), None);
        assert_eq!(read(&greeting(&[text(name, "ARM_PREVIEW")]), &[]), None);
        assert!(read(&greeting(&[text(name, "candidate")]), &[]).is_some());
    }
}

#[test]
fn the_environment_is_the_spans_or_its_resources_or_the_configured_one() {
    for name in attributes::ENVIRONMENT {
        let said = [text(name, "staging")];
        assert_eq!(outcome(&said).environment, "staging", "{name}");
        let of_resource = read(&greeting(&[]), &said).unwrap();
        assert_eq!(of_resource.environment, "staging", "{name}");
    }
    let resource = [text("deployment.environment.name", "staging")];
    let span = greeting(&[text("delos.environment", "canary")]);
    assert_eq!(read(&span, &resource).unwrap().environment, "canary");
}

#[test]
fn the_unit_is_the_first_that_is_named() {
    for name in attributes::UNIT {
        assert_eq!(outcome(&[text(name, "ada")]).unit.as_deref(), Some("ada"));
    }
    let all: Vec<_> = attributes::UNIT
        .iter()
        .rev()
        .map(|name| text(name, name))
        .collect();
    assert_eq!(outcome(&all).unit.as_deref(), Some("delos.unit"));
    let number = of("user.id", Value::IntValue(42));
    let unit = outcome(&[text("delos.unit", ""), number]).unit;
    assert_eq!(unit.as_deref(), Some("42"));
}

#[test]
fn an_error_is_the_spans_status_or_its_type() {
    assert!(outcome(&[text("error.type", "timeout")]).error);
    for (code, is_error) in [
        (StatusCode::Unset, false),
        (StatusCode::Ok, false),
        (StatusCode::Error, true),
    ] {
        let status = Some(Status {
            code: code.into(),
            ..Status::default()
        });
        let span = Span {
            status,
            ..greeting(&[])
        };
        assert_eq!(read(&span, &[]).unwrap().error, is_error, "{code:?}");
    }
}

#[test]
fn costs_and_scores_are_read_by_every_name_of_them() {
    for name in attributes::COST {
        let cost = outcome(&[of(name, Value::DoubleValue(0.002))]).cost_usd;
        assert_eq!(cost, Some(0.002), "{name}");
    }
    let quality = outcome(&[of("delos.quality_score", Value::IntValue(1))]).quality_score;
    assert_eq!(quality, Some(1.0));
    assert_eq!(outcome(&[text("delos.cost_usd", "cheap")]).cost_usd, None);
}

#[test]
fn a_span_without_times_has_no_latency() {
    for (start, end) in [(0, 5), (7, 5), (5, 0)] {
        let span = Span {
            start_time_unix_nano: start,
            end_time_unix_nano: end,
            ..greeting(&[])
        };
        assert_eq!(read(&span, &[]).unwrap().latency_ms, None);
    }
}

fn result(score: f64) -> Vec<KeyValue> {
    vec![
        text("gen_ai.evaluation.name", "relevance"),
        of("gen_ai.evaluation.score.value", Value::DoubleValue(score)),
    ]
}

#[test]
fn an_evaluation_is_a_record_of_the_span_that_was_evaluated() {
    let record = LogRecord {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        event_name: EVALUATION.into(),
        observed_time_unix_nano: 2_000_000_000,
        attributes: result(0.8),
        ..LogRecord::default()
    };
    let expected = ScoreReport {
        outcome_id: SPAN.into(),
        quality_score: 0.8,
        at: Some(Ok("1970-01-01T00:00:02Z".parse().unwrap())),
    };
    assert_eq!(evaluation::of_record(&record, None), Some(expected.clone()));
    let of_name = |name| evaluation::of_record(&record, Some(name));
    assert_eq!(of_name("relevance"), Some(expected.clone()));
    assert_eq!(of_name("toxicity"), None);

    // Before events had a name of their own.
    let mut older = LogRecord {
        event_name: String::new(),
        ..record.clone()
    };
    assert_eq!(evaluation::of_record(&older, None), None);
    older.attributes.push(text("event.name", EVALUATION));
    assert_eq!(evaluation::of_record(&older, None), Some(expected));

    let without_span = LogRecord {
        span_id: Vec::new(),
        ..record.clone()
    };
    assert_eq!(evaluation::of_record(&without_span, None), None);
    let mut preview = record.clone();
    preview
        .attributes
        .push(text("delos.deployment.arm", "preview"));
    assert_eq!(evaluation::of_record(&preview, None), None);
    let label_alone = LogRecord {
        attributes: vec![text("gen_ai.evaluation.score.label", "good")],
        ..record
    };
    assert_eq!(evaluation::of_record(&label_alone, None), None);
}

#[test]
fn an_evaluation_in_a_span_is_of_that_call_or_of_the_one_above() {
    let span = Span {
        events: vec![
            Event {
                name: "exception".into(),
                ..Event::default()
            },
            Event {
                name: EVALUATION.into(),
                attributes: result(0.4),
                ..Event::default()
            },
        ],
        ..greeting(&[])
    };
    let events: Vec<_> = evaluation::events(&span).collect();
    assert_eq!(events.len(), 1);
    for (is_outcome, id) in [(true, SPAN), (false, PARENT)] {
        let id_read = evaluation::evaluated(&span, is_outcome).unwrap();
        assert_eq!(id_read, id);
        let score = evaluation::of_event(events[0], id_read, None).unwrap();
        assert_eq!((&*score.outcome_id, score.quality_score), (id, 0.4));
    }
    let root = Span {
        parent_span_id: Vec::new(),
        ..span
    };
    assert_eq!(evaluation::evaluated(&root, false), None);
}

#[test]
fn json_is_read_as_the_protocol_writes_it() {
    let json = r#"{"resourceSpans": [{"resource": {"attributes": [], "later": {}}, "scopeSpans": [{"spans": [{
        "traceId": "0101010101010101010101010101010A", "spanId": "0202020202020202", "parentSpanId": "",
        "name": "chat", "kind": 3, "startTimeUnixNano": "1000000000", "endTimeUnixNano": 1250500000,
        "attributes": [
            {"key": "gen_ai.prompt.name", "value": {"stringValue": "greeting"}},
            {"key": "gen_ai.prompt.version", "value": {"intValue": "3"}},
            {"key": "delos.cost_usd", "value": {"doubleValue": 0.25}},
            {"key": "list", "value": {"arrayValue": {"values": [{"intValue": 1}, {}]}}},
            {"key": "map", "value": {"kvlistValue": {"values": [{"key": "a", "value": {"boolValue": true}}]}}},
            {"key": "later", "value": {"laterValue": 1}},
            {"key": "empty"}
        ],
        "status": {"code": 2}, "later": [1]
    }]}]}], "later": null}"#;
    let request: ExportTraceServiceRequest = serde_json::from_str(json).unwrap();
    let span = &request.resource_spans[0].scope_spans[0].spans[0];
    let outcome = read(span, &[]).unwrap();
    assert_eq!(
        outcome.id,
        "0101010101010101010101010101010a-0202020202020202"
    );
    assert_eq!(
        (outcome.version, outcome.cost_usd, outcome.latency_ms),
        (3, Some(0.25), Some(250.5))
    );
    assert!(outcome.error);
}

#[test]
fn what_cant_be_taken_in_now_is_to_be_sent_again_soon() {
    let conflict = Error::Conflict {
        what: "outcomes",
        id: String::new(),
    };
    for error in [Error::Busy("256 reports wait".into()), conflict] {
        let response = ExportFailure::from(to_retry(error)).encoded(Encoding::Protobuf);
        assert_eq!(response.status(), 503);
        assert_eq!(response.headers()["retry-after"], "1");
    }
    let response = ExportFailure::from(to_retry(Error::Internal)).encoded(Encoding::Json);
    assert_eq!(response.status(), 500);
    assert!(!response.headers().contains_key("retry-after"));
}
