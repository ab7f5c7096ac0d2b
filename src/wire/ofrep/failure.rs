//! A failure in OFREP's own shape.

use axum::{
    Json,
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    service::Error,
    wire::error::{meaning, message},
};

/// Why there is no evaluation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub(super) enum ErrorCode {
    /// The environment serves no version of such a prompt.
    FlagNotFound,
    /// The body can't be read.
    ParseError,
    /// The context can't be used.
    InvalidContext,
    /// Anything else.
    General,
}

/// An evaluation that failed.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EvaluationFailure {
    #[serde(skip)]
    status: StatusCode,
    /// The flag that was asked for; not where all were.
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    /// What kind of failure it is, for programs.
    error_code: ErrorCode,
    /// What is wrong and what would be right, for people.
    error_details: String,
}

impl EvaluationFailure {
    pub(super) fn new(status: StatusCode, code: ErrorCode, details: impl Into<String>) -> Self {
        Self {
            status,
            key: None,
            error_code: code,
            error_details: details.into(),
        }
    }

    pub(super) fn bad_request(code: ErrorCode, details: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, details)
    }

    /// The same about a flag.
    pub(super) fn of_flag(self, key: Option<String>) -> Self {
        Self { key, ..self }
    }
}

impl From<Error> for EvaluationFailure {
    fn from(error: Error) -> Self {
        let mut status = meaning(&error).http;
        let code = match &error {
            Error::NothingServed { .. } => ErrorCode::FlagNotFound,
            // What is no id of a prompt is the key of no flag.
            Error::Invalid(violations) if violations.iter().all(|one| one.field == "prompt_id") => {
                status = StatusCode::NOT_FOUND;
                ErrorCode::FlagNotFound
            }
            Error::Invalid(_) => ErrorCode::InvalidContext,
            Error::NotFound { .. }
            | Error::Denied { .. }
            | Error::Conflict { .. }
            | Error::KeyUsed
            | Error::Busy(_)
            | Error::TooMany(_)
            | Error::CorruptRow { .. }
            | Error::Unavailable { .. }
            | Error::Internal => ErrorCode::General,
        };
        Self::new(status, code, message(&error))
    }
}

impl IntoResponse for EvaluationFailure {
    fn into_response(self) -> Response {
        let headers = [(header::CACHE_CONTROL, "no-store")];
        (self.status, headers, Json(self)).into_response()
    }
}
