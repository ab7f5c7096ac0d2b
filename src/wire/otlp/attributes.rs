//! Which attributes are read, and under which names: OpenTelemetry's own first, then those that
//! instrumentations of others write. The first one that has a value counts.

use std::borrow::Cow;

use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};

/// The prompt's id.
pub(super) const PROMPT_NAME: &[&str] = &[
    "gen_ai.prompt.name",
    "langfuse.observation.prompt.name",
    // Langfuse's SDKs before version 4.
    "langfuse.prompt.name",
    // Traceloop's OpenLLMetry.
    "traceloop.prompt.key",
    // OpenInference.
    "prompt.id",
];
/// The version that was served.
pub(super) const PROMPT_VERSION: &[&str] = &[
    "gen_ai.prompt.version",
    "langfuse.observation.prompt.version",
    "langfuse.prompt.version",
    "traceloop.prompt.version",
    "llm.prompt_template.version",
];
/// The environment; of the span, or else of its resource.
pub(super) const ENVIRONMENT: &[&str] = &[
    "delos.environment",
    "deployment.environment.name",
    // Until version 1.27 of the conventions.
    "deployment.environment",
    "langfuse.environment",
];
/// Who was served. It has to be whom the version was resolved for, hence the order: from what says
/// so to what often is so.
pub(super) const UNIT: &[&str] = &[
    "delos.unit",
    // OpenFeature's targeting key.
    "feature_flag.context.id",
    "user.id",
    "enduser.id",
    "langfuse.user.id",
    "session.id",
    "langfuse.session.id",
    "gen_ai.conversation.id",
];
/// Which side of the split it was, as ResolveVersion says it.
pub(super) const ARM: &[&str] = &["delos.deployment.arm", "delos.arm"];
/// What kind of error the call ended in.
pub(super) const ERROR_TYPE: &[&str] = &["error.type"];
/// How good the answer was, 0 to 1.
pub(super) const QUALITY: &[&str] = &["delos.quality_score"];
/// What it cost, in USD.
pub(super) const COST: &[&str] = &[
    "delos.cost_usd",
    // No convention has it; this is what is found most.
    "gen_ai.usage.cost",
    // OpenInference.
    "llm.cost.total",
];
/// The name of an event that is a log record without one of its own.
pub(super) const EVENT_NAME: &[&str] = &["event.name"];
/// Which evaluation it is.
pub(super) const EVALUATION_NAME: &[&str] = &["gen_ai.evaluation.name"];
/// What it came to.
pub(super) const EVALUATION_SCORE: &[&str] = &["gen_ai.evaluation.score.value"];

/// The attributes of a span, an event or a log record, and those of its resource.
#[derive(Clone, Copy)]
pub(super) struct Attributes<'a> {
    own: &'a [KeyValue],
    resource: &'a [KeyValue],
}

impl<'a> Attributes<'a> {
    pub(super) fn new(own: &'a [KeyValue], resource: &'a [KeyValue]) -> Self {
        Self { own, resource }
    }

    /// The first of these that is a text or a whole number.
    pub(super) fn text(&self, names: &[&str]) -> Option<Cow<'a, str>> {
        names.iter().find_map(|name| text(self.own, name))
    }

    /// The same, also of the resource.
    pub(super) fn text_or_resource(&self, names: &[&str]) -> Option<Cow<'a, str>> {
        let either = |name: &&str| text(self.own, name).or_else(|| text(self.resource, name));
        names.iter().find_map(either)
    }

    /// The first of these that is a number.
    pub(super) fn number(&self, names: &[&str]) -> Option<f64> {
        names.iter().find_map(|name| match value(self.own, name)? {
            Value::DoubleValue(number) => Some(*number),
            Value::IntValue(number) => Some(*number as f64),
            Value::StringValue(_)
            | Value::BoolValue(_)
            | Value::ArrayValue(_)
            | Value::KvlistValue(_)
            | Value::BytesValue(_)
            | Value::StringValueStrindex(_) => None,
        })
    }

    /// The prompt's version: `3`, `"3"` or `"v3"`. None where there is none, or where it is no
    /// number, as a label or a hash.
    pub(super) fn version(&self) -> Option<i32> {
        let text = self.text(PROMPT_VERSION)?;
        let digits = text.strip_prefix(['v', 'V']).unwrap_or(&text);
        let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
        is_number.then(|| digits.parse().ok()).flatten()
    }

    /// Whether the version was asked for as a preview.
    pub(super) fn is_preview(&self) -> bool {
        self.text(ARM)
            .is_some_and(|arm| matches!(&*arm, "preview" | "ARM_PREVIEW"))
    }
}

fn value<'a>(attributes: &'a [KeyValue], name: &str) -> Option<&'a Value> {
    let attribute = attributes.iter().find(|attribute| attribute.key == name)?;
    attribute.value.as_ref()?.value.as_ref()
}

fn text<'a>(attributes: &'a [KeyValue], name: &str) -> Option<Cow<'a, str>> {
    match value(attributes, name)? {
        Value::StringValue(text) if text.is_empty() => None,
        Value::StringValue(text) => Some(text.into()),
        Value::IntValue(number) => Some(number.to_string().into()),
        Value::BoolValue(_)
        | Value::DoubleValue(_)
        | Value::ArrayValue(_)
        | Value::KvlistValue(_)
        | Value::BytesValue(_)
        | Value::StringValueStrindex(_) => None,
    }
}
