//! What a failure is in each protocol: the one table from meaning to status.

use std::{collections::HashMap, time::Duration};

use http::{HeaderValue, StatusCode, header};
use serde::Serialize;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::{domain::violation::Violation, service::Error};

/// The `domain` of `google.rpc.ErrorInfo`.
const DOMAIN: &str = "deploy.delos";

/// A failure's status in both worlds.
pub(super) struct Meaning {
    pub(super) code: Code,
    pub(super) http: StatusCode,
    pub(super) title: &'static str,
}

pub(super) fn meaning(error: &Error) -> Meaning {
    let (code, http, title) = match error {
        Error::Invalid(_) => (
            Code::InvalidArgument,
            StatusCode::BAD_REQUEST,
            "The request is malformed",
        ),
        Error::NotFound { .. } | Error::NothingServed { .. } => (
            Code::NotFound,
            StatusCode::NOT_FOUND,
            "There is no such thing",
        ),
        Error::Denied { .. } => (
            Code::FailedPrecondition,
            StatusCode::CONFLICT,
            "The state forbids it",
        ),
        Error::Conflict { .. } => (Code::Aborted, StatusCode::CONFLICT, "It changed meanwhile"),
        Error::KeyUsed => (
            Code::AlreadyExists,
            StatusCode::CONFLICT,
            "The key was used for another request",
        ),
        Error::TooMany(_) | Error::Busy(_) => (
            Code::ResourceExhausted,
            StatusCode::TOO_MANY_REQUESTS,
            "A limit was reached",
        ),
        Error::Unavailable { .. } => (
            Code::Unavailable,
            StatusCode::SERVICE_UNAVAILABLE,
            "Something this depends on does not answer",
        ),
        Error::CorruptRow { .. } => (
            Code::DataLoss,
            StatusCode::INTERNAL_SERVER_ERROR,
            "It can't be read",
        ),
        Error::Internal => (
            Code::Internal,
            StatusCode::INTERNAL_SERVER_ERROR,
            "An internal error",
        ),
    };
    Meaning { code, http, title }
}

/// A failure in gRPC, with its `google.rpc` details.
pub(super) fn status(error: &Error) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(error.reason(), DOMAIN, metadata(error));
    match error {
        Error::Invalid(violations) => {
            for violation in violations {
                details.add_bad_request_violation(&violation.field, &violation.description);
            }
        }
        Error::Denied { .. } => {
            details.add_precondition_failure_violation(
                error.reason(),
                "deployment",
                error.to_string(),
            );
        }
        Error::NotFound { .. }
        | Error::NothingServed { .. }
        | Error::Conflict { .. }
        | Error::KeyUsed
        | Error::Busy(_)
        | Error::TooMany(_)
        | Error::CorruptRow { .. }
        | Error::Unavailable { .. }
        | Error::Internal => {}
    }
    if let Some(after) = retry_after(error) {
        details.set_retry_info(Some(after));
    }
    Status::with_error_details(meaning(error).code, message(error), details)
}

/// What a person reads: the error, and what is wrong with each field.
pub(super) fn message(error: &Error) -> String {
    match error {
        Error::Invalid(violations) => {
            let each: Vec<_> = violations
                .iter()
                .map(|violation| format!("{} {}", violation.field, violation.description))
                .collect();
            each.join("; ")
        }
        Error::NotFound { .. }
        | Error::NothingServed { .. }
        | Error::Denied { .. }
        | Error::Conflict { .. }
        | Error::KeyUsed
        | Error::Busy(_)
        | Error::TooMany(_)
        | Error::CorruptRow { .. }
        | Error::Unavailable { .. }
        | Error::Internal => error.to_string(),
    }
}

fn metadata(error: &Error) -> HashMap<String, String> {
    match error {
        Error::Denied {
            denied: crate::domain::lifecycle::Denied::Status(refusal),
            ..
        } => {
            let allowed: Vec<_> = refusal
                .verb
                .allowed_in()
                .map(|status| status.as_str())
                .collect();
            [
                ("status".to_owned(), refusal.status.to_string()),
                ("allowed_in".to_owned(), allowed.join(",")),
            ]
            .into()
        }
        Error::CorruptRow { table, key, .. } => [
            ("table".to_owned(), (*table).to_owned()),
            ("key".to_owned(), key.clone()),
        ]
        .into(),
        Error::Denied { .. }
        | Error::Invalid(_)
        | Error::NotFound { .. }
        | Error::NothingServed { .. }
        | Error::Conflict { .. }
        | Error::KeyUsed
        | Error::Busy(_)
        | Error::TooMany(_)
        | Error::Unavailable { .. }
        | Error::Internal => HashMap::new(),
    }
}

