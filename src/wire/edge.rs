//! What every request goes through, whatever its protocol: an id, a span with the caller's trace
//! context, a deadline, a net for panics, and the counters.

use std::{
    collections::HashMap,
    convert::Infallible,
    panic::AssertUnwindSafe,
    sync::{Arc, LazyLock},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{Router, extract::Request, response::Response};
use futures_util::{FutureExt as _, future::BoxFuture};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use tokio::sync::{Semaphore, SemaphorePermit};
use tonic::{Code, Status};
use tower::{Service, ServiceExt as _};
use tracing::{Instrument as _, Span};
use uuid::Uuid;

use super::{Origins, caller::RequestId, cors, error::Problem, flagd, paths::Paths, pb};
use crate::telemetry::{self, Metrics, Protocol};

/// The header that carries the id of a request, both ways.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const TRACE_RESPONSE: HeaderName = HeaderName::from_static("traceresponse");
const GRPC_TIMEOUT: &str = "grpc-timeout";
const GRPC_STATUS: &str = "grpc-status";
const GRPC_MESSAGE: &str = "grpc-message";
const GRPC_DETAILS: &str = "grpc-status-details-bin";

/// The calls that say how the service is: answered whatever else there is to do.
const HEALTH: [&str; 6] = [
    "/healthz",
    "/readyz",
    "/readyz/traffic",
    "/v1/health",
    "/grpc.health.v1.Health/Check",
    "/delos.deploy.v1.DeployService/Health",
];

/// Marks a request that came on a connection too many: it is answered only where it asks how the
/// service is.
#[derive(Debug, Clone, Copy)]
pub struct Beyond;

/// What the edge needs to know.
pub(super) struct Edge {
    pub(super) metrics: Metrics,
    /// What is served over HTTP.
    pub(super) paths: Paths,
    /// The longest that a request may take.
    pub(super) timeout: Duration,
    /// A place for each request that may be worked on at a time.
    pub(super) requests: Semaphore,
    /// Whose web pages may call.
    pub(super) origins: Origins,
}

/// The routes behind the edge. It stands around the router and is no layer of it: a router boxes
/// and clones each of its layers for every request.
#[derive(Clone)]
pub struct Edged {
    router: Router,
    edge: Arc<Edge>,
}

impl Edged {
    pub(super) fn new(router: Router, edge: Edge) -> Self {
        let edge = Arc::new(edge);
        Self { router, edge }
    }
}

impl Service<Request> for Edged {
    type Response = Response;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // A router always is.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let Self { router, edge } = self.clone();
        Box::pin(async move { Ok(edge.answer(router, request).await) })
    }
}

impl Edge {
    async fn answer(&self, router: Router, mut request: Request) -> Response {
        let started = Instant::now();
        let (protocol, content_type) = protocol(request.headers());
        let method = self.method(protocol, &request);
        let id = request_id(request.headers());
        let span = span(protocol, method, &id);
        telemetry::context::extract(request.headers(), &span);
        let timeout = deadline(protocol, request.headers(), self.timeout);
        request.extensions_mut().insert(RequestId(id.clone()));

        let place = self.admit(&request);
        let response = match (refusal(&self.origins, protocol, &request), &place) {
            (Some(problem), _) => axum::response::IntoResponse::into_response(problem),
            (None, Place::None) => Failure::Busy.respond(protocol, content_type),
            (None, Place::NotNeeded | Place::Taken(_)) => {
                let answer = AssertUnwindSafe(router.oneshot(request)).catch_unwind();
                let answer = tokio::time::timeout(timeout, answer)
                    .instrument(span.clone())
                    .await;
                let failure = match answer {
                    Ok(Ok(Ok(response))) => Ok(response),
                    Ok(Err(_)) => {
                        span.in_scope(|| tracing::error!("a handler panicked"));
                        Err(Failure::Panic)
                    }
                    Err(_) => Err(Failure::Deadline),
                };
                failure.unwrap_or_else(|failure| failure.respond(protocol, content_type))
            }
        };
        let mut response = finish(response, &id, &span);
        if protocol != Protocol::Http {
            correct_grpc_status(response.headers_mut());
        }
        let code = code(protocol, &response);
        let elapsed = started.elapsed();
        span.in_scope(|| {
            tracing::debug!(code, elapsed_ms = elapsed.as_secs_f64() * 1e3, "request")
        });
        self.metrics.request(protocol, method, code, elapsed);
        response
    }

