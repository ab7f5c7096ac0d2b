//! OFREP, the OpenFeature Remote Evaluation Protocol (0.3.0): the served versions as flags, for
//! any OpenFeature SDK.
//!
//! The flag's key is the prompt's id and its value the version, a number. The environment is the
//! one of the base path, or the one that the context names, or the configured one. The protocol
//! is not ours: its shapes stand here, and its errors are its own and no problems.

use std::sync::Arc;

use axum::{Router, extract::DefaultBodyLimit, routing::post};
use utoipa::openapi::{
    OpenApi, RefOr, Required, Schema,
    path::{Operation, ParameterBuilder, ParameterIn},
    schema::{ObjectBuilder, Type},
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{bounds::ENVIRONMENT, rest::BODY_MAX};
use crate::{domain::ids::Environment, service::Service};

mod asked;
mod bulk;
mod evaluate;
mod events;
mod failure;

/// Base path of a client that is bound to an environment.
const IN_ENVIRONMENT: &str = "/environments/{environment}";

/// What the calls ask.
#[derive(Debug, Clone)]
pub(super) struct Ofrep {
    pub(super) service: Service,
    /// The environment of whoever names none.
    pub(super) default_environment: Arc<Environment>,
}

/// The routes, and the document that describes them.
pub(super) fn routes() -> (Router<Ofrep>, OpenApi) {
    let (router, document) = calls()
        .nest(IN_ENVIRONMENT, calls())
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .split_for_parts();
    (router, described(document))
}

fn calls() -> OpenApiRouter<Ofrep> {
    OpenApiRouter::new()
        .routes(routes!(evaluate::flag))
        .routes(routes!(bulk::flags))
        .routes(routes!(events::events))
        // The flag without a name, which SDKs do ask for: it is not found, like any that is none.
        .route("/ofrep/v1/evaluate/flags/", post(evaluate::flag))
}

/// OpenAPI knows no wildcards, and wants a name of its own for each operation.
fn described(mut document: OpenApi) -> OpenApi {
    let paths = std::mem::take(&mut document.paths.paths);
    for (path, mut item) in paths {
        if path.starts_with(IN_ENVIRONMENT) {
            for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
                bind_to_environment(operation);
            }
        }
        document.paths.paths.insert(path.replace("{*", "{"), item);
    }
    document
}

fn bind_to_environment(operation: &mut Operation) {
    if let Some(id) = &mut operation.operation_id {
        id.push_str("InEnvironment");
    }
    let environment = ParameterBuilder::new()
        .name("environment")
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some("The environment, whatever the context names"))
        .schema(Some(RefOr::T(Schema::Object(
            ObjectBuilder::new()
                .schema_type(Type::String)
                .pattern(Some(ENVIRONMENT))
                .build(),
        ))))
        .build();
    let parameters = operation.parameters.get_or_insert_default();
    parameters.retain(
        |parameter| !matches!(parameter, RefOr::T(parameter) if parameter.name == "environment"),
    );
    parameters.insert(0, RefOr::T(environment));
}
