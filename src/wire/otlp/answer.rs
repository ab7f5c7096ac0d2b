//! What is answered over HTTP, as protobuf or as JSON.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{StatusCode, header};
use prost::Message;
use serde::Serialize;
use tonic::Code;
use utoipa::ToSchema;

use super::Refused;
use crate::{
    service::Error,
    wire::error::{meaning, message, retry_after, whole_seconds},
};

/// How messages are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    Protobuf,
    Json,
}

/// What was refused of an export, in the encoding of the request.
pub(super) struct Answer<M> {
    pub(super) json: Option<PartialSuccess>,
    pub(super) protobuf: M,
    pub(super) encoding: Encoding,
}

/// What became of an export.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ExportResult {
    /// What was refused; not there where nothing was.
    #[serde(skip_serializing_if = "Option::is_none")]
    partial_success: Option<PartialSuccess>,
}

/// What was refused of an export.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PartialSuccess {
    /// How many spans, as protobuf's JSON writes large numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected_spans: Option<String>,
    /// How many log records, as protobuf's JSON writes large numbers.
    #[serde(skip_serializing_if = "Option::is_none")]
    rejected_log_records: Option<String>,
    /// Why the first one was refused.
    error_message: String,
}

/// Why nothing was taken in: a `google.rpc.Status`.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct ExportFailure {
    /// What kind of failure it is, as gRPC numbers them.
    code: i32,
    /// What is wrong, for people.
    message: String,
    #[serde(skip)]
    status: StatusCode,
    #[serde(skip)]
    retry_after: Option<Duration>,
}

impl PartialSuccess {
    pub(super) fn of_spans(refused: Option<&Refused>) -> Option<Self> {
        refused.map(|refused| Self {
            rejected_spans: Some(refused.count.to_string()),
            rejected_log_records: None,
            error_message: refused.message.clone(),
        })
    }

    pub(super) fn of_log_records(refused: Option<&Refused>) -> Option<Self> {
        refused.map(|refused| Self {
            rejected_spans: None,
            rejected_log_records: Some(refused.count.to_string()),
            error_message: refused.message.clone(),
        })
    }
}

impl<M: Message> IntoResponse for Answer<M> {
    fn into_response(self) -> Response {
        let partial_success = self.json;
        let json = ExportResult { partial_success };
        encoded(StatusCode::OK, self.encoding, &self.protobuf, &json)
    }
}

impl ExportFailure {
    pub(super) fn new(status: StatusCode, code: Code, message: String) -> Self {
        Self {
            code: code.into(),
            message,
            status,
            retry_after: None,
        }
    }

    /// The response.
    pub(super) fn encoded(self, encoding: Encoding) -> Response {
        let protobuf = tonic_types::Status {
            code: self.code,
            message: self.message.clone(),
            details: Vec::new(),
        };
        let mut response = encoded(self.status, encoding, &protobuf, &self);
        if let Some(after) = self.retry_after {
            let headers = response.headers_mut();
            headers.insert(header::RETRY_AFTER, whole_seconds(after));
        }
        response
    }
}

impl From<Error> for ExportFailure {
    fn from(error: Error) -> Self {
        let meaning = meaning(&error);
        let failure = Self::new(meaning.http, meaning.code, message(&error));
        Self {
            retry_after: retry_after(&error),
            ..failure
        }
    }
}

fn encoded(
    status: StatusCode,
    encoding: Encoding,
    protobuf: &impl Message,
    json: &impl Serialize,
) -> Response {
    let (content_type, body) = match encoding {
        Encoding::Protobuf => ("application/x-protobuf", protobuf.encode_to_vec()),
        // None of these can fail.
        Encoding::Json => (
            "application/json",
            serde_json::to_vec(json).unwrap_or_default(),
        ),
    };
    (status, [(header::CONTENT_TYPE, content_type)], body).into_response()
}
