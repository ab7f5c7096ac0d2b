//! The OpenAPI schemas of the proto messages, read off the compiled contract.
//!
//! There is no REST type to keep in step with a message: its schema has the proto's field names,
//! and the proto's comments are the descriptions. The schemas say what the service writes, and
//! of what it reads the plain form; it also reads lowerCamelCase names, enums by number and
//! numbers as strings.

use std::{
    borrow::Cow,
    collections::{BTreeMap, HashMap, HashSet},
    sync::LazyLock,
};

use prost_reflect::{EnumDescriptor, FieldDescriptor, FileDescriptor, Kind, MessageDescriptor};
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{
        KnownFormat, ObjectBuilder, OpenApi, Ref, RefOr, Required, Schema, SchemaFormat, Type,
        path::{Parameter, ParameterBuilder, ParameterIn},
        schema::{AdditionalProperties, ArrayBuilder},
    },
};

use super::{bounds, pb};

const PACKAGE: &str = "delos.deploy.v1";
const TIMESTAMP: &str = "google.protobuf.Timestamp";

/// Lets messages stand in `#[utoipa::path]`: as a body, and with their fields as parameters.
macro_rules! message_schemas {
    ($($message:ident),* $(,)?) => {$(
        impl PartialSchema for pb::$message {
            fn schema() -> RefOr<Schema> {
                message_schema(&message(stringify!($message)))
            }
        }

        impl ToSchema for pb::$message {
            fn name() -> Cow<'static, str> {
                Cow::Borrowed(stringify!($message))
            }

            fn schemas(schemas: &mut Vec<(String, RefOr<Schema>)>) {
                schemas.extend(component_schemas(&message(stringify!($message))));
            }
        }

        impl IntoParams for pb::$message {
            fn into_params(place: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                let place = place().unwrap_or(ParameterIn::Query);
                parameters(&message(stringify!($message)), &place)
            }
        }
    )*};
}

message_schemas! {
    GetTrafficRequest,
    GetTrafficResponse,
    ListTrafficRequest,
    ListTrafficResponse,
    ResolveVersionRequest,
    ResolveVersionResponse,
    WatchTrafficRequest,
    WatchTrafficResponse,
    ApproveDeploymentRequest,
    ApproveDeploymentResponse,
    CancelDeploymentRequest,
    CancelDeploymentResponse,
    CreateDeploymentRequest,
    CreateDeploymentResponse,
    CreateQualityGateRequest,
    CreateQualityGateResponse,
    Deployment,
    Event,
    ExplainDeploymentRequest,
    ExplainDeploymentResponse,
    GetDeploymentRequest,
    GetDeploymentResponse,
    GetDeploymentStatusRequest,
    GetDeploymentStatusResponse,
    HealthResponse,
    ListDeploymentsRequest,
    ListDeploymentsResponse,
    ListEventsRequest,
    ListEventsResponse,
    ListQualityGatesRequest,
    ListQualityGatesResponse,
    QualityGate,
    ReportGateConditionRequest,
    ReportGateConditionResponse,
    ReportOutcomesRequest,
    ReportOutcomesResponse,
    RollbackDeploymentRequest,
    RollbackDeploymentResponse,
}

/// Moves each parameter whose name stands in its path's template from the query to the path.
///
/// So a route names its request message and nothing more: of `params(pb::ListEventsRequest)`,
/// `deployment_id` is a path parameter under `/v1/deployments/{deployment_id}/events` and a
/// query parameter under `/v1/events`. To be called once, on the finished document.
pub fn place_path_parameters(api: &mut OpenApi) {
    drop_placed_fields(api);
    for (path, item) in &mut api.paths.paths {
        let operations = [
            &mut item.get,
            &mut item.put,
            &mut item.post,
            &mut item.patch,
            &mut item.delete,
        ];
        let parameters = operations
            .into_iter()
            .flatten()
            .filter_map(|operation| operation.parameters.as_mut())
            .flatten();
        for parameter in parameters {
            if let RefOr::T(parameter) = parameter
                && path.contains(&format!("{{{}}}", parameter.name))
            {
                parameter.parameter_in = ParameterIn::Path;
                parameter.required = Required::True;
            }
        }
    }
}

