//! OTLP: spans and log records as outcomes and scores. `clients/otel` has OpenTelemetry's own SDK.

use std::io::Read as _;

use delos_deploy::domain::Timestamp;
use flate2::{Compression, read::GzEncoder};
use opentelemetry_proto::tonic::{
    collector::{
        logs::v1::{
            ExportLogsServiceRequest, ExportLogsServiceResponse,
            logs_service_client::LogsServiceClient,
        },
        metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
        trace::v1::{
            ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
            trace_service_client::TraceServiceClient,
        },
    },
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Event, status::StatusCode},
};
use prost::Message;
use serde_json::{Value, json};
use tonic::{Code, codec::CompressionEncoding};

use crate::harness::{
    App, Storage,
    http::{Answer, get, send},
    on_every_storage,
    users::roll_out,
};

const PROTOBUF: (&str, &str) = ("content-type", "application/x-protobuf");
const JSON: (&str, &str) = ("content-type", "application/json");
const GZIP: (&str, &str) = ("content-encoding", "gzip");
const BODY_MAX: usize = 4 * 1024 * 1024;

/// Everybody gets either version, half and half.
fn canary() -> Value {
    json!({"type": "DEPLOYMENT_TYPE_CANARY", "initial_percentage": 50, "interval_seconds": 3600})
}

async fn status(app: &App, id: &str) -> Value {
    let path = format!("/v1/deployments/{id}/status");
    app.rest("GET", &path, None).await.json()
}

/// The samples of a metric with exactly these labels, added up.
async fn counted(app: &App, signal: &str, result: &str) -> f64 {
    let answer = get(&app.address, "/metrics").await.unwrap();
    let labels = [
        format!("signal=\"{signal}\""),
        format!("result=\"{result}\""),
    ];
    let meant = |line: &&str| {
        line.starts_with("deploy_otlp_items_total{") && labels.iter().all(|it| line.contains(it))
    };
    let values = answer.text().lines().filter(meant);
    values
        .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
        .sum()
}

fn nanos(at: Timestamp) -> u64 {
    u64::try_from(at.timestamp_nanos_opt().unwrap()).unwrap()
}