    fn admit(&self, request: &Request) -> Place<'_> {
        if HEALTH.contains(&request.uri().path()) {
            return Place::NotNeeded;
        }
        if request.extensions().get::<Beyond>().is_some() {
            return Place::None;
        }
        let taken = self.requests.try_acquire();
        taken.map_or(Place::None, Place::Taken)
    }

    /// The name of what is called, out of a set that callers can't add to.
    fn method(&self, protocol: Protocol, request: &Request) -> &'static str {
        let path = request.uri().path();
        let rpc = || RPCS.get(path).copied();
        let name = match protocol {
            Protocol::Grpc | Protocol::GrpcWeb => rpc(),
            // Connect speaks HTTP to the paths of RPCs.
            Protocol::Http => self.paths.name(request.method(), path).or_else(rpc),
        };
        name.unwrap_or("_OTHER")
    }
}

/// What no handler is asked at all: what a page may not send, and what speaks something else to a
/// path that speaks gRPC. (A layer of its own for each would cost every request a boxed future.)
fn refusal(origins: &Origins, protocol: Protocol, request: &Request) -> Option<Problem> {
    if let Some(problem) = cors::refusal(origins, request) {
        return Some(problem);
    }
    let path = request.uri().path();
    let is_grpc_only = ["/delos.", "/grpc.", "/opentelemetry."]
        .iter()
        .any(|package| path.starts_with(package));
    (protocol == Protocol::Http && is_grpc_only && RPCS.contains_key(path)).then(|| {
        Problem::of_http(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "NOT_GRPC",
            "The path speaks gRPC",
            "this path speaks gRPC and gRPC-web; the same calls as JSON are under /v1, and /docs lists them",
        )
    })
}

/// A request's place among those that are worked on. A stream gives it back once it begins.
enum Place<'a> {
    NotNeeded,
    Taken(#[expect(dead_code, reason = "it is given back when it is dropped")] SemaphorePermit<'a>),
    None,
}

/// A request that no handler answered.
enum Failure {
    Busy,
    Panic,
    Deadline,
}

impl Failure {
    fn respond(self, protocol: Protocol, content_type: Option<HeaderValue>) -> Response {
        let busy = || {
            let why = "as many requests are worked on already as may be; retry";
            crate::service::Error::Busy(why.into())
        };
        match (protocol, self) {
            (Protocol::Http, Self::Busy) => {
                axum::response::IntoResponse::into_response(Problem::from(busy()))
            }
            (Protocol::Grpc | Protocol::GrpcWeb, Self::Busy) => {
                grpc(&super::error::status(&busy()), content_type)
            }
            (Protocol::Http, Self::Panic) => axum::response::IntoResponse::into_response(
                Problem::from(crate::service::Error::Internal),
            ),
            (Protocol::Http, Self::Deadline) => {
                axum::response::IntoResponse::into_response(Problem::of_http(
                    StatusCode::GATEWAY_TIMEOUT,
                    "DEADLINE_EXCEEDED",
                    "It took too long",
                    "the request was given up at its deadline; what it had begun to write may have been done",
                ))
            }
            (Protocol::Grpc | Protocol::GrpcWeb, Self::Panic) => grpc(
                &super::error::status(&crate::service::Error::Internal),
                content_type,
            ),
            (Protocol::Grpc | Protocol::GrpcWeb, Self::Deadline) => grpc(
                &Status::deadline_exceeded(
                    "the request was given up at its deadline; what it had begun to write may have been done",
                ),
                content_type,
            ),
        }
    }
}

/// A gRPC failure that no gRPC service has written.
pub(super) fn grpc(status: &Status, content_type: Option<HeaderValue>) -> Response {
    let mut response = status.clone().into_http();
    if let Some(content_type) = content_type {
        response
            .headers_mut()
            .insert(header::CONTENT_TYPE, content_type);
    }
    response
}

/// Which protocol a request speaks, and its content type.
pub(super) fn protocol(headers: &HeaderMap) -> (Protocol, Option<HeaderValue>) {
    let content_type = headers.get(header::CONTENT_TYPE);
    let text = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let protocol = if text.starts_with("application/grpc-web") {
        Protocol::GrpcWeb
    } else if text.starts_with("application/grpc") {
        Protocol::Grpc
    } else {
        Protocol::Http
    };
    (protocol, content_type.cloned())
}

