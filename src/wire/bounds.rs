//! What the fields of requests take beyond their types, as the OpenAPI document says it.
//!
//! The domain checks it; this says it to callers. `clients/schemathesis` holds the two together:
//! what is just within a bound has to be taken, and what is just beyond it refused.

use utoipa::openapi::{
    Object, ObjectBuilder, RefOr, Schema, Type,
    schema::{AdditionalProperties, Array},
};

use crate::{
    domain::{
        audit::Action,
        deployment::{METADATA_ENTRIES_MAX, METADATA_KEY_MAX, METADATA_VALUE_MAX},
        gate::{CONDITIONS_MAX, ConditionType, NAME_MAX, Operator},
        ids::{Actor, TEXT_MAX},
        strategy::INTERVAL_SECONDS_MAX,
    },
    service::REPORT_MAX,
};

/// What a prompt's id looks like.
pub(super) const PROMPT_ID: &str = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$";
/// What the name of an environment looks like.
pub(super) const ENVIRONMENT: &str = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,62}$";
/// Text that the storages can keep.
const KEPT: &str = "^[^\\u0000]*$";
/// Text that is more than spaces, and can be kept.
const NOT_BLANK: &str = "^[^\\u0000]*[^\\s\\u0000][^\\u0000]*$";
/// The key of a label: not the one that the service writes itself.
const LABEL: &str = "^(?!rollback_from$)[^\\u0000]*$";
/// A number of a revision.
const REVISION: &str = "^[0-9]{1,18}$";
/// An idempotency key, or none.
const REQUEST_ID: &str = "^[ -~]{0,128}$";