/// Takes out of each body what stands in its path.
fn drop_placed_fields(api: &mut OpenApi) {
    let Some(components) = &mut api.components else {
        return;
    };
    for (path, item) in &api.paths.paths {
        let body = item
            .post
            .as_ref()
            .and_then(|call| call.request_body.as_ref());
        let schema = body.and_then(|body| match body {
            RefOr::T(body) => match body.content.get("application/json")? {
                RefOr::T(content) => content.schema.as_ref(),
                RefOr::Ref(_) => None,
            },
            RefOr::Ref(_) => None,
        });
        let Some(name) = schema.and_then(referred) else {
            continue;
        };
        if let Some(RefOr::T(Schema::Object(object))) = components.schemas.get_mut(name) {
            object
                .properties
                .retain(|field, _| !path.contains(&format!("{{{field}}}")));
        }
    }
}

/// The component that a schema is, or may be.
fn referred(schema: &RefOr<Schema>) -> Option<&str> {
    match schema {
        RefOr::Ref(reference) => reference.ref_location.rsplit('/').next(),
        RefOr::T(Schema::OneOf(either)) => either.items.iter().find_map(referred),
        RefOr::T(_) => None,
    }
}

fn message(name: &str) -> MessageDescriptor {
    pb::descriptors()
        .get_message_by_name(&format!("{PACKAGE}.{name}"))
        .expect("the message was compiled from the same contract as its descriptor")
}

/// A message as an object. What protobuf's JSON always writes is required of a response; a field
/// whose presence is known (a message, a oneof) is left out while it isn't set, never null. A
/// request may leave out what is not required of it, and nothing may be added to it.
fn message_schema(message: &MessageDescriptor) -> RefOr<Schema> {
    let of_request = is_part_of_request(message);
    let mut object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(comment(&message.parent_file(), message.path()));
    for field in message.fields() {
        let mut schema = field_schema(&field);
        if of_request {
            schema = bounds::narrowed(message.name(), field.name(), schema);
        } else if !field.supports_presence() {
            object = object.required(field.name());
        }
        object = object.property(field.name(), schema);
    }
    if of_request {
        for name in bounds::required(message.name()) {
            object = object.required(*name);
        }
        object = object.additional_properties(Some(AdditionalProperties::FreeForm(false)));
    }
    object.into()
}

fn field_schema(field: &FieldDescriptor) -> RefOr<Schema> {
    let description = comment(&field.parent_message().parent_file(), field.path());
    let kind = element_kind(field);
    if field.is_map() {
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .additional_properties(Some(value_schema(&kind, None)))
            .description(description)
            .into()
    } else if field.is_list() {
        ArrayBuilder::new()
            .items(value_schema(&kind, None))
            .description(description)
            .into()
    } else {
        value_schema(&kind, description)
    }
}

/// The type of a field's values: of a map those under its keys, of a list its items.
fn element_kind(field: &FieldDescriptor) -> Kind {
    let kind = field.kind();
    let entry = kind.as_message().filter(|_| field.is_map());
    entry.map_or(kind.clone(), |entry| entry.map_entry_value_field().kind())
}

