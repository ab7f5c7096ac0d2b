//! Spans and metrics pushed to a collector by OTLP over gRPC.

use std::sync::Arc;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{
    ExporterBuildError, MetricExporter, RetryPolicy, SpanExporter, WithExportConfig as _,
    WithTonicConfig as _,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::metrics::PeriodicReader;
use opentelemetry_sdk::trace::{
    BatchConfig, BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider,
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tracing::Subscriber;
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::LookupSpan;

use super::outage::{Outage, Signal, Watched};
use super::{Otlp, Settings, StartError, logs};

/// With [`EXPORT_LIMIT`] five seconds, the longest that an export can take.
const CONNECT_LIMIT: Duration = Duration::from_secs(2);
const EXPORT_LIMIT: Duration = Duration::from_secs(3);
const METRICS_INTERVAL: Duration = Duration::from_secs(15);
const SPANS_INTERVAL: Duration = Duration::from_secs(2);
/// Spans beyond these are dropped: memory is bounded whatever the collector does.
const SPANS_QUEUE_MAX: usize = 2048;
const SPANS_BATCH_MAX: usize = 512;
const RETRIES_MAX: usize = 2;

/// Who reports: the same for spans and metrics.
pub(super) fn resource(settings: &Settings) -> Resource {
    Resource::builder()
        .with_service_name("delos-deploy")
        .with_attributes([
            KeyValue::new("service.version", settings.service_version.clone()),
            // Tells replicas apart, whose counters would otherwise overwrite each other.
            KeyValue::new("service.instance.id", uuid::Uuid::now_v7().to_string()),
            KeyValue::new("deployment.environment.name", settings.environment.clone()),
        ])
        .build()
}

/// The exporters of one server to one collector.
#[derive(Debug)]
pub(super) struct Push {
    pub(super) spans: SdkTracerProvider,
    outage: Arc<Outage>,
    stop: CancellationToken,
}

impl Push {
    /// Builds the exporters over one connection, which is made when first used.
    pub(super) fn start(
        otlp: &Otlp,
        resource: Resource,
    ) -> Result<(Self, PeriodicReader<Watched<MetricExporter>>), StartError> {
        if !(0.0..=1.0).contains(&otlp.sampling) {
            return Err(StartError::Sampling(otlp.sampling));
        }
        let channel = connect_lazily(&otlp.endpoint)?;
        let outage = Arc::new(Outage::new(otlp.endpoint.clone()));
        let stop = CancellationToken::new();
        let spans = Watched {
            exporter: span_exporter(channel.clone())?,
            signal: Signal::Spans,
            outage: Arc::clone(&outage),
            stop: stop.clone(),
        };
        let metrics = Watched {
            exporter: metric_exporter(channel)?,
            signal: Signal::Metrics,
            outage: Arc::clone(&outage),
            stop: stop.clone(),
        };
        let root = Sampler::TraceIdRatioBased(otlp.sampling);
        let spans = SdkTracerProvider::builder()
            .with_resource(resource)
            .with_sampler(Sampler::ParentBased(Box::new(root)))
            .with_span_processor(BatchSpanProcessor::new(spans, batches()))
            .build();
        let reader = PeriodicReader::builder(metrics)
            .with_interval(METRICS_INTERVAL)
            .build();
        let push = Self {
            spans,
            outage,
            stop,
        };
        Ok((push, reader))
    }

    /// Turns spans of ours into OpenTelemetry's.
    pub(super) fn layer<S>(&self) -> impl Layer<S> + Send + Sync + use<S>
    where
        S: Subscriber + for<'a> LookupSpan<'a> + Send + Sync,
    {
        let tracer: SdkTracer = self.spans.tracer("delos-deploy");
        tracing_opentelemetry::layer()
            .with_tracer(tracer)
            // Source lines, threads and idle times cost on every span and tell an operator little.
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(logs::span_filter())
    }

    /// Calls off the exports under way, and all later ones.
    pub(super) fn give_up(&self) {
        self.outage
            .failed(Signal::Spans, &"no answer before the service stopped");
        self.cancel();
    }

    /// As [`Push::give_up`], without a word.
    pub(super) fn cancel(&self) {
        self.stop.cancel();
    }
}

fn connect_lazily(endpoint: &str) -> Result<Channel, StartError> {
    if Handle::try_current().is_err() {
        return Err(StartError::NoRuntime);
    }
    let refuse = |reason: &str| StartError::Endpoint {
        endpoint: endpoint.to_owned(),
        reason: reason.to_owned(),
    };
    let uri = match endpoint.split_once("://") {
        None => format!("http://{endpoint}"),
        Some(("http", _)) => endpoint.to_owned(),
        Some(_) => return Err(refuse("only `http` is spoken to a collector")),
    };
    let target = Endpoint::from_shared(uri).map_err(|error| refuse(&error.to_string()))?;
    if target.uri().port_u16().is_none() {
        return Err(refuse("it names no port"));
    }
    Ok(target
        .connect_timeout(CONNECT_LIMIT)
        .timeout(EXPORT_LIMIT)
        .connect_lazy())
}

fn span_exporter(channel: Channel) -> Result<SpanExporter, StartError> {
    SpanExporter::builder()
        .with_tonic()
        .with_channel(channel)
        .with_timeout(EXPORT_LIMIT)
        .with_retry_policy(retries())
        .build()
        .map_err(|error| build_error("OTLP span", &error))
}

fn metric_exporter(channel: Channel) -> Result<MetricExporter, StartError> {
    MetricExporter::builder()
        .with_tonic()
        .with_channel(channel)
        .with_timeout(EXPORT_LIMIT)
        .with_retry_policy(retries())
        .build()
        .map_err(|error| build_error("OTLP metric", &error))
}

/// Enough for a connection that broke while idle; a longer outage loses data.
fn retries() -> RetryPolicy {
    RetryPolicy::recommended().with_max_retries(RETRIES_MAX)
}

fn batches() -> BatchConfig {
    BatchConfigBuilder::default()
        .with_max_queue_size(SPANS_QUEUE_MAX)
        .with_max_export_batch_size(SPANS_BATCH_MAX)
        .with_scheduled_delay(SPANS_INTERVAL)
        .build()
}

fn build_error(exporter: &'static str, error: &ExporterBuildError) -> StartError {
    StartError::Exporter {
        exporter,
        reason: error.to_string(),
    }
}
