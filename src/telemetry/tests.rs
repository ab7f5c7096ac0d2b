//! Against a real OTLP/gRPC receiver, and against none.

use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderValue};
use opentelemetry_proto::tonic::collector::metrics::v1::metrics_service_server::{
    MetricsService, MetricsServiceServer,
};
use opentelemetry_proto::tonic::collector::metrics::v1::{
    ExportMetricsServiceRequest, ExportMetricsServiceResponse,
};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span as OtlpSpan;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};
use tracing::subscriber::with_default;

use super::*;

const TRACE_ID: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// What was logged.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<u8>>>);

impl Lines {
    pub(super) fn writer(&self) -> BoxMakeWriter {
        let lines = self.clone();
        BoxMakeWriter::new(move || lines.clone())
    }

    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    pub(super) fn with(&self, part: &str) -> Vec<Value> {
        self.text()
            .lines()
            .filter(|line| line.contains(part))
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl io::Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn settings() -> Settings {
    Settings {
        service_version: "1.2.3".to_owned(),
        environment: "test".to_owned(),
        log_level: LogLevel::Info,
        log_format: LogFormat::Json,
        otlp: None,
    }
}

pub(super) fn telemetry_without_otlp() -> Telemetry {
    Telemetry::start(&settings()).unwrap()
}

fn telemetry_to(endpoint: &str, sampling: f64) -> Result<Telemetry, StartError> {
    Telemetry::start(&Settings {
        log_level: LogLevel::Debug,
        otlp: Some(Otlp {
            endpoint: endpoint.to_owned(),
            sampling,
        }),
        ..settings()
    })
}

/// An OTLP receiver that keeps what it gets.
#[derive(Clone, Default)]
struct Collector {
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
    tasks: TaskTracker,
}

impl Collector {
    fn start() -> (Self, SocketAddr) {
        let incoming = TcpIncoming::bind("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = incoming.local_addr().unwrap();
        let collector = Self::default();
        let server = Server::builder()
            .add_service(TraceServiceServer::new(collector.clone()))
            .add_service(MetricsServiceServer::new(collector.clone()))
            .serve_with_incoming(incoming);
        collector.tasks.spawn(server);
        (collector, address)
    }

    fn spans(&self) -> Vec<(Resource, OtlpSpan)> {
        let mut spans = Vec::new();
        for request in self.traces.lock().unwrap().iter() {
            for of_resource in &request.resource_spans {
                let resource = of_resource.resource.clone().unwrap();
                for span in of_resource.scope_spans.iter().flat_map(|of| &of.spans) {
                    spans.push((resource.clone(), span.clone()));
                }
            }
        }
        spans
    }

    fn metric_names(&self) -> Vec<String> {
        let requests = self.metrics.lock().unwrap();
        requests
            .iter()
            .flat_map(|request| &request.resource_metrics)
            .flat_map(|of_resource| &of_resource.scope_metrics)
            .flat_map(|of_scope| &of_scope.metrics)
            .map(|metric| metric.name.clone())
            .collect()
    }
}

#[tonic::async_trait]
impl TraceService for Collector {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.traces.lock().unwrap().push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Collector {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics.lock().unwrap().push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

fn attribute(resource: &Resource, key: &str) -> String {
    use opentelemetry_proto::tonic::common::v1::any_value::Value::StringValue;
    let found = resource.attributes.iter().find(|of| of.key == key).unwrap();
    let Some(StringValue(value)) = found.value.clone().unwrap().value else {
        panic!("{key} is {:?}", found.value);
    };
    value
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn headers(traceparent: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("traceparent", HeaderValue::from_static(traceparent));
    headers.insert("tracestate", HeaderValue::from_static("vendor=1, other=2"));
    headers
}

#[tokio::test]
async fn spans_arrive_in_the_trace_of_the_caller() {
    let (collector, address) = Collector::start();
    let telemetry = telemetry_to(&address.to_string(), 1.0).unwrap();
    let mut outgoing = HeaderMap::new();
    with_default(telemetry.subscriber(), || {
        let request = tracing::info_span!("request", request_id = "r-1");
        context::extract(&headers(PARENT), &request);
        request.in_scope(|| {
            let call = tracing::info_span!("call");
            context::inject(&call, &mut outgoing);
            tracing::info_span!(target: "h2::client", "transport").in_scope(|| ());
        });
    });
    telemetry.shutdown().await;

    let mut spans = collector.spans();
    spans.sort_by(|(_, left), (_, right)| left.name.cmp(&right.name));
    let names: Vec<&str> = spans.iter().map(|(_, span)| span.name.as_str()).collect();
    assert_eq!(names, ["call", "request"], "and none of the transport");
    let (resource, request) = &spans[1];
    assert_eq!(hex(&request.trace_id), TRACE_ID);
    assert_eq!(hex(&request.parent_span_id), "00f067aa0ba902b7");
    let call = &spans[0].1;
    assert_eq!(call.parent_span_id, request.span_id);
    assert_eq!(
        outgoing["traceparent"],
        format!("00-{TRACE_ID}-{}-01", hex(&call.span_id))
    );
    assert_eq!(outgoing["tracestate"], "vendor=1,other=2");
    assert_eq!(attribute(resource, "service.name"), "delos-deploy");
    assert_eq!(attribute(resource, "service.version"), "1.2.3");
    assert_eq!(attribute(resource, "deployment.environment.name"), "test");
}

#[tokio::test]
async fn what_is_not_sampled_is_not_exported_and_metrics_are() {
    let (collector, address) = Collector::start();
    let telemetry = telemetry_to(&format!("http://{address}"), 0.0).unwrap();
    with_default(telemetry.subscriber(), || {
        for _ in 0..20 {
            let span = tracing::info_span!("request");
            let traceparent = context::traceparent(&span).unwrap();
            assert!(traceparent.to_str().unwrap().ends_with("-00"));
            span.in_scope(|| ());
        }
    });
    telemetry
        .metrics()
        .request(Protocol::Grpc, "GetDeployment", "OK", Duration::ZERO);
    telemetry.flush().await;
    assert!(collector.spans().is_empty());
    let names = collector.metric_names();
    for name in [
        "deploy.requests",
        "deploy.request.duration",
        "deploy.build.info",
    ] {
        assert!(names.iter().any(|known| known == name), "{names:?}");
    }
    telemetry.shutdown().await;
    telemetry.shutdown().await;
}

#[tokio::test]
async fn a_caller_s_decision_to_sample_holds() {
    let (collector, address) = Collector::start();
    let telemetry = telemetry_to(&address.to_string(), 0.0).unwrap();
    with_default(telemetry.subscriber(), || {
        let span = tracing::info_span!("request");
        context::extract(&headers(PARENT), &span);
        span.in_scope(|| ());
    });
    telemetry.shutdown().await;
    assert_eq!(collector.spans().len(), 1);
}

#[tokio::test]
async fn a_traceparent_that_means_nothing_begins_a_new_trace() {
    let telemetry = telemetry_to("127.0.0.1:1", 1.0).unwrap();
    with_default(telemetry.subscriber(), || {
        for traceparent in [
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "nonsense",
        ] {
            let span = tracing::info_span!("request");
            context::extract(&headers(traceparent), &span);
            let mut outgoing = HeaderMap::new();
            context::inject(&span, &mut outgoing);
            let written = outgoing["traceparent"].to_str().unwrap();
            assert!(!written.contains(TRACE_ID), "{traceparent}");
            assert!(!outgoing.contains_key("tracestate"), "{traceparent}");
        }
    });
}

#[test]
fn without_otlp_nothing_is_traced() {
    with_default(telemetry_without_otlp().subscriber(), || {
        let span = tracing::info_span!("request");
        context::extract(&headers(PARENT), &span);
        assert_eq!(context::traceparent(&span), None);
    });
}

/// The exporters' threads know only the process's subscriber, so this is the
/// one test that installs it.
#[tokio::test]
async fn a_collector_that_is_not_there_costs_one_warning() {
    let address = StdListener::bind("127.0.0.1:0").unwrap().local_addr();
    let endpoint = address.unwrap().to_string();
    let telemetry = telemetry_to(&endpoint, 1.0).unwrap();
    let lines = Lines::default();
    telemetry
        .subscriber_to(lines.writer(), false)
        .try_init()
        .unwrap();
    assert!(!telemetry.install(), "another is installed already");
    for _ in 0..2 {
        tracing::info_span!("request").in_scope(|| ());
        telemetry.flush().await;
    }
    assert_eq!(lines.with(&endpoint).len(), 1);
    tracing::info_span!("request").in_scope(|| ());
    let before = Instant::now();
    telemetry.shutdown().await;
    assert!(before.elapsed() < Duration::from_secs(2));

    let warnings = lines.with(&endpoint);
    assert_eq!(warnings.len(), 1, "{}", lines.text());
    assert_eq!(warnings[0]["level"], "WARN");
    assert_eq!(warnings[0]["endpoint"], endpoint);
    for crate_name in ["opentelemetry", "hyper", "h2", "tonic", "tower"] {
        let noise = lines.with(&format!("\"target\":\"{crate_name}"));
        assert!(noise.is_empty(), "{noise:?}");
    }
}

#[tokio::test]
async fn a_collector_that_never_answers_does_not_hold_up_a_stop() {
    let silent = StdListener::bind("127.0.0.1:0").unwrap();
    let endpoint = silent.local_addr().unwrap().to_string();
    let telemetry = telemetry_to(&endpoint, 1.0).unwrap();
    let lines = Lines::default();
    let subscriber = telemetry.subscriber_to(lines.writer(), false);
    let guard = tracing::subscriber::set_default(subscriber);
    tracing::info_span!("request").in_scope(|| ());
    let before = Instant::now();
    telemetry.shutdown().await;
    assert!(before.elapsed() < Duration::from_secs(2));
    assert_eq!(lines.with(&endpoint).len(), 1, "{}", lines.text());
    drop(guard);
}

#[tokio::test]
async fn dropped_telemetry_blocks_nobody() {
    let silent = StdListener::bind("127.0.0.1:0").unwrap();
    let telemetry = telemetry_to(&silent.local_addr().unwrap().to_string(), 1.0).unwrap();
    with_default(telemetry.subscriber(), || {
        tracing::info_span!("request").in_scope(|| ());
    });
    let before = Instant::now();
    drop(telemetry);
    assert!(before.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn settings_that_can_not_work_are_refused() {
    for endpoint in [
        "https://collector:4317",
        "collector",
        "",
        "a b:1",
        "grpc://a:1",
    ] {
        let refused = telemetry_to(endpoint, 1.0).unwrap_err();
        assert!(matches!(refused, StartError::Endpoint { .. }), "{endpoint}");
    }
    for sampling in [-0.1, 1.1, f64::NAN] {
        let refused = telemetry_to("collector:4317", sampling).unwrap_err();
        assert!(matches!(refused, StartError::Sampling(_)));
    }
}

#[test]
fn otlp_outside_a_runtime_is_refused() {
    let refused = telemetry_to("collector:4317", 1.0).unwrap_err();
    assert!(matches!(refused, StartError::NoRuntime));
}

fn record_one_of_each(metrics: &Metrics) {
    let method: Arc<str> = Arc::from("/v1/deployments/{id}");
    metrics.request(
        Protocol::Grpc,
        "GetDeployment",
        "OK",
        Duration::from_millis(2),
    );
    metrics.request(Protocol::Http, method, "404", Duration::from_secs(20));
    metrics.transition(
        "approve",
        "pending_approval",
        "pending_gates",
        Cause::Caller,
    );
    metrics.transition("roll_back", "in_progress", "rolled_back", Cause::System);
    metrics.refusal("stale_revision");
    metrics.reconciler_lag(Duration::from_millis(700));
    metrics.reconciler_step(StepOutcome::Fenced);
    metrics.lease_takeover();
    metrics.webhook_call(CallOutcome::Final);
    metrics.observe_pool("write", || (9, 9));
    metrics.observe_pool("write", || (1, 2));
    metrics.observe_pool("read", || (3, 4));
}

const SERIES: &str = r#"
deploy_build_info{version="1.2.3"} 1
deploy_lease_takeovers_total 1
deploy_pool_connections{pool="read",state="idle"} 4
deploy_pool_connections{pool="read",state="in_use"} 3
deploy_pool_connections{pool="write",state="idle"} 2
deploy_pool_connections{pool="write",state="in_use"} 1
deploy_reconciler_lag_seconds_bucket{le="0.5"} 0
deploy_reconciler_lag_seconds_bucket{le="1"} 1
deploy_reconciler_lag_seconds_sum 0.7
deploy_reconciler_steps_total{outcome="done"} 0
deploy_reconciler_steps_total{outcome="failed"} 0
deploy_reconciler_steps_total{outcome="fenced"} 1
deploy_refusals_total{reason="stale_revision"} 1
deploy_request_duration_seconds_bucket{method="GetDeployment",protocol="grpc",le="0.001"} 0
deploy_request_duration_seconds_bucket{method="GetDeployment",protocol="grpc",le="0.0025"} 1
deploy_request_duration_seconds_bucket{method="/v1/deployments/{id}",protocol="http",le="10"} 0
deploy_request_duration_seconds_count{method="/v1/deployments/{id}",protocol="http"} 1
deploy_requests_total{code="404",method="/v1/deployments/{id}",protocol="http"} 1
deploy_requests_total{code="OK",method="GetDeployment",protocol="grpc"} 1
deploy_transitions_total{action="approve",cause="caller",from="pending_approval",to="pending_gates"} 1
deploy_transitions_total{action="roll_back",cause="system",from="in_progress",to="rolled_back"} 1
deploy_webhook_calls_total{outcome="decided"} 0
deploy_webhook_calls_total{outcome="final"} 1
"#;

#[test]
fn prometheus_reads_the_names_that_are_documented() {
    let telemetry = telemetry_without_otlp();
    record_one_of_each(telemetry.metrics());
    record_one_of_each(&Metrics::default());
    let first = telemetry.render_prometheus().unwrap();
    assert_eq!(telemetry.render_prometheus().unwrap(), first);
    for series in SERIES.lines().filter(|line| !line.is_empty()) {
        let times = first.lines().filter(|line| *line == series).count();
        assert_eq!(times, 1, "{series} in\n{first}");
    }
    assert!(!first.contains("otel_scope") && !first.contains("target_info"));
    let families = [
        "deploy_build_info gauge",
        "deploy_lease_takeovers_total counter",
        "deploy_pool_connections gauge",
        "deploy_reconciler_lag_seconds histogram",
        "deploy_reconciler_steps_total counter",
        "deploy_refusals_total counter",
        "deploy_request_duration_seconds histogram",
        "deploy_requests_total counter",
        "deploy_transitions_total counter",
        "deploy_webhook_calls_total counter",
    ];
    let types: Vec<&str> = first
        .lines()
        .filter_map(|l| l.strip_prefix("# TYPE "))
        .collect();
    assert_eq!(types, families);
    assert_eq!(first.matches("# HELP ").count(), families.len());
}

#[test]
fn a_json_line_carries_the_fields_of_all_spans_around_it() {
    let telemetry = Telemetry::start(&Settings {
        log_level: LogLevel::Warn,
        ..settings()
    })
    .unwrap();
    let lines = Lines::default();
    with_default(telemetry.subscriber_to(lines.writer(), false), || {
        let request = tracing::info_span!(
            "request",
            request_id = "r-1",
            status = tracing::field::Empty
        );
        request.record("status", 409);
        let _request = request.enter();
        let _step = tracing::info_span!("step", attempt = 2).entered();
        tracing::info!("not severe enough");
        tracing::warn!(attempt = 3, error = %"a \"quoted\"\nline", "went {}", "wrong");
    });
    let written = lines.with("");
    assert_eq!(written.len(), 1, "{}", lines.text());
    let mut line = written[0].clone();
    let timestamp = line["timestamp"].take();
    assert!(chrono::DateTime::parse_from_rfc3339(timestamp.as_str().unwrap()).is_ok());
    let expected = json!({
        "timestamp": null,
        "level": "WARN",
        "target": "delos_deploy::telemetry::tests",
        "message": "went wrong",
        "request_id": "r-1",
        "status": 409,
        "attempt": 3,
        "error": "a \"quoted\"\nline",
    });
    assert_eq!(line, expected);
}

#[tokio::test]
async fn a_json_line_names_the_trace() {
    let telemetry = telemetry_to("127.0.0.1:1", 1.0).unwrap();
    let lines = Lines::default();
    with_default(telemetry.subscriber_to(lines.writer(), false), || {
        let span = tracing::info_span!("request");
        context::extract(&headers(PARENT), &span);
        span.in_scope(|| tracing::info!("hello"));
    });
    assert_eq!(lines.with("hello")[0]["trace_id"], TRACE_ID);
}

#[test]
fn text_is_for_people_and_has_no_colours_in_a_file() {
    let telemetry = Telemetry::start(&Settings {
        log_format: LogFormat::Text,
        ..settings()
    })
    .unwrap();
    let lines = Lines::default();
    with_default(telemetry.subscriber_to(lines.writer(), false), || {
        let _span = tracing::info_span!("request", request_id = "r-1").entered();
        tracing::info!("hello");
    });
    let text = lines.text();
    assert!(text.contains("request{request_id=\"r-1\"}"), "{text}");
    assert!(text.contains("hello") && !text.contains('\u{1b}'), "{text}");
}
