//! A collector that doesn't answer costs one warning, not one an export.

use std::fmt::Display;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Duration;

use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::metrics::Temporality;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use tokio_util::sync::CancellationToken;

/// What an exporter exports.
#[derive(Debug, Clone, Copy)]
pub(super) enum Signal {
    Spans = 0b01,
    Metrics = 0b10,
}

/// Whether exports to one collector fail, and of what. Shared by its exporters,
/// so that they warn once between them.
#[derive(Debug)]
pub(super) struct Outage {
    endpoint: String,
    /// The signals whose last export failed, as bits. A success clears only its
    /// own: a collector that takes spans and refuses metrics must not make the
    /// warning come back with every round.
    failing: AtomicU8,
}

impl Outage {
    pub(super) fn new(endpoint: String) -> Self {
        Self {
            endpoint,
            failing: AtomicU8::new(0),
        }
    }

    pub(super) fn failed(&self, signal: Signal, error: &dyn Display) {
        if self.failing.fetch_or(signal as u8, Ordering::Relaxed) == 0 {
            tracing::warn!(
                endpoint = self.endpoint,
                error = %error,
                "the OTLP collector doesn't take what it is sent; spans and metrics are lost until it does"
            );
        }
    }

    fn succeeded(&self, signal: Signal) {
        let bit = signal as u8;
        if self.failing.fetch_and(!bit, Ordering::Relaxed) == bit {
            tracing::info!(endpoint = self.endpoint, "the OTLP collector answers again");
        }
    }
}

/// An exporter whose failures go to an [`Outage`], and which can be called off.
#[derive(Debug)]
pub(super) struct Watched<E> {
    pub(super) exporter: E,
    pub(super) signal: Signal,
    pub(super) outage: Arc<Outage>,
    pub(super) stop: CancellationToken,
}

impl<E> Watched<E> {
    async fn watch(&self, export: impl Future<Output = OTelSdkResult> + Send) -> OTelSdkResult {
        let result = tokio::select! {
            biased;
            () = self.stop.cancelled() => {
                return Err(OTelSdkError::InternalFailure("called off".to_owned()));
            }
            result = export => result,
        };
        match &result {
            Ok(()) => self.outage.succeeded(self.signal),
            Err(error) => self.outage.failed(self.signal, error),
        }
        result
    }
}

impl<E: SpanExporter> SpanExporter for Watched<E> {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        self.watch(self.exporter.export(batch)).await
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

impl<E: PushMetricExporter> PushMetricExporter for Watched<E> {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        self.watch(self.exporter.export(metrics)).await
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::tests::{Lines, telemetry_without_otlp};

    #[test]
    fn an_outage_warns_once_and_again_only_after_all_is_well() {
        let lines = Lines::default();
        let subscriber = telemetry_without_otlp().subscriber_to(lines.writer(), false);
        let outage = Outage::new("collector:4317".to_owned());
        let warnings = || lines.with("collector:4317").len();
        tracing::subscriber::with_default(subscriber, || {
            outage.failed(Signal::Spans, &"down");
            outage.failed(Signal::Metrics, &"down");
            outage.failed(Signal::Spans, &"down");
            assert_eq!(warnings(), 1);
            outage.succeeded(Signal::Spans);
            outage.failed(Signal::Spans, &"down");
            assert_eq!(warnings(), 1, "metrics were failing all along");
            outage.succeeded(Signal::Spans);
            outage.succeeded(Signal::Metrics);
            assert_eq!(warnings(), 2, "it says that it is over");
            outage.failed(Signal::Metrics, &"down");
            assert_eq!(warnings(), 3);
        });
    }
}
