//! The running service against an OTLP receiver, and with none there.

use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use opentelemetry_proto::tonic::collector::{
    metrics::v1::{
        ExportMetricsServiceRequest, ExportMetricsServiceResponse,
        metrics_service_server::{MetricsService, MetricsServiceServer},
    },
    trace::v1::{
        ExportTraceServiceRequest, ExportTraceServiceResponse,
        trace_service_server::{TraceService, TraceServiceServer},
    },
};
use tonic::{Request, Response, Status};

use crate::harness::{Storage, binary::Binary, http, settings};

/// Keeps what it receives.
#[derive(Clone, Default)]
struct Receiver {
    traces: Arc<Mutex<Vec<ExportTraceServiceRequest>>>,
    metrics: Arc<Mutex<Vec<ExportMetricsServiceRequest>>>,
}

#[tonic::async_trait]
impl TraceService for Receiver {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        self.traces.lock().unwrap().push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

#[tonic::async_trait]
impl MetricsService for Receiver {
    async fn export(
        &self,
        request: Request<ExportMetricsServiceRequest>,
    ) -> Result<Response<ExportMetricsServiceResponse>, Status> {
        self.metrics.lock().unwrap().push(request.into_inner());
        Ok(Response::new(Default::default()))
    }
}

impl Receiver {
    /// Starts receiving; returns the endpoint.
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tonic::transport::server::TcpIncoming::from(listener);
        let server = tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(self.clone()))
            .add_service(MetricsServiceServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(incoming));
        address.to_string()
    }

    /// The names of the spans of a trace.
    fn spans(&self, trace_id: &[u8]) -> Vec<String> {
        let traces = self.traces.lock().unwrap();
        let spans = traces
            .iter()
            .flat_map(|request| &request.resource_spans)
            .flat_map(|resource| &resource.scope_spans)
            .flat_map(|scope| &scope.spans);
        spans
            .filter(|span| span.trace_id == trace_id)
            .map(|span| span.name.clone())
            .collect()
    }

    fn metric_names(&self) -> Vec<String> {
        let metrics = self.metrics.lock().unwrap();
        metrics
            .iter()
            .flat_map(|request| &request.resource_metrics)
            .flat_map(|resource| &resource.scope_metrics)
            .flat_map(|scope| scope.metrics.iter().map(|metric| metric.name.clone()))
            .collect()
    }
}

async fn start(endpoint: &str, more: &[(&str, &str)]) -> Binary {
    let mut settings = settings(Storage::Memory, std::path::Path::new("")).await;
    settings.insert("DELOS_TRACING_ENABLED".into(), "true".into());
    settings.insert("DELOS_OBSERVE_ENDPOINT".into(), endpoint.into());
    for (name, value) in more {
        settings.insert((*name).into(), (*value).into());
    }
    tokio::task::spawn_blocking(move || Binary::start(&settings))
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_s_trace_goes_on_here_and_metrics_arrive() {
    let receiver = Receiver::default();
    let mut binary = start(&receiver.start().await, &[]).await;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let parent = format!("00-{trace}-00f067aa0ba902b7-01");
    let answer = http::send(
        &binary.address,
        "GET",
        "/v1/deployments",
        &[("traceparent", &parent)],
        bytes::Bytes::new(),
    )
    .await
    .unwrap();
    assert_eq!(answer.status, 200);
    assert!(
        answer
            .header("traceresponse")
            .starts_with(&format!("00-{trace}-")),
        "{answer:?}"
    );
    // A stop sends what has not been sent yet.
    binary.terminate();
    assert!(binary.wait().success());
    let trace_id = u128::from_str_radix(trace, 16).unwrap().to_be_bytes();
    assert_eq!(receiver.spans(&trace_id), ["GET /v1/deployments"]);
    assert!(
        receiver
            .metric_names()
            .contains(&"deploy.requests".to_owned()),
        "{:?}",
        receiver.metric_names()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn with_a_sampling_of_zero_no_trace_of_our_own_is_sent() {
    let receiver = Receiver::default();
    let mut binary = start(
        &receiver.start().await,
        &[("DELOS_TRACING_SAMPLING", "0.0")],
    )
    .await;
    assert_eq!(
        http::get(&binary.address, "/v1/deployments")
            .await
            .unwrap()
            .status,
        200
    );
    binary.terminate();
    assert!(binary.wait().success());
    assert!(receiver.traces.lock().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_collector_that_is_not_there_costs_one_warning() {
    // A port on which nobody listens.
    let gone = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    let mut binary = start(&gone.to_string(), &[]).await;
    for _ in 0..50 {
        assert_eq!(
            http::get(&binary.address, "/v1/deployments")
                .await
                .unwrap()
                .status,
            200
        );
    }
    let warning = binary.wait_for_line(|line| line["level"] == "WARN");
    assert_eq!(warning["endpoint"], gone.to_string(), "{warning}");
    let since = Instant::now();
    binary.terminate();
    assert!(binary.wait().success());
    assert!(
        since.elapsed() < Duration::from_secs(10),
        "the stop waits for the collector"
    );
    let more = binary.remaining_lines();
    let warnings: Vec<_> = more.iter().filter(|line| line["level"] != "INFO").collect();
    assert!(warnings.is_empty(), "{warnings:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_line_has_the_id_of_its_request() {
    let mut binary = start(
        "localhost:9",
        &[
            ("DELOS_LOG_LEVEL", "debug"),
            ("DELOS_TRACING_ENABLED", "false"),
        ],
    )
    .await;
    http::send(
        &binary.address,
        "GET",
        "/v1/health",
        &[("x-request-id", "ci-7")],
        bytes::Bytes::new(),
    )
    .await
    .unwrap();
    let line = binary.wait_for_line(|line| line["request_id"] == "ci-7");
    assert_eq!(line["message"], "request");
}
