//! One flag.

use axum::{Json, extract::State};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Ofrep,
    asked::{Asked, EvaluationRequest},
    failure::EvaluationFailure,
};
use crate::{
    domain::bucket::Arm,
    service::Split,
    wire::convert::{arm_name, stale_seconds},
};

/// Why the value is what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum Reason {
    /// Everybody gets this version, or there is no targeting key.
    Static,
    /// A version is being rolled out, and the targeting key decides.
    Split,
    /// The context asks for a preview.
    TargetingMatch,
}

/// A flag's value for a context.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Evaluation {
    /// The flag: the prompt's id.
    key: String,
    /// The version to serve.
    value: i32,
    /// The version as a name: `v7`.
    variant: String,
    /// Why it is this version.
    reason: Reason,
    /// Where the version comes from.
    metadata: EvaluationMetadata,
}

/// Where a version comes from.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EvaluationMetadata {
    /// The deployment that brings or brought the version.
    deployment_id: String,
    /// `stable`, `candidate` or `preview`.
    arm: &'static str,
    /// The revision of the split.
    revision: i64,
    /// The environment.
    environment: String,
    /// The prompt.
    prompt_id: String,
    /// How old the answer may be, where the service can't read its storage.
    #[serde(skip_serializing_if = "Option::is_none")]
    stale_seconds: Option<i32>,
}

impl Evaluation {
    pub(super) fn new(split: &Split, has_targeting_key: bool) -> Self {
        let Split {
            assignment,
            traffic,
            ..
        } = split;
        let reason = match assignment.arm {
            Arm::Preview => Reason::TargetingMatch,
            Arm::Stable | Arm::Candidate if traffic.candidate.is_some() && has_targeting_key => {
                Reason::Split
            }
            Arm::Stable | Arm::Candidate => Reason::Static,
        };
        Self {
            key: traffic.prompt_id.to_string(),
            value: assignment.version,
            variant: format!("v{}", assignment.version),
            reason,
            metadata: EvaluationMetadata {
                deployment_id: assignment.deployment_id.to_string(),
                arm: arm_name(assignment.arm),
                revision: traffic.revision,
                environment: traffic.environment.to_string(),
                prompt_id: traffic.prompt_id.to_string(),
                // Of all flags at once that is said once.
                stale_seconds: None,
            },
        }
    }
}

/// Evaluate a flag: the version of a prompt to serve
///
/// The flag's key is the prompt's id. For OpenFeature's server SDKs, which call this for each evaluation.
#[utoipa::path(
    post,
    path = "/ofrep/v1/evaluate/flags/{*key}",
    tag = "OpenFeature",
    operation_id = "EvaluateFlag",
    params(("key" = String, Path, pattern = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$", description = "The flag: the prompt's id")),
    request_body(content = Option<EvaluationRequest>, description = "Whom the evaluation is for"),
    responses(
        (status = OK, body = Evaluation, description = "The flag's value"),
        (status = BAD_REQUEST, body = EvaluationFailure, description = "The body or the context can't be used"),
        (status = NOT_FOUND, body = EvaluationFailure, description = "The environment serves no version of such a prompt"),
        (status = PAYLOAD_TOO_LARGE, body = EvaluationFailure, description = "The body is too large"),
        (status = SERVICE_UNAVAILABLE, body = EvaluationFailure, description = "What is served of the prompt can't be read at the moment"),
    ),
)]
pub(super) async fn flag(
    State(ofrep): State<Ofrep>,
    asked: Asked,
) -> Result<Json<Evaluation>, EvaluationFailure> {
    let Asked {
        key,
        environment,
        targeting_key,
        preview,
    } = asked;
    let prompt_id = key.unwrap_or_default();
    let split = ofrep
        .service
        .resolve(&environment, &prompt_id, &targeting_key, preview);
    match split {
        Ok(split) => {
            let mut evaluation = Evaluation::new(&split, !targeting_key.is_empty());
            evaluation.metadata.stale_seconds =
                split.staleness.map(|_| stale_seconds(split.staleness));
            Ok(Json(evaluation))
        }
        Err(error) => Err(EvaluationFailure::from(error).of_flag(Some(prompt_id))),
    }
}
