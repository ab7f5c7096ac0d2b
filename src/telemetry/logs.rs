//! Log lines on standard output, and what deserves one.

use std::fmt;

use serde::Serialize;
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Metadata, Subscriber};
use tracing_subscriber::filter::{FilterFn, filter_fn};
use tracing_subscriber::fmt::format::{JsonFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormattedFields};
use tracing_subscriber::layer::Layer;
use tracing_subscriber::registry::{LookupSpan, Registry};

use opentelemetry::trace::TraceContextExt as _;

use super::{LogFormat, LogLevel};

/// The lines of `level` and graver, to `writer`.
pub(super) fn layer(
    level: LogLevel,
    format: LogFormat,
    writer: BoxMakeWriter,
    ansi: bool,
) -> Box<dyn Layer<Registry> + Send + Sync> {
    let layer = tracing_subscriber::fmt::layer().with_writer(writer);
    match format {
        LogFormat::Json => layer
            .fmt_fields(JsonFields::new())
            .event_format(JsonLine)
            .with_filter(line_filter(level.as_level()))
            .boxed(),
        LogFormat::Text => layer
            .with_ansi(ansi)
            .with_filter(line_filter(level.as_level()))
            .boxed(),
    }
}

/// A span is let through whatever the level, or a warning would lack the
/// `request_id` of the span around it.
fn line_filter(level: Level) -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    let spans = level.max(Level::INFO);
    filter_fn(move |metadata| {
        let least = if metadata.is_span() { spans } else { level };
        *metadata.level() <= least && !is_noise(metadata)
    })
    .with_max_level_hint(spans)
}

/// What is traced does not depend on what is logged.
pub(super) fn span_filter() -> FilterFn<impl Fn(&Metadata<'_>) -> bool> {
    filter_fn(|metadata| *metadata.level() <= Level::INFO && !is_noise(metadata))
        .with_max_level_hint(Level::INFO)
}

/// The SDK says again and again what `Outage` says once, and the transport
/// narrates every frame, those of our own exports among them.
fn is_noise(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target();
    let name = target.split("::").next().unwrap_or(target);
    let transport = ["h2", "hyper", "hyper_util"].contains(&name)
        || name.starts_with("tonic")
        || name.starts_with("tower");
    name.starts_with("opentelemetry")
        || (transport && (metadata.is_span() || *metadata.level() > Level::WARN))
}

/// One line: what every line has, then the fields of the event and of all spans
/// around it, side by side.
#[derive(Serialize)]
struct Line<'a> {
    timestamp: String,
    level: &'a str,
    target: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(flatten)]
    fields: Map<String, Value>,
}

/// Formats an event as [`Line`].
struct JsonLine;

impl<S> FormatEvent<S, JsonFields> for JsonLine
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, JsonFields>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut fields = Fields(span_fields(context));
        event.record(&mut fields);
        let Fields(mut fields) = fields;
        let message = fields.remove("message");
        for reserved in ["timestamp", "level", "target", "trace_id"] {
            fields.remove(reserved);
        }
        let mut timestamp = String::new();
        SystemTime.format_time(&mut Writer::new(&mut timestamp))?;
        let line = Line {
            timestamp,
            level: event.metadata().level().as_str(),
            target: event.metadata().target(),
            message,
            trace_id: trace_id(),
            fields,
        };
        let line = serde_json::to_string(&line).map_err(|_| fmt::Error)?;
        writeln!(writer, "{line}")
    }
}

/// The fields of all spans around the event, the inner ones winning.
fn span_fields<S>(context: &FmtContext<'_, S, JsonFields>) -> Map<String, Value>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let mut fields = Map::new();
    for span in context
        .event_scope()
        .into_iter()
        .flat_map(tracing_subscriber::registry::Scope::from_root)
    {
        let extensions = span.extensions();
        let Some(text) = extensions.get::<FormattedFields<JsonFields>>() else {
            continue;
        };
        if let Ok(Value::Object(of_span)) = serde_json::from_str(text) {
            fields.extend(of_span);
        }
    }
    fields.remove("message");
    fields
}

/// The trace that the event belongs to, where spans are traced.
fn trace_id() -> Option<String> {
    opentelemetry::Context::map_current(|context| {
        let span = context.span();
        let context = span.span_context();
        context.is_valid().then(|| context.trace_id().to_string())
    })
}

/// The fields of an event as JSON.
struct Fields(Map<String, Value>);

impl Fields {
    fn put(&mut self, field: &Field, value: Value) {
        let name = field.name();
        let name = name.strip_prefix("r#").unwrap_or(name);
        self.0.insert(name.to_owned(), value);
    }
}

impl Visit for Fields {
    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value.into());
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value.into());
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value.into());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value.into());
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.put(field, value.to_string().into());
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}").into());
    }
}