fn value_schema(kind: &Kind, description: Option<String>) -> RefOr<Schema> {
    let (schema_type, format) = match kind {
        Kind::Message(inner) if inner.full_name() == TIMESTAMP => {
            (Type::String, Some(KnownFormat::DateTime))
        }
        Kind::Message(inner) => return reference(inner.name(), description),
        Kind::Enum(inner) => return reference(inner.name(), description),
        Kind::Bool => (Type::Boolean, None),
        Kind::String => (Type::String, None),
        Kind::Bytes => (Type::String, Some(KnownFormat::Byte)),
        Kind::Double => (Type::Number, Some(KnownFormat::Double)),
        Kind::Float => (Type::Number, Some(KnownFormat::Float)),
        Kind::Int32 | Kind::Sint32 | Kind::Sfixed32 => (Type::Integer, Some(KnownFormat::Int32)),
        // All 32 unsigned bits need a format of 64.
        Kind::Uint32 | Kind::Fixed32 => (Type::Integer, Some(KnownFormat::Int64)),
        // A JavaScript number can't hold all 64 bits, so protobuf's JSON writes a string.
        Kind::Int64 | Kind::Sint64 | Kind::Sfixed64 | Kind::Uint64 | Kind::Fixed64 => {
            (Type::String, Some(KnownFormat::Int64))
        }
    };
    ObjectBuilder::new()
        .schema_type(schema_type)
        .format(format.map(SchemaFormat::KnownFormat))
        .description(description)
        .into()
}

fn reference(name: &str, description: Option<String>) -> RefOr<Schema> {
    let mut reference = Ref::from_schema_name(name);
    reference.description = description.unwrap_or_default();
    reference.into()
}

fn enum_schema(of: &EnumDescriptor) -> RefOr<Schema> {
    let values: Vec<_> = of.values().collect();
    let meanings = values.iter().filter_map(|value| {
        let meaning = comment(&of.parent_file(), value.path())?;
        Some(format!("- `{}`: {meaning}", value.name()))
    });
    let meanings = meanings.collect::<Vec<_>>().join("\n");
    let description = comment(&of.parent_file(), of.path()).into_iter();
    let description: Vec<_> = description.chain([meanings]).collect();
    ObjectBuilder::new()
        .schema_type(Type::String)
        .enum_values(Some(values.iter().map(|value| value.name())))
        .description(Some(description.join("\n\n")))
        .into()
}

/// The fields that fit into a URL.
fn parameters(message: &MessageDescriptor, place: &ParameterIn) -> Vec<Parameter> {
    let fits = |field: &FieldDescriptor| {
        let kind = field.kind();
        let is_object = |inner: &MessageDescriptor| inner.full_name() != TIMESTAMP;
        !field.is_list() && !kind.as_message().is_some_and(is_object)
    };
    let required = bounds::required(message.name());
    let parameter = |field: FieldDescriptor| {
        let is_required = required.contains(&field.name());
        let schema = value_schema(&field.kind(), None);
        let schema = bounds::narrowed(message.name(), field.name(), schema);
        let builder = ParameterBuilder::new()
            .name(field.name())
            .parameter_in(place.clone())
            .required(if is_required {
                Required::True
            } else {
                Required::False
            })
            .description(comment(&message.parent_file(), field.path()))
            .schema(Some(schema));
        builder.build()
    };
    message.fields().filter(fits).map(parameter).collect()
}

/// The schemas of what a message holds, at any depth.
fn component_schemas(message: &MessageDescriptor) -> Vec<(String, RefOr<Schema>)> {
    let schema = |(name, kind): (String, Kind)| {
        let of_message = kind.as_message().map(message_schema);
        let schema = of_message.or_else(|| kind.as_enum().map(enum_schema));
        schema.map(|schema| (name, schema))
    };
    let mut found = BTreeMap::new();
    find_components(message, &mut found);
    found.into_iter().filter_map(schema).collect()
}

/// Adds the messages and enums that `message` holds, at any depth, by name.
fn find_components(message: &MessageDescriptor, found: &mut BTreeMap<String, Kind>) {
    for kind in message.fields().map(|field| element_kind(&field)) {
        if let Some(inner) = kind.as_enum() {
            found.insert(inner.name().to_owned(), kind.clone());
        } else if let Some(inner) = kind.as_message()
            && inner.full_name() != TIMESTAMP
            && found
                .insert(inner.name().to_owned(), kind.clone())
                .is_none()
        {
            find_components(inner, found);
        }
    }
}