/// What a field takes.
enum Bound {
    /// Text like this.
    Like(&'static str),
    /// At most so many characters, and none that can't be stored.
    Text(usize),
    /// The same, and more than spaces.
    Name(usize),
    /// One of these words.
    OneOf(Vec<&'static str>),
    /// A number in a range.
    Whole(i32, i32),
    /// A number, 0 to 1.
    Share,
    /// A number from 0 to below a half.
    Alpha,
    /// So many items.
    Items(usize, usize),
    /// The labels of a deployment.
    Labels,
}

/// The fields that a request has to have, of those that are in its body or its query.
pub(super) fn required(message: &str) -> &'static [&'static str] {
    match message {
        "CreateDeploymentRequest" => &["prompt_id", "to_version", "environment"],
        "CreateQualityGateRequest" => &["name", "prompt_id", "conditions"],
        "GateCondition" => &["type", "operator"],
        "ListQualityGatesRequest" => &["prompt_id"],
        "MetricPolicy" => &["metric"],
        _ => &[],
    }
}

fn bound(message: &str, field: &str) -> Option<Bound> {
    // What is wrong with one outcome of a report is said of that one, and refuses no other.
    if matches!(message, "Outcome" | "Score") {
        return None;
    }
    let bound = match (message, field) {
        (_, "prompt_id") => Bound::Like(PROMPT_ID),
        (_, "environment") => Bound::Like(ENVIRONMENT),
        (_, "request_id") => Bound::Like(REQUEST_ID),
        (_, "revision") => Bound::Like(REVISION),
        (_, "comment" | "reason") | ("ReportGateConditionRequest", "message") => {
            Bound::Text(TEXT_MAX)
        }
        (_, "limit" | "offset" | "page_size") if message.starts_with("List") => {
            Bound::Whole(0, i32::MAX)
        }
        ("ListEventsRequest", "actor") => Bound::Text(Actor::MAX),
        ("ListEventsRequest", "action") => {
            Bound::OneOf(Action::all().map(Action::as_str).collect())
        }
        ("ResolveVersionRequest", "targeting_key") => Bound::Text(1024),
        ("CreateDeploymentRequest", "to_version") => Bound::Whole(1, i32::MAX),
        ("CreateDeploymentRequest", "metadata") => Bound::Labels,
        ("DeploymentStrategy", "initial_percentage" | "increment") => Bound::Whole(0, 100),
        ("DeploymentStrategy", "interval_seconds") => Bound::Whole(0, INTERVAL_SECONDS_MAX),
        ("DeploymentStrategy", "rollback_threshold")
        | ("AnalysisPolicy", "provider_margin" | "quality_margin")
        | ("MetricPolicy", "tolerance" | "margin")
        | ("CircuitBreaker", "stable_failed_share_max") => Bound::Share,
        ("AnalysisPolicy", "alpha_rollback" | "alpha_advance") => Bound::Alpha,
        ("AnalysisPolicy", "min_units_rollback" | "min_units_advance") => {
            Bound::Whole(0, 1_000_000)
        }
        ("AnalysisPolicy", "hold_seconds") => Bound::Whole(0, 31_536_000),
        ("CircuitBreaker", "calls" | "failed") => Bound::Whole(0, 1000),
        ("CreateQualityGateRequest", "name") => Bound::Name(NAME_MAX),
        ("CreateQualityGateRequest", "conditions") => Bound::Items(1, CONDITIONS_MAX),
        ("GateCondition", "type") => {
            Bound::OneOf(ConditionType::ALL.map(ConditionType::as_str).to_vec())
        }
        ("GateCondition", "operator") => Bound::OneOf(Operator::ALL.map(Operator::as_str).to_vec()),
        ("GateCondition", "eval_run_id" | "dataset_id") => Bound::Text(NAME_MAX),
        ("ReportOutcomesRequest", "outcomes" | "scores") => Bound::Items(0, REPORT_MAX),
        _ => return None,
    };
    Some(bound)
}

/// A field's schema with what the field takes. A message or an enum has bounds of its own.
pub(super) fn narrowed(message: &str, field: &str, mut schema: RefOr<Schema>) -> RefOr<Schema> {
    if let Some(bound) = bound(message, field)
        && let RefOr::T(schema) = &mut schema
    {
        if let Schema::Object(object) = schema {
            narrow(object, bound);
        } else if let Schema::Array(array) = schema {
            narrow_list(array, &bound);
        }
    }
    schema
}

fn narrow(object: &mut Object, bound: Bound) {
    match bound {
        Bound::Like(pattern) => object.pattern = Some(pattern.to_owned()),
        Bound::Text(most) => {
            object.max_length = Some(most);
            object.pattern = Some(KEPT.to_owned());
        }
        Bound::Name(most) => {
            object.max_length = Some(most);
            object.pattern = Some(NOT_BLANK.to_owned());
        }
        Bound::OneOf(words) => {
            object.enum_values = Some(words.into_iter().map(Into::into).collect());
        }
        Bound::Whole(least, most) => {
            object.minimum = Some(f64::from(least).into());
            // What every number of 32 bits is below need not be said.
            object.maximum = (most < i32::MAX).then(|| f64::from(most).into());
        }
        Bound::Share => {
            object.minimum = Some(0.0.into());
            object.maximum = Some(1.0.into());
        }
        Bound::Alpha => {
            object.minimum = Some(0.0.into());
            object.exclusive_maximum = Some(0.5.into());
        }
        Bound::Labels => {
            let key = ObjectBuilder::new().min_length(Some(1));
            let key = key.max_length(Some(METADATA_KEY_MAX)).pattern(Some(LABEL));
            let value = ObjectBuilder::new().schema_type(Type::String);
            let value = value
                .max_length(Some(METADATA_VALUE_MAX))
                .pattern(Some(KEPT));
            object.max_properties = Some(METADATA_ENTRIES_MAX);
            object.property_names = Some(Box::new(key.schema_type(Type::String).into()));
            object.additional_properties =
                Some(Box::new(AdditionalProperties::RefOr(value.into())));
        }
        Bound::Items(..) => {}
    }
}

fn narrow_list(array: &mut Array, bound: &Bound) {
    if let Bound::Items(least, most) = bound {
        array.min_items = (*least > 0).then_some(*least);
        array.max_items = Some(*most);
    }
}
