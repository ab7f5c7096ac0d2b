//! The OpenAPI document: generated from the routes, whose schemas are read off the contract.

use utoipa::openapi::{
    ContentBuilder, InfoBuilder, OpenApi, Ref, RefOr, ResponseBuilder, path::Operation,
    tag::TagBuilder,
};
use utoipa::{PartialSchema as _, ToSchema as _};

use super::{
    error::{FieldError, Problem},
    ofrep, otlp, rest,
    schema::place_path_parameters,
};

const DESCRIPTION: &str = "Decides whether a new version of an LLM prompt reaches users, and takes it \
back when it should not have.\n\nThe JSON of a message is protobuf's, with the proto's own field names. \
Errors are RFC 9457 problems. Send your name in the header `x-delos-actor`; it is put on record \
unverified.";

/// The document that is served at `/openapi.json`.
#[must_use]
pub fn document() -> OpenApi {
    let mut document = rest::routes().1;
    document.merge(ofrep::routes().1);
    document.merge(otlp::routes().1);
    complete(document)
}

pub(super) fn complete(mut document: OpenApi) -> OpenApi {
    document.info = InfoBuilder::new()
        .title("Delos Deploy")
        .version("v1")
        .description(Some(DESCRIPTION))
        .build();
    document.tags = Some(
        [
            "Deployments",
            "Quality gates",
            "Traffic",
            "Telemetry",
            "OpenFeature",
            "Telemetry",
            "Audit",
            "Health",
        ]
        .map(|name| TagBuilder::new().name(name).build())
        .to_vec(),
    );
    place_path_parameters(&mut document);
    let components = document.components.get_or_insert_default();
    components
        .schemas
        .insert(Problem::name().into_owned(), Problem::schema());
    components
        .schemas
        .insert(FieldError::name().into_owned(), FieldError::schema());
    for (path, item) in &mut document.paths.paths {
        let is_foreign = path.contains("/ofrep/") || matches!(&**path, "/v1/traces" | "/v1/logs");
        let operations = [&mut item.get, &mut item.post];
        for operation in operations.into_iter().flatten() {
            add_problems(operation, is_foreign);
        }
    }
    document
}

/// Any call may end in a problem; which ones it is likely to is said by status. A foreign protocol
/// has failures of its own; what never gets to it is a problem there too.
fn add_problems(operation: &mut Operation, is_foreign: bool) {
    let reads_id = operation.parameters.is_some();
    let writes = operation.request_body.is_some();
    let mut problems = vec![("500", "An internal error"), ("504", "It took too long")];
    if operation.operation_id.as_deref() != Some("Health") {
        problems.push((
            "429",
            "There is too much to do at once, or a limit was reached",
        ));
    }
    if !is_foreign {
        problems.push(("503", "The storage does not answer"));
    }
    if !is_foreign && (reads_id || writes) {
        problems.push(("400", "The request is malformed"));
        problems.push(("404", "There is no such thing"));
    }
    if !is_foreign && writes {
        problems.extend([
            ("403", "Pages of this origin may not call the service"),
            ("409", "The state forbids it, or it changed meanwhile"),
            ("413", "The body is too large"),
            ("415", "The body is not sent as JSON"),
        ]);
    }
    for (status, description) in problems {
        let content = ContentBuilder::new()
            .schema(Some(Ref::from_schema_name(Problem::name())))
            .build();
        let response = ResponseBuilder::new()
            .description(description)
            .content("application/problem+json", content)
            .build();
        operation
            .responses
            .responses
            .insert(status.to_owned(), RefOr::T(response));
    }
}