/// The RPCs that are served, by path.
static RPCS: LazyLock<HashMap<&'static str, &'static str>> = LazyLock::new(|| {
    let services = pb::descriptors()
        .services()
        .chain(flagd::pb::descriptors().services());
    let described = services.flat_map(|service| {
        let methods: Vec<_> = service.methods().collect();
        methods
            .into_iter()
            .map(move |method| format!("/{}/{}", service.full_name(), method.name()))
    });
    let foreign = [
        "/grpc.health.v1.Health/Check",
        "/grpc.health.v1.Health/Watch",
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        "/opentelemetry.proto.collector.logs.v1.LogsService/Export",
        "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
    ];
    described
        .chain(foreign.map(str::to_owned))
        .map(|path| {
            // Once, for the life of the process.
            let path: &'static str = path.leak();
            (path, path.trim_start_matches('/'))
        })
        .collect()
});

/// The caller's id where it is short and plain enough for a log, otherwise a new one.
fn request_id(headers: &HeaderMap) -> String {
    let plain = |id: &&str| {
        (1..=128).contains(&id.len())
            && id
                .bytes()
                .all(|byte| byte.is_ascii_graphic() && byte != b'"')
    };
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(plain)
        .map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

fn span(protocol: Protocol, method: &str, id: &str) -> Span {
    // A field that is recorded later has the others parsed and written again.
    match protocol {
        Protocol::Http => tracing::info_span!(
            "request",
            request_id = id,
            method,
            otel.name = method,
            otel.kind = "server",
        ),
        Protocol::Grpc | Protocol::GrpcWeb => tracing::info_span!(
            "request",
            request_id = id,
            method,
            otel.name = method,
            otel.kind = "server",
            rpc.system.name = "grpc",
        ),
    }
}

/// How long the request may take: what the caller says, and never longer than we do.
fn deadline(protocol: Protocol, headers: &HeaderMap, ours: Duration) -> Duration {
    if protocol == Protocol::Http {
        return ours;
    }
    let asked = headers
        .get(GRPC_TIMEOUT)
        .and_then(|value| value.to_str().ok())
        .and_then(parse_timeout);
    asked.map_or(ours, |asked| asked.min(ours))
}

/// `grpc-timeout`: at most eight digits and a unit (gRPC over HTTP/2, "Timeout"). What is
/// malformed is taken as not there.
fn parse_timeout(text: &str) -> Option<Duration> {
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number * 3600)),
        "M" => Some(Duration::from_secs(number * 60)),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

fn finish(mut response: Response, id: &str, span: &Span) -> Response {
    if let Some(problem) = response.extensions_mut().remove::<Problem>() {
        // The router's word on which methods the path takes.
        let allow = response.headers_mut().remove(header::ALLOW);
        response = problem.respond(id);
        if let Some(allow) = allow {
            response.headers_mut().insert(header::ALLOW, allow);
        }
    }
    let headers = response.headers_mut();
    if let Ok(value) = HeaderValue::from_str(id) {
        headers.insert(REQUEST_ID, value);
    }
    if let Some(value) = telemetry::context::traceparent(span) {
        headers.insert(TRACE_RESPONSE, value);
    }
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    response
}

/// Gives a message that is too large, or that can't be decoded, the status of the contract. tonic
/// has others; it answers before any handler of ours, which would add details.
fn correct_grpc_status(headers: &mut HeaderMap) {
    if headers.contains_key(GRPC_DETAILS) {
        return;
    }
    let is = |code: &'static str| headers.get(GRPC_STATUS).is_some_and(|value| value == code);
    let says = |text: &str| {
        let message = headers.get(GRPC_MESSAGE).map(HeaderValue::as_bytes);
        message.is_some_and(|message| message.starts_with(text.as_bytes()))
    };
    let correct = if is("11") {
        "8"
    } else if is("13") && says("failed%20to%20decode") {
        "3"
    } else {
        return;
    };
    headers.insert(GRPC_STATUS, HeaderValue::from_static(correct));
}

/// The outcome, as the protocol names it. A unary gRPC failure has its status in the headers.
fn code(protocol: Protocol, response: &Response) -> &'static str {
    if protocol == Protocol::Http {
        return http_code(response.status());
    }
    let status = response.headers().get(GRPC_STATUS);
    grpc_code(status.map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes())))
}

