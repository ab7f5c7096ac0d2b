//! OTLP over HTTP: protobuf or JSON, plain or gzip. What is answered is encoded as what was asked.

use std::io::Read as _;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request, State},
    response::{IntoResponse, Response},
};
use flate2::read::MultiGzDecoder;
use http::{HeaderMap, StatusCode, header};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest,
};
use prost::Message;
use serde::de::DeserializeOwned;
use tonic::Code;
use utoipa::ToSchema;

use super::{
    BODY_MAX, Otlp,
    answer::{Answer, Encoding, ExportFailure, ExportResult, PartialSuccess},
    grpc,
};

/// A message in protobuf's own encoding.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "it describes what is read elsewhere")]
struct Protobuf(Vec<u8>);

/// What was sent, and how.
pub(super) struct Export<M> {
    message: M,
    encoding: Encoding,
}

/// Take in spans (OTLP)
///
/// Spans that say which version of which prompt a model's call used become outcomes; all others
/// are dropped. The message is OpenTelemetry's `ExportTraceServiceRequest`.
#[utoipa::path(
    post,
    path = "/v1/traces",
    tag = "Telemetry",
    operation_id = "ExportTraces",
    request_body(content(
        (Object = "application/json"),
        (inline(Protobuf) = "application/x-protobuf"),
    )),
    responses(
        (status = OK, body = ExportResult, description = "What was refused, if anything was; in the encoding of the request, as all answers"),
        (status = BAD_REQUEST, body = ExportFailure, description = "The body can't be read"),
        (status = PAYLOAD_TOO_LARGE, body = ExportFailure, description = "The body is too large, as it is or decompressed"),
        (status = UNSUPPORTED_MEDIA_TYPE, body = ExportFailure, description = "The body is neither protobuf nor JSON, or is compressed by something else than gzip"),
        (status = SERVICE_UNAVAILABLE, body = ExportFailure, description = "Nothing can be taken in at the moment; send it again"),
    ),
)]
pub(super) async fn traces(
    State(otlp): State<Otlp>,
    Export { message, encoding }: Export<ExportTraceServiceRequest>,
) -> Response {
    match otlp.traces(&message).await {
        Ok(refused) => Answer {
            json: PartialSuccess::of_spans(refused.as_ref()),
            protobuf: grpc::of_spans(refused),
            encoding,
        }
        .into_response(),
        Err(error) => ExportFailure::from(error).encoded(encoding),
    }
}

/// Take in log records (OTLP)
///
/// Events `gen_ai.evaluation.result` become scores of the outcomes that their spans are; all others
/// are dropped. The message is OpenTelemetry's `ExportLogsServiceRequest`.
#[utoipa::path(
    post,
    path = "/v1/logs",
    tag = "Telemetry",
    operation_id = "ExportLogs",
    request_body(content(
        (Object = "application/json"),
        (inline(Protobuf) = "application/x-protobuf"),
    )),
    responses(
        (status = OK, body = ExportResult, description = "What was refused, if anything was; in the encoding of the request, as all answers"),
        (status = BAD_REQUEST, body = ExportFailure, description = "The body can't be read"),
        (status = PAYLOAD_TOO_LARGE, body = ExportFailure, description = "The body is too large, as it is or decompressed"),
        (status = UNSUPPORTED_MEDIA_TYPE, body = ExportFailure, description = "The body is neither protobuf nor JSON, or is compressed by something else than gzip"),
        (status = SERVICE_UNAVAILABLE, body = ExportFailure, description = "Nothing can be taken in at the moment; send it again"),
    ),
)]
pub(super) async fn logs(
    State(otlp): State<Otlp>,
    Export { message, encoding }: Export<ExportLogsServiceRequest>,
) -> Response {
    match otlp.logs(&message).await {
        Ok(refused) => Answer {
            json: PartialSuccess::of_log_records(refused.as_ref()),
            protobuf: grpc::of_log_records(refused),
            encoding,
        }
        .into_response(),
        Err(error) => ExportFailure::from(error).encoded(encoding),
    }
}

impl<S, M> FromRequest<S> for Export<M>
where
    S: Send + Sync,
    M: Message + Default + DeserializeOwned,
{
    type Rejection = Response;

    async fn from_request(request: Request, state: &S) -> Result<Self, Response> {
        let Some(encoding) = encoding(request.headers()) else {
            let why = "the body must be application/x-protobuf or application/json";
            // In an encoding that a person can read.
            return Err(unsupported(why).encoded(Encoding::Json));
        };
        let message = read(request, state, encoding).await;
        let message = message.map_err(|failure| failure.encoded(encoding))?;
        Ok(Self { message, encoding })
    }
}

async fn read<S, M>(request: Request, state: &S, encoding: Encoding) -> Result<M, ExportFailure>
where
    S: Send + Sync,
    M: Message + Default + DeserializeOwned,
{
    let compression = header_text(request.headers(), header::CONTENT_ENCODING);
    let is_gzip = match compression.to_ascii_lowercase().as_str() {
        "" | "identity" => false,
        "gzip" => true,
        _ => return Err(unsupported("the only compression that is known is gzip")),
    };
    let body = Bytes::from_request(request, state).await;
    let body = body.map_err(|rejection| {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            too_large()
        } else {
            malformed(&"the body could not be read to its end")
        }
    })?;
    let body = if is_gzip { decompress(&body)? } else { body };
    match encoding {
        Encoding::Protobuf => M::decode(body).map_err(|error| malformed(&error)),
        Encoding::Json => from_json(&body),
    }
}

/// Serde would take a list of a message's fields for the message.
fn from_json<M: DeserializeOwned>(body: &[u8]) -> Result<M, ExportFailure> {
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(malformed(&"the body must be an object"));
    }
    serde_json::from_slice(body).map_err(|error| malformed(&error))
}

/// What a body is once it is decompressed, which may be no larger than one that is not compressed.
fn decompress(body: &[u8]) -> Result<Bytes, ExportFailure> {
    let mut plain = Vec::new();
    let most = BODY_MAX as u64 + 1;
    let mut decoder = MultiGzDecoder::new(body).take(most);
    decoder
        .read_to_end(&mut plain)
        .map_err(|error| malformed(&error))?;
    if plain.len() > BODY_MAX {
        return Err(too_large());
    }
    Ok(plain.into())
}

fn encoding(headers: &HeaderMap) -> Option<Encoding> {
    let content_type = header_text(headers, header::CONTENT_TYPE);
    let kind = content_type.split(';').next()?.trim();
    if kind.eq_ignore_ascii_case("application/x-protobuf") {
        Some(Encoding::Protobuf)
    } else if kind.eq_ignore_ascii_case("application/json") {
        Some(Encoding::Json)
    } else {
        None
    }
}

fn header_text(headers: &HeaderMap, name: http::HeaderName) -> &str {
    let value = headers.get(name).and_then(|value| value.to_str().ok());
    value.unwrap_or_default()
}

fn unsupported(why: &str) -> ExportFailure {
    let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
    ExportFailure::new(status, Code::InvalidArgument, why.to_owned())
}

fn too_large() -> ExportFailure {
    let why = format!("the body is larger than {BODY_MAX} bytes; send smaller batches");
    ExportFailure::new(StatusCode::PAYLOAD_TOO_LARGE, Code::ResourceExhausted, why)
}

fn malformed(why: &impl ToString) -> ExportFailure {
    let (status, code) = (StatusCode::BAD_REQUEST, Code::InvalidArgument);
    ExportFailure::new(status, code, why.to_string())
}
