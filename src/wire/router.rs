//! Every protocol on one router.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    middleware,
    response::{IntoResponse as _, Redirect, Response},
    routing::get,
};
use http::{HeaderValue, StatusCode, header};
use tokio::sync::Semaphore;
use tonic::service::Routes as TonicRoutes;
use tonic_web::GrpcWebLayer;
use tower::Layer as _;
use tower_http::cors::Cors;
use utoipa_swagger_ui::SwaggerUi;

use super::{
    cors,
    edge::{self, Edge, Edged},
    error::Problem,
    flagd::{
        self, Flagd,
        pb::{
            evaluation::{v1, v2},
            sync::v1::flag_sync_service_server::FlagSyncServiceServer,
        },
    },
    grpc::Grpc,
    health::{self, Readiness},
    ofrep::{self, Ofrep},
    openapi,
    otlp::{self, Otlp},
    paths::Paths,
    pb::{
        self, audit_service_server::AuditServiceServer, deploy_service_server::DeployServiceServer,
        telemetry_service_server::TelemetryServiceServer,
        traffic_service_server::TrafficServiceServer,
    },
    rest::{self, Rest},
};
use crate::{
    domain::ids::Environment,
    service::Service,
    telemetry::{Protocol, Telemetry},
    wire::Origins,
};

/// What the routes are made of.
pub struct Routes {
    /// The use cases.
    pub service: Service,
    /// Whether to be sent requests.
    pub readiness: Readiness,
    /// Where `/metrics` comes from.
    pub telemetry: Arc<Telemetry>,
    /// Whose web pages may call.
    pub origins: Origins,
    /// The environment of an OpenFeature client, or of a span, that names none.
    pub default_environment: Environment,
    /// The name of the evaluation that is the quality, where it is to be one alone.
    pub evaluation_name: Option<String>,
    /// The longest that a request may take.
    pub timeout: Duration,
    /// Most requests that are worked on at a time.
    pub requests_max: usize,
}

/// The routes of every protocol, behind what each request goes through. Cheap to clone.
pub type Served = Cors<Edged>;

/// The routes of every protocol, with what each request goes through.
///
/// # Errors
/// The compiled contract can't be reflected, which is a bug.
pub fn router(parts: Routes) -> Result<Served, tonic_reflection::server::Error> {
    let otlp = Otlp {
        service: parts.service.clone(),
        default_environment: Arc::new(parts.default_environment.clone()),
        evaluation: parts.evaluation_name.as_deref().map(Into::into),
    };
    let (rest, paths) = rest_routes(&parts, otlp.clone());
    let edge = Edge {
        metrics: parts.service.metrics().clone(),
        paths,
        timeout: parts.timeout,
        requests: Semaphore::new(parts.requests_max.min(Semaphore::MAX_PERMITS)),
        origins: parts.origins.clone(),
    };
    let cors = cors::layer(&parts.origins);
    let grpc = grpc_routes(&parts, otlp)?;
    let router = Router::new()
        .merge(rest)
        .merge(flagd_routes(&parts))
        .merge(operations(parts.readiness, parts.telemetry))
        .merge(grpc)
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed);
    Ok(cors.layer(Edged::new(router, edge)))
}

fn grpc_routes(parts: &Routes, otlp: Otlp) -> Result<Router, tonic_reflection::server::Error> {
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(pb::DESCRIPTOR)
            .register_encoded_file_descriptor_set(flagd::pb::DESCRIPTOR)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            // So that grpcurl can show the details of an error.
            .register_encoded_file_descriptor_set(tonic_types::pb::FILE_DESCRIPTOR_SET)
    };
    let grpc = Grpc {
        service: parts.service.clone(),
        readiness: parts.readiness.clone(),
    };
    let routes = TonicRoutes::new(DeployServiceServer::new(grpc.clone()))
        .add_service(AuditServiceServer::new(grpc.clone()))
        .add_service(TrafficServiceServer::new(grpc.clone()))
        .add_service(TelemetryServiceServer::new(grpc))
        .add_service(otlp.clone().trace_service())
        .add_service(otlp.logs_service())
        .add_service(parts.readiness.grpc_service())
        // Older grpcurl asks for v1alpha.
        .add_service(reflection().build_v1()?)
        .add_service(reflection().build_v1alpha()?);
    // Its fallback would answer unknown REST paths with HTTP 200.
    Ok(routes
        .into_axum_router()
        .reset_fallback()
        .route_layer(GrpcWebLayer::new()))
}

