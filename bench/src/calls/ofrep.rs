//! OFREP's evaluation of one flag.

use serde::{Deserialize, Serialize};

use super::traffic::{ENVIRONMENT, PROMPT};
use crate::load::http;

/// The question.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct EvaluationRequest {
    /// Whom it is for.
    pub(crate) context: Context,
}

/// Whom an evaluation is for.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Context {
    /// Who asks.
    pub(crate) targeting_key: String,
}

/// The answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Evaluation {
    key: String,
    /// The version to serve.
    pub(crate) value: i32,
    variant: String,
    reason: String,
    metadata: Option<Metadata>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    deployment_id: String,
    arm: String,
    revision: i64,
    environment: String,
    prompt_id: String,
}

/// The question.
pub(crate) fn question(targeting_key: &str) -> Vec<u8> {
    let target = format!("/ofrep/v1/evaluate/flags/{PROMPT}");
    let body = format!("{{\"context\":{{\"targetingKey\":\"{targeting_key}\"}}}}");
    http::request("POST", &target, "", &body)
}

/// What the bare server answers: what the service answers to most.
pub(crate) fn example() -> Evaluation {
    Evaluation {
        key: PROMPT.into(),
        value: 1,
        variant: "v1".into(),
        reason: "SPLIT".into(),
        metadata: Some(Metadata {
            deployment_id: "01a20fb2-eba8-7620-81ec-a98593c1d4b4".into(),
            arm: "stable".into(),
            revision: 2,
            environment: ENVIRONMENT.into(),
            prompt_id: PROMPT.into(),
        }),
    }
}
