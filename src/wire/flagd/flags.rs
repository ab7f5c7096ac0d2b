//! What a flag is here: its key is a prompt's id, its value the version to serve, and a flag set
//! is an environment.

use std::{collections::BTreeMap, sync::Arc};

use prost_types::{Struct, Value as Field, value::Kind};
use serde_json::{Map, Value, json};
use tonic::Status;

use super::{Flagd, context::Context};
use crate::{
    domain::{
        bucket::PLACES,
        traffic::{Candidate, Traffic},
    },
    service::{Error, Split},
    wire::{
        convert::{arm_name, stale_seconds},
        error::status,
    },
};

/// A flag, evaluated.
pub(super) struct Answer {
    /// The version to serve.
    pub(super) version: i32,
    /// `v` and the version.
    pub(super) variant: String,
    /// Why this version.
    pub(super) reason: String,
    /// Where it comes from.
    pub(super) metadata: Struct,
    /// The prompt's id and the version.
    pub(super) object: Struct,
}

impl Flagd {
    /// Evaluates a flag.
    pub(super) fn evaluate(&self, flag_key: &str, context: &Context) -> Result<Answer, Status> {
        let split = self.service.resolve(
            &context.environment,
            flag_key,
            &context.targeting_key,
            context.preview,
        );
        let split = split.map_err(|error| failure(&error))?;
        Ok(Answer::new(&split, context))
    }

    /// Evaluates every flag that has a value for whoever asks.
    pub(super) fn evaluate_all(&self, context: &Context) -> Result<Vec<(String, Answer)>, Status> {
        let splits = self.service.resolve_all(
            &context.environment,
            &context.targeting_key,
            context.preview,
        );
        let (splits, _) = splits.map_err(|error| status(&error))?;
        let answer = |split: &Split| {
            let key = split.traffic.prompt_id.to_string();
            (key, Answer::new(split, context))
        };
        Ok(splits.iter().map(answer).collect())
    }
}

impl Answer {
    fn new(split: &Split, context: &Context) -> Self {
        let Split {
            assignment,
            traffic,
            staleness,
        } = split;
        // Providers keep what is STATIC by the flag's key alone, until they hear that the flag has
        // changed: it must be the same whatever the context.
        let reason = if traffic.candidate.is_some() {
            "SPLIT"
        } else if context.is_named_by_attribute {
            "TARGETING_MATCH"
        } else {
            "STATIC"
        };
        let metadata = [
            ("deploymentId", text(&assignment.deployment_id)),
            ("arm", text(&arm_name(assignment.arm))),
            // Exact up to 2^53.
            ("revision", Kind::NumberValue(traffic.revision as f64)),
        ];
        let stale = staleness.map(|_| {
            (
                "staleSeconds",
                Kind::NumberValue(stale_seconds(*staleness).into()),
            )
        });
        let metadata = object(metadata.into_iter().chain(stale));
        Self {
            version: assignment.version,
            variant: variant(assignment.version),
            reason: reason.to_owned(),
            metadata,
            object: object([
                ("prompt", text(&traffic.prompt_id)),
                ("version", Kind::NumberValue(assignment.version.into())),
            ]),
        }
    }
}

/// What is answered to somebody who asks a version as a boolean.
pub(super) fn no_boolean() -> Status {
    Status::invalid_argument("a version is a number: ask for a number, text or an object")
}

/// A failure as flagd tells it: a name that no prompt can have is of no flag, too.
fn failure(error: &Error) -> Status {
    if let Error::Invalid(violations) = error
        && violations.iter().all(|it| it.field == "prompt_id")
    {
        return Status::not_found("there is no such flag");
    }
    status(error)
}

/// The message of `configuration_change`: the keys of the flags, each with nothing.
pub(super) fn changed<'t>(traffic: impl Iterator<Item = &'t Arc<Traffic>>) -> Struct {
    let flags = traffic.map(|row| {
        (
            row.prompt_id.to_string(),
            Kind::StructValue(Struct::default()),
        )
    });
    object([("flags", Kind::StructValue(object(flags)))])
}

/// All flags, as providers evaluate them.
pub(super) fn configuration(splits: &[Arc<Traffic>]) -> String {
    let flags: Map<_, _> = splits
        .iter()
        .filter_map(|traffic| Some((traffic.prompt_id.to_string(), flag(traffic)?)))
        .collect();
    json!({ "flags": flags }).to_string()
}