/// Whether a message is a request or stands in one, whatever else it stands in.
fn is_part_of_request(message: &MessageDescriptor) -> bool {
    static NAMES: LazyLock<HashSet<String>> = LazyLock::new(|| {
        let mut found = BTreeMap::new();
        for message in pb::descriptors().all_messages() {
            if message.name().ends_with("Request") {
                find_components(&message, &mut found);
                found.insert(message.name().to_owned(), Kind::Message(message));
            }
        }
        found.into_keys().collect()
    });
    NAMES.contains(message.name())
}

/// The comment above what stands at `path` in `file`, with its paragraphs kept.
fn comment(file: &FileDescriptor, path: &[i32]) -> Option<String> {
    static COMMENTS: LazyLock<HashMap<String, HashMap<Vec<i32>, String>>> = LazyLock::new(|| {
        let comments = |file: FileDescriptor| {
            let source = file.file_descriptor_proto().source_code_info.iter();
            let comments = source.flat_map(|source| &source.location);
            let comments = comments
                .filter_map(|at| Some((at.path.clone(), paragraphs(at.leading_comments.as_ref()?))))
                .collect();
            (file.name().to_owned(), comments)
        };
        pb::descriptors().files().map(comments).collect()
    });
    COMMENTS.get(file.name())?.get(path).cloned()
}

fn paragraphs(comment: &str) -> String {
    let lines: Vec<_> = comment.trim().lines().map(str::trim).collect();
    let paragraphs = lines.split(|line| line.is_empty());
    let paragraphs: Vec<_> = paragraphs.map(|lines| lines.join(" ")).collect();
    paragraphs.join("\n\n")
}

#[cfg(test)]
mod tests {
    use serde::{Serialize, de::DeserializeOwned};
    use serde_json::{Value, from_value, json, to_value};
    use utoipa_axum::{router::OpenApiRouter, routes};

    use super::*;

    fn schema<M: PartialSchema>() -> Value {
        to_value(M::schema()).unwrap()
    }

    fn keys(object: &Value) -> HashSet<&str> {
        object
            .as_object()
            .unwrap()
            .keys()
            .map(String::as_str)
            .collect()
    }

    fn strings(array: &Value) -> HashSet<&str> {
        let items = array.as_array().unwrap();
        items.iter().map(|item| item.as_str().unwrap()).collect()
    }

    #[test]
    fn a_message_is_an_object_with_the_comments_of_the_contract() {
        let deployment = schema::<pb::Deployment>();
        assert_eq!(
            deployment["description"],
            "One attempt to bring a prompt version to an environment. An immutable record: it never \
             comes back from a final status; trying again is a new deployment."
        );
        assert_eq!(deployment.get("additionalProperties"), None);

        let fields = &deployment["properties"];
        assert_eq!(keys(fields).len(), 18);
        assert_eq!(
            fields["id"],
            json!({"type": "string", "description": "UUID (version 7) of the deployment."})
        );
        assert_eq!(fields["to_version"]["type"], "integer");
        assert_eq!(fields["to_version"]["format"], "int32");
        assert_eq!(fields["gates_passed"]["type"], "boolean");
        assert_eq!(
            fields["created_at"],
            json!({"type": "string", "format": "date-time", "description": "When it was created."})
        );
        assert_eq!(
            fields["strategy"],
            json!({
                "$ref": "#/components/schemas/DeploymentStrategy",
                "description": "How traffic shifts, with the defaults filled in.",
            })
        );
        assert_eq!(
            fields["gate_results"],
            json!({
                "type": "array",
                "items": {"$ref": "#/components/schemas/QualityGateResult"},
                "description": "The result of each quality gate that applies to this deployment.",
            })
        );
        assert_eq!(fields["metadata"]["type"], "object");
        assert_eq!(
            fields["metadata"]["additionalProperties"],
            json!({"type": "string"})
        );
        assert_eq!(
            schema::<pb::Event>()["properties"]["sequence"],
            json!({
                "type": "string",
                "format": "int64",
                "description": "Number of the event within its deployment: 1, 2, 3, … without gap.",
            })
        );
    }