fn of(name: &str, value: Any) -> KeyValue {
    KeyValue {
        key: name.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(name: &str, value: &str) -> KeyValue {
    of(name, Any::StringValue(value.into()))
}

/// A span of 200 milliseconds, with this number.
fn span(app: &App, number: u64, attributes: Vec<KeyValue>) -> Span {
    let start = nanos(app.now()) - 1_000_000_000;
    Span {
        trace_id: [&[7; 8][..], &number.to_be_bytes()].concat(),
        span_id: (number + 1).to_be_bytes().into(),
        name: "chat".into(),
        start_time_unix_nano: start,
        end_time_unix_nano: start + 200_000_000,
        attributes,
        ..Span::default()
    }
}

/// A call of a version of `greeting` for a user of its own.
fn call(app: &App, number: u64, version: i64) -> Span {
    let attributes = vec![
        text("gen_ai.prompt.name", "greeting"),
        of("gen_ai.prompt.version", Any::IntValue(version)),
        text("delos.unit", &format!("user-{number}")),
    ];
    span(app, number, attributes)
}

fn failed(span: Span) -> Span {
    let status = Some(Status {
        code: StatusCode::Error.into(),
        ..Status::default()
    });
    Span { status, ..span }
}

fn result(name: &str, score: f64) -> Vec<KeyValue> {
    vec![
        text("gen_ai.evaluation.name", name),
        of("gen_ai.evaluation.score.value", Any::DoubleValue(score)),
    ]
}

/// An evaluation as an event of the span.
fn evaluated(mut span: Span, name: &str, score: f64) -> Span {
    span.events.push(Event {
        name: "gen_ai.evaluation.result".into(),
        attributes: result(name, score),
        time_unix_nano: span.end_time_unix_nano,
        ..Event::default()
    });
    span
}

/// An evaluation of a span as a log record.
fn record(of: &Span, name: &str, score: f64) -> LogRecord {
    LogRecord {
        trace_id: of.trace_id.clone(),
        span_id: of.span_id.clone(),
        event_name: "gen_ai.evaluation.result".into(),
        time_unix_nano: of.end_time_unix_nano,
        attributes: result(name, score),
        ..LogRecord::default()
    }
}

fn traces(spans: Vec<Span>) -> ExportTraceServiceRequest {
    let environment = text("deployment.environment.name", "production");
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "chat"), environment],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

fn logs(log_records: Vec<LogRecord>) -> ExportLogsServiceRequest {
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
}

/// Exports over gRPC; returns what was refused.
async fn export(app: &App, spans: Vec<Span>) -> Option<ExportTracePartialSuccess> {
    let mut client = TraceServiceClient::new(app.channel().await);
    let response = client.export(traces(spans)).await.unwrap().into_inner();
    response.partial_success
}

async fn export_logs(app: &App, records: Vec<LogRecord>) -> ExportLogsServiceResponse {
    let mut client = LogsServiceClient::new(app.channel().await);
    client.export(logs(records)).await.unwrap().into_inner()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut packed = Vec::new();
    let mut encoder = GzEncoder::new(plain, Compression::fast());
    encoder.read_to_end(&mut packed).unwrap();
    packed
}

async fn post(app: &App, path: &str, headers: &[(&str, &str)], body: Vec<u8>) -> Answer {
    let answer = send(&app.address, "POST", path, headers, body.into()).await;
    answer.unwrap()
}

on_every_storage! {
    async fn spans_of_a_rollout_are_outcomes_and_all_others_are_dropped(app: &App) {
        let id = roll_out(app, canary()).await;
        let mut spans: Vec<_> = (0..10).map(|number| call(app, number, 1)).collect();
        spans.extend((10..20).map(|number| call(app, number, 2)));
        spans[19] = failed(spans[19].clone());
        // Someone else's.
        spans.push(span(app, 20, vec![text("http.route", "/chat")]));
        spans.push(call(app, 21, 9));
        let unknown = [text("gen_ai.prompt.name", "unheard-of"), text("gen_ai.prompt.version", "1")];
        spans.push(span(app, 22, unknown.into()));
        let mut preview = call(app, 23, 2);
        preview.attributes.push(text("delos.deployment.arm", "preview"));
        spans.push(evaluated(preview, "relevance", 0.0));
        assert_eq!(export(app, spans.clone()).await, None);
        // What is sent again counts once.
        assert_eq!(export(app, spans).await, None);

        let status = status(app, &id).await;
        let (current, baseline) = (&status["current_metrics"], &status["baseline_metrics"]);
        assert_eq!((&current["request_count"], &baseline["request_count"]), (&json!(10), &json!(10)));
        assert_eq!((&current["error_rate"], &baseline["error_rate"]), (&json!(0.1), &json!(0.0)));
        assert_eq!(current["avg_latency_ms"], 200.0);
        assert_eq!(counted(app, "traces", "outcome").await, 40.0);
        assert_eq!(counted(app, "traces", "dropped").await, 10.0);
        assert_eq!(counted(app, "traces", "score").await, 0.0);
    }

    async fn an_evaluation_counts_before_and_after_its_span_as_record_and_as_event(app: &App) {
        let id = roll_out(app, canary()).await;
        let calls: Vec<_> = (0..4).map(|number| call(app, number, 1)).collect();
        let early = export_logs(app, vec![record(&calls[0], "relevance", 0.2)]).await;
        assert_eq!(early.partial_success, None);
        let own = evaluated(calls[1].clone(), "relevance", 0.4);
        let mut below = evaluated(span(app, 100, Vec::new()), "relevance", 0.6);
        below.trace_id = calls[2].trace_id.clone();
        below.parent_span_id = calls[2].span_id.clone();
        let spans = vec![calls[0].clone(), own, below, calls[2].clone(), calls[3].clone()];
        assert_eq!(export(app, spans).await, None);
        let noise = LogRecord {
            event_name: "gen_ai.client.inference.operation.details".into(),
            ..record(&calls[3], "relevance", 0.9)
        };
        let late = export_logs(app, vec![noise, record(&calls[3], "relevance", 0.8)]).await;
        assert_eq!(late.partial_success, None);

        let baseline = status(app, &id).await["baseline_metrics"].clone();
        assert_eq!((&baseline["request_count"], &baseline["score_count"]), (&json!(4), &json!("4")));
        let quality = baseline["quality_score"].as_f64().unwrap();
        assert!((quality - 0.5).abs() < 1e-9, "{quality}");
        assert_eq!(counted(app, "traces", "score").await, 2.0);
        assert_eq!(counted(app, "logs", "score").await, 2.0);
        assert_eq!(counted(app, "logs", "dropped").await, 1.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cant_be_right_is_refused_and_said_and_the_rest_counts() {
    let app = App::start(Storage::Memory).await;
    let id = roll_out(&app, canary()).await;
    let mut future = call(&app, 1, 1);
    future.start_time_unix_nano += 120_000_000_000;
    future.end_time_unix_nano += 120_000_000_000;
    let refused = export(&app, vec![call(&app, 0, 1), future]).await.unwrap();
    assert_eq!(refused.rejected_spans, 1);
    assert!(
        refused.error_message.contains("a minute ahead"),
        "{refused:?}"
    );

    // The call counts, and what is no score is said.
    let odd = evaluated(call(&app, 2, 1), "stars", 4.0);
    let warned = export(&app, vec![odd]).await.unwrap();
    assert_eq!(warned.rejected_spans, 0);
    assert!(
        warned.error_message.contains("must be 0 to 1"),
        "{warned:?}"
    );
    let first = call(&app, 0, 1);
    let answer = export_logs(&app, vec![record(&first, "stars", f64::NAN)]).await;
    let refused = answer.partial_success.unwrap();
    assert_eq!(refused.rejected_log_records, 1);

    let baseline = status(&app, &id).await["baseline_metrics"].clone();
    assert_eq!(
        (&baseline["request_count"], &baseline["score_count"]),
        (&json!(2), &json!("0"))
    );
    assert_eq!(counted(&app, "traces", "refused").await, 2.0);
    assert_eq!(counted(&app, "logs", "refused").await, 1.0);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_evaluation_can_be_the_quality() {
    let only = [("DELOS_OTLP_EVALUATION_NAME", "relevance")];
    let app = App::start_with(Storage::Memory, &only).await;
    let id = roll_out(&app, canary()).await;
    let span = evaluated(call(&app, 0, 1), "toxicity", 0.0);
    let span = evaluated(span, "relevance", 0.7);
    assert_eq!(export(&app, vec![span, call(&app, 1, 1)]).await, None);
    let second = call(&app, 1, 1);
    let records = vec![
        record(&second, "toxicity", 0.0),
        record(&second, "relevance", 0.9),
    ];
    export_logs(&app, records).await;
    let baseline = status(&app, &id).await["baseline_metrics"].clone();
    assert_eq!(baseline["score_count"], "2");
    assert_eq!(baseline["quality_score"], 0.8);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_export_may_be_larger_than_a_report() {
    let app = App::start(Storage::Memory).await;
    let id = roll_out(&app, canary()).await;
    let calls: Vec<_> = (0..2500).map(|number| call(&app, number, 1)).collect();
    let records = calls.iter().map(|call| record(call, "relevance", 0.5));
    export_logs(&app, records.collect()).await;
    assert_eq!(export(&app, calls).await, None);
    let baseline = status(&app, &id).await["baseline_metrics"].clone();
    assert_eq!(
        (&baseline["request_count"], &baseline["score_count"]),
        (&json!(2500), &json!("2500"))
    );
    // Nothing is an export too.
    assert_eq!(export(&app, Vec::new()).await, None);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn http_takes_protobuf_and_json_plain_and_compressed() {
    let app = App::start(Storage::Memory).await;
    let id = roll_out(&app, canary()).await;
    let of_number = |number| traces(vec![call(&app, number, 1)]);
    let json_of = |number| serde_json::to_vec(&of_number(number)).unwrap();
    let with_charset = ("content-type", "application/json; charset=utf-8");
    for (headers, body, answered) in [
        (&[PROTOBUF][..], of_number(0).encode_to_vec(), &b""[..]),
        (&[PROTOBUF, GZIP], gzip(&of_number(1).encode_to_vec()), b""),
        (&[JSON], json_of(2), b"{}"),
        (&[JSON, GZIP], gzip(&json_of(3)), b"{}"),
        (
            &[with_charset, ("content-encoding", "identity")],
            json_of(4),
            b"{}",
        ),
    ] {
        let answer = post(&app, "/v1/traces", headers, body).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let kind = headers[0].1.split(';').next().unwrap();
        assert_eq!(answer.header("content-type"), kind);
        assert_eq!(answer.body, answered);
    }
    let judged = |number| logs(vec![record(&call(&app, number, 1), "relevance", 0.5)]);
    let answer = post(&app, "/v1/logs", &[PROTOBUF], judged(0).encode_to_vec()).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b""[..]));
    let body = serde_json::to_vec(&judged(1)).unwrap();
    let answer = app.rest_with("POST", "/v1/logs", &[JSON], body).await;
    assert_eq!((answer.status, &answer.body[..]), (200, &b"{}"[..]));
    let baseline = status(&app, &id).await["baseline_metrics"].clone();
    assert_eq!(
        (&baseline["request_count"], &baseline["score_count"]),
        (&json!(5), &json!("2"))
    );

    let odd = traces(vec![evaluated(call(&app, 9, 1), "stars", 4.0)]);
    let answer = post(&app, "/v1/traces", &[PROTOBUF], odd.encode_to_vec()).await;
    let answer = ExportTraceServiceResponse::decode(answer.body).unwrap();
    assert_eq!(answer.partial_success.unwrap().rejected_spans, 0);
    let odd = logs(vec![record(&call(&app, 9, 1), "stars", 4.0)]);
    let body = serde_json::to_vec(&odd).unwrap();
    let answer = app
        .rest_with("POST", "/v1/logs", &[JSON], body)
        .await
        .json();
    assert_eq!(answer["partialSuccess"]["rejectedLogRecords"], "1");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_http_cant_read_is_refused_in_its_own_encoding() {
    let app = App::start(Storage::Memory).await;
    let bomb = gzip(&vec![0; BODY_MAX + 1]);
    let long = vec![b' '; BODY_MAX + 1];
    let brotli = ("content-encoding", "br");
    let plain = ("content-type", "text/plain");
    for (headers, body, status) in [
        (&[JSON][..], b"{".to_vec(), 400),
        (&[JSON], br#"{"resourceSpans": 1}"#.to_vec(), 400),
        (&[JSON], b" []".to_vec(), 400),
        (&[JSON, GZIP], b"{}".to_vec(), 400),
        (&[JSON], long.clone(), 413),
        (&[JSON, GZIP], bomb.clone(), 413),
        (&[JSON, brotli], b"{}".to_vec(), 415),
        (&[plain], b"{}".to_vec(), 415),
        (&[], b"{}".to_vec(), 415),
        (&[JSON], b"{}".to_vec(), 200),
    ] {
        let answer = app.rest_with("POST", "/v1/traces", headers, body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        if status != 200 {
            assert_ne!(answer.json()["message"], "", "{answer:?}");
        }
    }
    for (headers, body, status, code) in [
        (
            &[PROTOBUF][..],
            b"\xff\xff".to_vec(),
            400,
            Code::InvalidArgument,
        ),
        (&[PROTOBUF, GZIP], bomb, 413, Code::ResourceExhausted),
        (&[PROTOBUF], long, 413, Code::ResourceExhausted),
        (&[PROTOBUF, brotli], Vec::new(), 415, Code::InvalidArgument),
    ] {
        let answer = post(&app, "/v1/logs", headers, body).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert_eq!(answer.header("content-type"), PROTOBUF.1);
        let failure = tonic_types::Status::decode(answer.body).unwrap();
        assert_eq!(Code::from(failure.code), code, "{failure:?}");
        assert!(!failure.message.is_empty());
    }
    // What is not served.
    let answer = post(&app, "/v1/metrics", &[PROTOBUF], Vec::new()).await;
    assert_eq!(answer.status, 404);
    let answer = app.rest("GET", "/v1/traces", None).await;
    assert_eq!(answer.status, 405);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_takes_gzip_up_to_the_limit_and_no_metrics() {
    let app = App::start(Storage::Memory).await;
    let id = roll_out(&app, canary()).await;
    let mut client =
        TraceServiceClient::new(app.channel().await).send_compressed(CompressionEncoding::Gzip);
    client.export(traces(vec![call(&app, 0, 1)])).await.unwrap();
    let baseline = status(&app, &id).await["baseline_metrics"].clone();
    assert_eq!(baseline["request_count"], 1);

    // A megabyte is more than REST takes, and not too much.
    let padded = |bytes| {
        let padding = text("gen_ai.input.messages", &"x".repeat(bytes));
        traces(vec![span(&app, 1, vec![padding])])
    };
    client.export(padded(2 * 1024 * 1024)).await.unwrap();
    let too_large = client.export(padded(BODY_MAX)).await.unwrap_err();
    assert_eq!(too_large.code(), Code::ResourceExhausted, "{too_large:?}");
    let mut plain = TraceServiceClient::new(app.channel().await);
    let too_large = plain.export(padded(BODY_MAX)).await.unwrap_err();
    assert_eq!(too_large.code(), Code::ResourceExhausted, "{too_large:?}");

    let mut metrics = MetricsServiceClient::new(app.channel().await);
    let not_served = metrics.export(ExportMetricsServiceRequest::default()).await;
    assert_eq!(not_served.unwrap_err().code(), Code::Unimplemented);
    let metrics = get(&app.address, "/metrics").await.unwrap();
    let method = "method=\"opentelemetry.proto.collector.trace.v1.TraceService/Export\"";
    assert!(metrics.text().contains(method));
    app.finish().await;
}