fn http_code(status: StatusCode) -> &'static str {
    match status.as_u16() {
        200 => "200",
        201 => "201",
        204 => "204",
        303 => "303",
        304 => "304",
        307 => "307",
        400 => "400",
        404 => "404",
        405 => "405",
        409 => "409",
        413 => "413",
        415 => "415",
        429 => "429",
        500 => "500",
        503 => "503",
        504 => "504",
        _ => "_OTHER",
    }
}

pub(super) fn grpc_code(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

#[cfg(test)]
mod tests {
    use axum::{body::Body, routing::any};
    use http_body_util::BodyExt as _;
    use utoipa::openapi::OpenApi;

    use super::*;

    #[test]
    fn timeouts_as_grpc_writes_them() {
        assert_eq!(parse_timeout("250m"), Some(Duration::from_millis(250)));
        assert_eq!(
            parse_timeout("99999999H"),
            Some(Duration::from_secs(99_999_999 * 3600))
        );
        assert_eq!(parse_timeout("7n"), Some(Duration::from_nanos(7)));
        for malformed in ["", "m", "-1S", "1", "1s", "123456789S", "1.5S", "ä"] {
            assert_eq!(parse_timeout(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn an_id_that_a_log_can_t_take_is_replaced() {
        let with = |id: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(id.as_bytes()).unwrap());
            request_id(&headers)
        };
        assert_eq!(with("ci-42"), "ci-42");
        assert_ne!(with("a b"), "a b");
        assert_ne!(with(&"x".repeat(129)), "x".repeat(129));
    }

    async fn panics() -> Response {
        panic!("what only the log may say");
    }

    async fn never_answers() -> Response {
        std::future::pending().await
    }

    /// What the edge makes of a handler that panics or never answers.
    async fn ask(path: &str, content_type: &'static str) -> Response {
        let edge = Edge {
            metrics: Metrics::default(),
            paths: Paths::new(&OpenApi::default()),
            timeout: Duration::from_millis(20),
            requests: Semaphore::new(1),
            origins: Origins::None,
        };
        let router = Router::new()
            .route("/panics", any(panics))
            .route("/never", any(never_answers));
        let request = Request::post(path)
            .header(header::CONTENT_TYPE, content_type)
            .header(REQUEST_ID, "req-1")
            .body(Body::empty());
        let edged = Edged::new(router, edge);
        edged.oneshot(request.unwrap()).await.unwrap()
    }

    #[tokio::test]
    async fn a_handler_that_fails_is_a_problem_without_inner_detail() {
        for (path, status, reason) in [
            ("/panics", StatusCode::INTERNAL_SERVER_ERROR, "INTERNAL"),
            ("/never", StatusCode::GATEWAY_TIMEOUT, "DEADLINE_EXCEEDED"),
        ] {
            let response = ask(path, "application/json").await;
            assert_eq!(response.status(), status);
            let kind = &response.headers()[header::CONTENT_TYPE];
            assert_eq!(kind, "application/problem+json");
            assert_eq!(response.headers()[REQUEST_ID], "req-1");
            let body = response.into_body().collect().await.unwrap().to_bytes();
            let problem: serde_json::Value = serde_json::from_slice(&body).unwrap();
            assert_eq!(problem["reason"], reason);
            assert_eq!(problem["request_id"], "req-1");
            assert!(!problem.to_string().contains("what only the log may say"));
        }
    }

    #[tokio::test]
    async fn a_handler_that_fails_is_a_grpc_status_with_the_content_type_of_the_call() {
        for content_type in [
            "application/grpc",
            "application/grpc+proto",
            "application/grpc-web+proto",
            "application/grpc-web-text",
        ] {
            for (path, code) in [
                ("/panics", Code::Internal),
                ("/never", Code::DeadlineExceeded),
            ] {
                let response = ask(path, content_type).await;
                assert_eq!(response.status(), StatusCode::OK);
                assert_eq!(response.headers()[header::CONTENT_TYPE], content_type);
                assert_eq!(response.headers()[REQUEST_ID], "req-1");
                let status = Status::from_header_map(response.headers()).unwrap();
                assert_eq!(status.code(), code);
                assert!(!status.message().contains("what only the log may say"));
            }
        }
    }
}