    #[test]
    fn a_request_says_what_it_requires_and_takes_nothing_more() {
        let request = schema::<pb::CreateDeploymentRequest>();
        assert_eq!(
            strings(&request["required"]),
            HashSet::from(["prompt_id", "to_version", "environment"])
        );
        assert_eq!(request["additionalProperties"], json!(false));
        assert_eq!(
            keys(&request["properties"]),
            HashSet::from([
                "prompt_id",
                "to_version",
                "environment",
                "strategy",
                "skip_approval",
                "metadata",
                "request_id"
            ])
        );

        let components = component_schemas(&message("CreateDeploymentRequest"));
        let components: BTreeMap<_, _> = components.into_iter().collect();
        assert_eq!(
            components.keys().collect::<Vec<_>>(),
            [
                "AnalysisPolicy",
                "CircuitBreaker",
                "DeploymentStrategy",
                "DeploymentType",
                "Metric",
                "MetricPolicy",
                "WithoutEvidence"
            ]
        );
        let strategy = to_value(&components["DeploymentStrategy"]).unwrap();
        assert_eq!(strategy.get("required"), None);
        assert_eq!(strategy["additionalProperties"], json!(false));
    }

    #[test]
    fn an_enum_is_the_names_of_its_values_and_their_meanings() {
        let components: BTreeMap<_, _> = component_schemas(&message("Deployment"))
            .into_iter()
            .collect();
        let status = to_value(&components["DeploymentStatus"]).unwrap();
        assert_eq!(status["type"], "string");
        let names = status["enum"].as_array().unwrap();
        assert_eq!(names.len(), 9);
        assert_eq!(names[0], "DEPLOYMENT_STATUS_UNSPECIFIED");
        let description = status["description"].as_str().unwrap();
        assert!(description.starts_with("Where a deployment is in its life."));
        assert!(
            description
                .contains("\n\n- `DEPLOYMENT_STATUS_UNSPECIFIED`: Not a status; in a filter")
        );
    }

    #[test]
    fn fields_that_fit_become_optional_parameters() {
        let parameters = to_value(pb::ListDeploymentsRequest::into_params(|| None)).unwrap();
        let names: Vec<_> = parameters.as_array().unwrap().iter().collect();
        let names: Vec<_> = names.iter().map(|parameter| &parameter["name"]).collect();
        assert_eq!(
            names,
            ["prompt_id", "environment", "status", "limit", "offset"]
        );
        assert_eq!(
            parameters[2],
            json!({
                "name": "status",
                "in": "query",
                "description": "Only deployments in this status.",
                "required": false,
                "schema": {"$ref": "#/components/schemas/DeploymentStatus"},
            })
        );

        let parameters = pb::CreateDeploymentRequest::into_params(|| None);
        let names: Vec<_> = parameters.iter().map(|parameter| &parameter.name).collect();
        assert_eq!(
            names,
            [
                "prompt_id",
                "to_version",
                "environment",
                "skip_approval",
                "request_id"
            ]
        );
    }

    /// An unset message writes just what its schema requires; written and read back, it is the same.
    fn assert_required_is_what_is_always_written<M>()
    where
        M: Default + PartialEq + PartialSchema + Serialize + DeserializeOwned + std::fmt::Debug,
    {
        let schema = schema::<M>();
        let unset = to_value(M::default()).unwrap();
        assert_eq!(keys(&unset), strings(&schema["required"]));
        let read: M = from_value(unset).unwrap();
        assert_eq!(read, M::default());
    }