/// A flag as providers evaluate it; none where nothing is served.
fn flag(traffic: &Traffic) -> Option<Value> {
    let stable = traffic.stable.as_ref().map(|stable| stable.version);
    let candidate = traffic.candidate.as_ref();
    let deployment_id = candidate
        .map(|candidate| candidate.deployment_id)
        .or_else(|| traffic.stable.as_ref().map(|stable| stable.deployment_id))?;
    let variants: BTreeMap<_, _> = stable
        .into_iter()
        .chain(candidate.map(|candidate| candidate.version))
        .map(|version| (variant(version), version))
        .collect();
    let mut flag = json!({
        "state": "ENABLED",
        "variants": variants,
        "defaultVariant": stable.map(variant),
        "metadata": {
            "deploymentId": deployment_id.to_string(),
            "revision": traffic.revision,
        },
    });
    if let Some(candidate) = candidate {
        flag["targeting"] = targeting(candidate, stable);
    }
    Some(flag)
}

/// The rule that comes to the same version as this service: by the place of the targeting key in
/// the deployment, and without a key the default.
fn targeting(candidate: &Candidate, stable: Option<i32>) -> Value {
    let weight = u32::from(candidate.percentage) * (PLACES / 100);
    let key = json!({"var": "targetingKey"});
    let bucket_by = json!({"cat": [format!("{}:", candidate.deployment_id), key]});
    let new = variant(candidate.version);
    // Where nothing is stable yet, who is not in gets nothing: no variant, but the caller's default.
    let old = stable.map_or_else(|| "none".to_owned(), variant);
    let mut served = json!({"fractional": [bucket_by, [new, weight], [old, PLACES - weight]]});
    if stable.is_none() {
        served = json!({"if": [{"==": [served, new]}, new, null]});
    }
    json!({"if": [{"!!": key}, served, null]})
}

fn text(of: &impl ToString) -> Kind {
    Kind::StringValue(of.to_string())
}

fn variant(version: i32) -> String {
    format!("v{version}")
}

fn object<K: Into<String>>(fields: impl IntoIterator<Item = (K, Kind)>) -> Struct {
    let field = |(name, kind): (K, Kind)| (name.into(), Field { kind: Some(kind) });
    Struct {
        fields: fields.into_iter().map(field).collect(),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::domain::{
        ids::{Environment, PromptId},
        traffic::Stable,
    };

    fn split(stable: Option<i32>, percentage: Option<u8>) -> Arc<Traffic> {
        let mut traffic = Traffic::none(
            PromptId::parse("greeting").unwrap(),
            Environment::parse("production").unwrap(),
        );
        traffic.revision = 5;
        traffic.stable = stable.map(|version| Stable {
            version,
            deployment_id: Uuid::nil(),
        });
        traffic.candidate = percentage.map(|percentage| Candidate {
            version: 7,
            percentage,
            deployment_id: Uuid::nil(),
        });
        Arc::new(traffic)
    }

    fn configured(stable: Option<i32>, percentage: Option<u8>) -> Value {
        let text = configuration(&[split(stable, percentage)]);
        serde_json::from_str::<Value>(&text).unwrap()["flags"]["greeting"].take()
    }

    #[test]
    fn the_rule_that_providers_evaluate() {
        let flag = configured(Some(6), Some(10));
        let bucket_by = json!({"cat": [format!("{}:", Uuid::nil()), {"var": "targetingKey"}]});
        let fractional = json!({"fractional": [bucket_by, ["v7", 10_000], ["v6", 90_000]]});
        assert_eq!(
            flag,
            json!({
                "state": "ENABLED",
                "variants": {"v6": 6, "v7": 7},
                "defaultVariant": "v6",
                "targeting": {"if": [{"!!": {"var": "targetingKey"}}, fractional, null]},
                "metadata": {"deploymentId": Uuid::nil().to_string(), "revision": 5},
            })
        );
        let flag = configured(Some(6), None);
        assert_eq!(
            (&flag["variants"], flag.get("targeting")),
            (&json!({"v6": 6}), None)
        );
        assert_eq!(
            configured(None, None),
            Value::Null,
            "what is not served is no flag"
        );
        let flag = configured(None, Some(10));
        assert_eq!(
            (&flag["variants"], &flag["defaultVariant"]),
            (&json!({"v7": 7}), &Value::Null)
        );
    }
}
