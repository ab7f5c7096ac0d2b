//! What the process says about itself: log lines, metrics, spans.
//!
//! [`Telemetry::start`] builds it without touching anything global, so that
//! many servers fit in one process; [`Telemetry::install`] makes its subscriber
//! the process's. Metrics are always readable by
//! [`Telemetry::render_prometheus`]; with [`Settings::otlp`] they and the spans
//! are pushed to a collector too.

pub mod context;
mod logs;
mod metrics;
mod otlp;
mod outage;
mod settings;
#[cfg(test)]
mod tests;

use std::io::IsTerminal as _;
use std::time::Duration;

use opentelemetry::metrics::MeterProvider as _;
use opentelemetry_sdk::error::OTelSdkError;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use prometheus::{Registry, TextEncoder};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::Subscriber;
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

pub use metrics::{CallOutcome, Cause, Label, Metrics, Protocol, StepOutcome};
pub use settings::{LogFormat, LogLevel, Otlp, Settings, UnknownLogFormat, UnknownLogLevel};

/// How long a stop waits for the last export, in all.
const FLUSH_LIMIT: Duration = Duration::from_millis(1500);
/// How long a stop then waits for exports that it has called off.
const ABANDON_LIMIT: Duration = Duration::from_millis(400);

/// The running telemetry of one server. Keep it until the server is gone:
/// dropping it without [`Telemetry::shutdown`] drops what was not exported yet.
#[derive(Debug)]
pub struct Telemetry {
    log_level: LogLevel,
    log_format: LogFormat,
    registry: Registry,
    meters: SdkMeterProvider,
    metrics: Metrics,
    push: Option<otlp::Push>,
}

/// Why telemetry can't start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The collector's address is not `host:port` or `http://host:port`.
    #[error("`{endpoint}` is not the address of an OTLP/gRPC collector: {reason}")]
    Endpoint {
        /// The address as configured.
        endpoint: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The sampling ratio is not one.
    #[error("the sampling ratio {0} is not between 0 and 1")]
    Sampling(f64),
    /// Exporting needs a Tokio runtime around it.
    #[error("OTLP export must be started inside a Tokio runtime")]
    NoRuntime,
    /// An exporter could not be built.
    #[error("the {exporter} exporter can't be built: {reason}")]
    Exporter {
        /// Which one.
        exporter: &'static str,
        /// What it said.
        reason: String,
    },
}

/// Why the metrics could not be written as text.
#[derive(Debug, thiserror::Error)]
#[error("the metrics can't be rendered")]
pub struct RenderError(#[from] prometheus::Error);

impl Telemetry {
    /// Builds the providers and instruments. Connects to nothing and installs
    /// nothing.
    ///
    /// # Errors
    /// Where the settings can't work; a collector that doesn't answer is no
    /// such case.
    pub fn start(settings: &Settings) -> Result<Self, StartError> {
        let registry = Registry::new();
        let resource = otlp::resource(settings);
        let reader = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            // One process, one scope: these labels would say the same on every series.
            .scope_info_enabled(false)
            .without_target_info()
            .build()
            .map_err(|error| exporter_error("Prometheus", &error))?;
        let mut meters = SdkMeterProvider::builder()
            .with_resource(resource.clone())
            .with_reader(reader);
        let mut push = None;
        if let Some(otlp) = &settings.otlp {
            let (started, reader) = otlp::Push::start(otlp, resource)?;
            meters = meters.with_reader(reader);
            push = Some(started);
        }
        let meters = meters.build();
        let metrics = Metrics::new(&meters.meter("delos-deploy"));
        metrics.build_info(&settings.service_version);
        Ok(Self {
            log_level: settings.log_level,
            log_format: settings.log_format,
            registry,
            meters,
            metrics,
            push,
        })
    }

    /// The instruments; cheap to clone.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Makes [`Telemetry::subscriber`] the process's. Says whether it did: where
    /// another is installed already, that one stays.
    pub fn install(&self) -> bool {
        self.subscriber().try_init().is_ok()
    }

    /// The log lines to standard output and, with OTLP, the spans; for
    /// `tracing::subscriber::with_default` and `WithSubscriber`.
    #[must_use]
    pub fn subscriber(&self) -> impl Subscriber + Send + Sync + use<> {
        let ansi = std::io::stdout().is_terminal();
        self.subscriber_to(BoxMakeWriter::new(std::io::stdout), ansi)
    }

    fn subscriber_to(
        &self,
        writer: BoxMakeWriter,
        ansi: bool,
    ) -> impl Subscriber + Send + Sync + use<> {
        tracing_subscriber::registry()
            .with(logs::layer(self.log_level, self.log_format, writer, ansi))
            .with(self.push.as_ref().map(otlp::Push::layer))
    }

    /// All metrics in Prometheus' text format (`text/plain; version=0.0.4`).
    ///
    /// # Errors
    /// Where a series can't be encoded, which would be a mistake of ours.
    pub fn render_prometheus(&self) -> Result<String, RenderError> {
        Ok(TextEncoder::new().encode_to_string(&self.registry.gather())?)
    }

    /// Sends what waits for export now, and waits for the outcome (seconds,
    /// where the collector doesn't answer). Failures are told by the one warning.
    pub async fn flush(&self) {
        let Some(push) = &self.push else { return };
        let (spans, meters) = (push.spans.clone(), self.meters.clone());
        let spans = spawn_blocking(move || spans.force_flush());
        let meters = spawn_blocking(move || meters.force_flush());
        let _ = tokio::join!(spans, meters);
    }

    /// Exports what is left and stops, within two seconds whatever the
    /// collector does. Afterwards nothing is counted or traced any more; log
    /// lines still are written.
    pub async fn shutdown(&self) {
        let meters = self.meters.clone();
        let meters = spawn_blocking(move || meters.shutdown_with_timeout(FLUSH_LIMIT));
        let Some(push) = &self.push else {
            let _ = timeout(FLUSH_LIMIT, meters).await;
            return;
        };
        let spans = push.spans.clone();
        let spans = spawn_blocking(move || spans.shutdown_with_timeout(FLUSH_LIMIT));
        let both = async { tokio::join!(spans, meters) };
        tokio::pin!(both);
        if timeout(FLUSH_LIMIT, &mut both).await.is_err() {
            push.give_up();
            let _ = timeout(ABANDON_LIMIT, both).await;
        }
    }
}

impl Drop for Telemetry {
    /// Dropped providers export what they have and block on it for seconds: on
    /// a thread that may be the only one that could make the export go on.
    fn drop(&mut self) {
        if let Some(push) = &self.push {
            push.cancel();
        }
    }
}

fn exporter_error(exporter: &'static str, error: &OTelSdkError) -> StartError {
    StartError::Exporter {
        exporter,
        reason: error.to_string(),
    }
}