pub(super) fn retry_after(error: &Error) -> Option<Duration> {
    match error {
        Error::Unavailable { retry_after, .. } => Some(*retry_after),
        Error::TooMany(_) => Some(Duration::from_secs(60)),
        Error::Busy(_) => Some(Duration::from_secs(1)),
        Error::Conflict { .. } => Some(Duration::from_millis(50)),
        Error::Invalid(_)
        | Error::NotFound { .. }
        | Error::NothingServed { .. }
        | Error::Denied { .. }
        | Error::KeyUsed
        | Error::CorruptRow { .. }
        | Error::Internal => None,
    }
}

/// When to try again, as `Retry-After` says it: in whole seconds, rounded up.
pub(super) fn whole_seconds(after: Duration) -> HeaderValue {
    HeaderValue::from(after.as_millis().div_ceil(1000) as u64)
}

/// A failure in REST: RFC 9457. It is written out where the request leaves, which knows its id.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct Problem {
    /// A URI that names the kind of problem.
    #[serde(rename = "type")]
    pub(super) kind: String,
    /// The kind of problem, in words.
    pub(super) title: &'static str,
    /// The HTTP status.
    pub(super) status: u16,
    /// What went wrong with this request.
    pub(super) detail: String,
    /// A stable code for programs; the same as `reason` of the gRPC error.
    pub(super) reason: &'static str,
    /// The fields that are wrong.
    pub(super) errors: Vec<FieldError>,
    /// What belongs to the reason, by name.
    pub(super) metadata: HashMap<String, String>,
    /// The id of the request, as it is logged.
    pub(super) request_id: String,
    #[serde(skip)]
    pub(super) retry_after: Option<Duration>,
}

/// A field that is wrong.
#[derive(Debug, Clone, Serialize, utoipa::ToSchema)]
pub(super) struct FieldError {
    /// Path of the field, such as `conditions[2].threshold`.
    pub(super) field: String,
    /// Why it is refused and what would be right.
    pub(super) detail: String,
}

impl Problem {
    /// A problem that the protocol itself has: no such path, not JSON, too large.
    pub(super) fn of_http(
        status: StatusCode,
        reason: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            kind: format!(
                "urn:delos:deploy:problem:{}",
                reason.to_lowercase().replace('_', "-")
            ),
            title,
            status: status.as_u16(),
            detail: detail.into(),
            reason,
            errors: Vec::new(),
            metadata: HashMap::new(),
            request_id: String::new(),
            retry_after: None,
        }
    }

    /// A field of the request that can't be read.
    pub(super) fn of_field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Error::Invalid(vec![Violation {
            field: field.into(),
            description: detail.into(),
        }])
        .into()
    }

    /// The response, complete.
    pub(super) fn respond(mut self, request_id: &str) -> axum::response::Response {
        request_id.clone_into(&mut self.request_id);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = axum::response::Response::new(body.into());
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if let Some(after) = self.retry_after {
            headers.insert(header::RETRY_AFTER, whole_seconds(after));
        }
        response
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Self {
        let Meaning { http, title, .. } = meaning(&error);
        let mut problem = Self::of_http(http, error.reason(), title, message(&error));
        problem.metadata = metadata(&error);
        problem.retry_after = retry_after(&error);
        if let Error::Invalid(violations) = error {
            let field = |violation: Violation| FieldError {
                field: violation.field,
                detail: violation.description,
            };
            problem.errors = violations.into_iter().map(field).collect();
        }
        problem
    }
}

impl axum::response::IntoResponse for Problem {
    fn into_response(self) -> axum::response::Response {
        let mut response = axum::response::Response::default();
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        response.extensions_mut().insert(self);
        response
    }
}
