//! The Connect protocol, which the providers of Go and of browsers speak instead of gRPC, as a
//! layer before the gRPC services: a request is rewritten to gRPC, its answer back.
//!
//! <https://connectrpc.com/docs/protocol>: unary calls have the bare message as their body; streams
//! (in `stream`) have gRPC's frames, and a last one with the status. Both come as protobuf or as its
//! JSON.

use axum::{
    body::{Body, to_bytes},
    extract::Request,
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bytes::{Buf as _, Bytes};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version, header};
use http_body_util::BodyExt as _;
use prost_reflect::{
    DeserializeOptions, DynamicMessage, MessageDescriptor, MethodDescriptor, prost::Message as _,
};
use serde_json::json;
use tonic::{Code, Status};

mod stream;

use super::pb;
use crate::wire::edge::grpc_code;

/// Largest request, in bytes.
const REQUEST_MAX: usize = 1024 * 1024;

/// How messages are written, by its content type.
#[derive(Debug, Clone, Copy)]
struct Codec(&'static str);

const CODECS: [Codec; 4] = [
    Codec("application/proto"),
    Codec("application/json"),
    Codec("application/connect+proto"),
    Codec("application/connect+json"),
];

/// Answers a request of the Connect protocol, and lets all others pass.
pub(in crate::wire) async fn connect(request: Request, next: Next) -> Response {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.and_then(|value| value.to_str().ok());
    let essence = content_type.and_then(|text| text.split(';').next());
    let codec = CODECS
        .into_iter()
        .find(|codec| essence.is_some_and(|it| it.trim() == codec.0));
    match codec {
        Some(codec) if request.method() == Method::POST => codec
            .call(request, next)
            .await
            .unwrap_or_else(|status| codec.refuse(&status)),
        _ => next.run(request).await,
    }
}

impl Codec {
    fn is_json(self) -> bool {
        self.0.ends_with("json")
    }

    fn is_stream(self) -> bool {
        self.0.contains("connect+")
    }

    async fn call(self, request: Request, next: Next) -> Result<Response, Status> {
        let method = method(request.uri().path())
            .filter(|method| method.is_server_streaming() == self.is_stream())
            .ok_or_else(|| Status::unimplemented("there is no such call of this kind"))?;
        let (mut parts, body) = request.into_parts();
        let encoding = if self.is_stream() {
            "connect-content-encoding"
        } else {
            "content-encoding"
        };
        if parts
            .headers
            .get(encoding)
            .is_some_and(|it| it != "identity")
        {
            return Err(Status::unimplemented("compression is not supported"));
        }
        let body = to_bytes(body, REQUEST_MAX).await;
        let mut body = body.map_err(|_| Status::resource_exhausted("the request is too large"))?;
        if self.is_stream() {
            if body.len() < stream::HEADER {
                return Err(Status::invalid_argument("a message is missing"));
            }
            body.advance(stream::HEADER);
        }
        let message = if self.is_json() {
            protobuf(method.input(), &body)?
        } else {
            body
        };
        for name in [header::CONTENT_LENGTH, header::ACCEPT_ENCODING] {
            parts.headers.remove(name);
        }
        let content_type = HeaderValue::from_static("application/grpc");
        parts.headers.insert(header::CONTENT_TYPE, content_type);
        parts.version = Version::HTTP_2;
        let request = Request::from_parts(parts, Body::from(stream::frame(0, &message)));
        let response = next.run(request).await;
        if self.is_stream() {
            Ok(self.stream(response, method.output()))
        } else {
            self.unary(response, &method.output()).await
        }
    }

    async fn unary(
        self,
        response: Response,
        output: &MessageDescriptor,
    ) -> Result<Response, Status> {
        failure(response.headers())?;
        let body = response.into_body().collect().await;
        let body = body.map_err(|_| Status::internal("the answer broke off"))?;
        failure(body.trailers().unwrap_or(&HeaderMap::new()))?;
        let mut bytes = body.to_bytes();
        bytes.advance(stream::HEADER.min(bytes.len()));
        Ok(self.respond(Body::from(self.write(output, bytes)?)))
    }

    fn write(self, output: &MessageDescriptor, message: Bytes) -> Result<Bytes, Status> {
        if !self.is_json() {
            return Ok(message);
        }
        let unreadable = |_| Status::internal("the answer can't be written as JSON");
        let message = DynamicMessage::decode(output.clone(), message).map_err(|_| ());
        let json = message.and_then(|message| serde_json::to_vec(&message).map_err(|_| ()));
        json.map(Bytes::from).map_err(unreadable)
    }

    fn refuse(self, status: &Status) -> Response {
        if self.is_stream() {
            return self.respond(Body::from(stream::end(Some(status))));
        }
        let content_type = [(header::CONTENT_TYPE, "application/json")];
        let body = error(status).to_string();
        (http_status(status.code()), content_type, body).into_response()
    }

    fn respond(self, body: Body) -> Response {
        ([(header::CONTENT_TYPE, self.0)], body).into_response()
    }
}

/// The call at a path.
fn method(path: &str) -> Option<MethodDescriptor> {
    let (service, method) = path.strip_prefix('/')?.split_once('/')?;
    let service = pb::descriptors().get_service_by_name(service)?;
    service.methods().find(|it| it.name() == method)
}

fn protobuf(input: MessageDescriptor, json: &[u8]) -> Result<Bytes, Status> {
    let mut json = serde_json::Deserializer::from_slice(json);
    let options = DeserializeOptions::new().deny_unknown_fields(false);
    let message = DynamicMessage::deserialize_with_options(input, &mut json, &options)
        .map_err(|error| Status::invalid_argument(format!("the message can't be read: {error}")))?;
    json.end()
        .map_err(|_| Status::invalid_argument("more than one message"))?;
    Ok(message.encode_to_vec().into())
}

fn failure(headers: &HeaderMap) -> Result<(), Status> {
    match Status::from_header_map(headers) {
        Some(status) if status.code() != Code::Ok => Err(status),
        _ => Ok(()),
    }
}

fn error(status: &Status) -> serde_json::Value {
    // The same names, but for CANCELLED, which nothing here ends with.
    let code = grpc_code(status.code()).to_lowercase();
    json!({ "code": code, "message": status.message() })
}

/// The HTTP status of the failures that happen here.
fn http_status(code: Code) -> StatusCode {
    [
        (Code::InvalidArgument, StatusCode::BAD_REQUEST),
        (Code::NotFound, StatusCode::NOT_FOUND),
        (Code::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS),
        (Code::Unimplemented, StatusCode::NOT_IMPLEMENTED),
        (Code::Unavailable, StatusCode::SERVICE_UNAVAILABLE),
    ]
    .into_iter()
    .find_map(|(of, status)| (of == code).then_some(status))
    .unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
}