    #[test]
    fn what_is_always_written_is_required() {
        assert_required_is_what_is_always_written::<pb::Deployment>();
        assert_required_is_what_is_always_written::<pb::Event>();
        assert_required_is_what_is_always_written::<pb::GetDeploymentStatusResponse>();
        assert_required_is_what_is_always_written::<pb::HealthResponse>();
        assert_required_is_what_is_always_written::<pb::ListDeploymentsResponse>();
        assert_required_is_what_is_always_written::<pb::ListEventsResponse>();
        assert_required_is_what_is_always_written::<pb::QualityGate>();
    }

    #[test]
    fn what_is_set_is_written_as_the_schema_says() {
        let at = pb::Timestamp {
            seconds: 1_700_000_000,
            nanos: 0,
        };
        let deployment = pb::Deployment {
            strategy: Some(pb::DeploymentStrategy::default()),
            rollout: Some(pb::RolloutProgress::default()),
            created_at: Some(at),
            started_at: Some(at),
            completed_at: Some(at),
            ..pb::Deployment::default()
        };
        let written = to_value(deployment).unwrap();
        assert_eq!(
            keys(&written),
            keys(&schema::<pb::Deployment>()["properties"])
        );
        assert_eq!(written["created_at"], "2023-11-14T22:13:20Z");
        assert_eq!(written["status"], "DEPLOYMENT_STATUS_UNSPECIFIED");

        let event = to_value(pb::Event::default()).unwrap();
        assert_eq!(event["sequence"], "0");
    }

    #[test]
    fn an_unknown_field_is_refused_by_name() {
        let error = from_value::<pb::CreateDeploymentRequest>(json!({"strategy": {"typ": 1}}));
        let error = error.unwrap_err().to_string();
        assert!(error.contains("unknown field `typ`"), "{error}");
    }

    #[test]
    fn paragraphs_are_kept_and_lines_joined() {
        assert_eq!(paragraphs(" One\n two.\n\n Three.\n"), "One two.\n\nThree.");
    }

    #[utoipa::path(
        get,
        path = "/v1/events",
        params(pb::ListEventsRequest),
        responses((status = 200, body = pb::ListEventsResponse))
    )]
    async fn events() {}

    #[utoipa::path(
        get,
        path = "/v1/deployments/{deployment_id}/events",
        params(pb::ListEventsRequest),
        responses((status = 200, body = pb::ListEventsResponse))
    )]
    async fn events_of_deployment() {}

    #[utoipa::path(
        post,
        path = "/v1/deployments",
        request_body = pb::CreateDeploymentRequest,
        responses((status = 201, body = pb::CreateDeploymentResponse))
    )]
    async fn create() {}

    fn document() -> Value {
        let (_router, mut api) = OpenApiRouter::<()>::new()
            .routes(routes!(events))
            .routes(routes!(events_of_deployment))
            .routes(routes!(create))
            .split_for_parts();
        place_path_parameters(&mut api);
        to_value(api).unwrap()
    }

    #[test]
    fn a_field_in_the_path_is_a_path_parameter() {
        let document = document();
        let first = |path: &str| document["paths"][path]["get"]["parameters"][0].clone();
        let parameter = |place: &str, required: bool| {
            json!({
                "name": "deployment_id",
                "in": place,
                "description": "Only events of this deployment.",
                "required": required,
                "schema": {"type": "string"},
            })
        };
        assert_eq!(first("/v1/events"), parameter("query", false));
        assert_eq!(
            first("/v1/deployments/{deployment_id}/events"),
            parameter("path", true)
        );
    }

    #[test]
    fn every_reference_leads_somewhere() {
        let document = document();
        let text = document.to_string();
        let references: HashSet<_> = text
            .split("\"$ref\":\"#")
            .skip(1)
            .filter_map(|rest| rest.split('"').next())
            .collect();
        assert!(references.contains("/components/schemas/CreateDeploymentRequest"));
        for reference in references {
            assert!(document.pointer(reference).is_some(), "{reference}");
        }
    }
}