/// What the providers of OpenFeature's SDKs call.
fn flagd_routes(parts: &Routes) -> Router {
    let flagd = Flagd {
        service: parts.service.clone(),
        default_environment: parts.default_environment.as_str().into(),
    };
    let evaluation = TonicRoutes::new(v1::service_server::ServiceServer::new(flagd.clone()))
        .add_service(v2::service_server::ServiceServer::new(flagd.clone()))
        .into_axum_router()
        .reset_fallback()
        .route_layer(GrpcWebLayer::new())
        .route_layer(middleware::from_fn(flagd::connect));
    let sync = FlagSyncServiceServer::new(flagd);
    let sync = TonicRoutes::new(sync).into_axum_router().reset_fallback();
    evaluation.merge(sync.route_layer(GrpcWebLayer::new()))
}

/// REST, OFREP and OTLP with their documentation, and the paths that are served.
fn rest_routes(parts: &Routes, otlp: Otlp) -> (Router, Paths) {
    let (routes, mut document) = rest::routes();
    let (flags, of_flags) = ofrep::routes();
    document.merge(of_flags);
    let (exports, of_exports) = otlp::routes();
    document.merge(of_exports);
    let flags = flags.with_state(Ofrep {
        service: parts.service.clone(),
        default_environment: Arc::new(parts.default_environment.clone()),
    });
    let state = Rest {
        service: parts.service.clone(),
        readiness: parts.readiness.clone(),
    };
    let document = openapi::complete(document);
    let paths = Paths::new(&document);
    let docs = SwaggerUi::new("/docs").url("/openapi.json", document);
    let exports = exports.with_state(otlp);
    let routes = routes.with_state(state).merge(flags).merge(exports);
    (routes.merge(docs), paths)
}

fn operations(readiness: Readiness, telemetry: Arc<Telemetry>) -> Router {
    let ready = Router::new()
        .route("/readyz", get(health::readyz))
        .route("/readyz/traffic", get(health::readyz_traffic))
        .with_state(readiness);
    let metrics = Router::new()
        .route("/metrics", get(metrics))
        .with_state(telemetry);
    Router::new()
        .route("/", get(async || Redirect::to("/docs/")))
        .route("/healthz", get(health::healthz))
        .merge(ready)
        .merge(metrics)
}

async fn metrics(State(telemetry): State<Arc<Telemetry>>) -> Response {
    match telemetry.render_prometheus() {
        Ok(text) => {
            let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
            ([(header::CONTENT_TYPE, content_type)], text).into_response()
        }
        Err(error) => {
            tracing::error!(%error, "the metrics can't be written");
            Problem::from(crate::service::Error::Internal).into_response()
        }
    }
}

async fn not_found(request: Request) -> Response {
    match edge::protocol(request.headers()) {
        (Protocol::Grpc | Protocol::GrpcWeb, content_type) => {
            let path = request.uri().path();
            edge::grpc(
                &tonic::Status::unimplemented(format!("{path} is not served")),
                content_type,
            )
        }
        (Protocol::Http, _) => Problem::of_http(
            StatusCode::NOT_FOUND,
            "NO_SUCH_PATH",
            "There is no such path",
            "nothing is served at this path; /docs lists what is",
        )
        .into_response(),
    }
}

async fn method_not_allowed() -> Response {
    Problem::of_http(
        StatusCode::METHOD_NOT_ALLOWED,
        "METHOD_NOT_ALLOWED",
        "The path does not take this method",
        "this path is served, but not with this method; /docs lists which",
    )
    .into_response()
}
