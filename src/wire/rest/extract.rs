//! Reads requests into proto messages; what can't be read is a problem that names the field.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, RawPathParams, Request, rejection::BytesRejection},
    response::IntoResponse,
};
use http::{HeaderValue, StatusCode, header, request::Parts};
use prost_reflect::{
    EnumDescriptor, EnumValueDescriptor, FieldDescriptor, Kind, MessageDescriptor,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    domain::audit,
    service::Once,
    wire::{
        caller::caller,
        error::Problem,
        once::{self, Keyed},
        pb,
    },
};

/// Who asks, and under which key.
pub(super) struct Caller {
    pub(super) caller: audit::Caller,
    key: Option<String>,
}

impl Caller {
    /// What makes their request count once.
    pub(super) fn once<M, T, A>(&self, message: &M) -> Result<Option<Once<T>>, Problem>
    where
        M: Keyed,
        T: Clone,
        A: From<T> + prost::Message,
    {
        let once = once::once::<M, T, A>(message, self.key.as_deref(), &self.caller);
        Ok(once?)
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Ok(Self {
            caller: caller(&parts.headers, &parts.extensions)?,
            key: once::header(&parts.headers)?,
        })
    }
}

/// An id in the path.
pub(super) struct Id(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for Id {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = axum::extract::Path::<String>::from_request_parts(parts, state).await;
        path.map(|path| Self(path.0))
            .map_err(|rejection| Problem::of_field("id", rejection.body_text()))
    }
}

impl Id {
    /// The id, where the body has none or the same.
    pub(super) fn agree(self, field: &str, in_body: &str) -> Result<String, Problem> {
        if in_body.is_empty() || in_body == self.0 {
            Ok(self.0)
        } else {
            Err(Problem::of_field(
                field,
                "is another one than in the path; leave it out",
            ))
        }
    }
}

/// The body: a message as proto3 JSON. No body at all is an empty message.
pub(super) struct Body<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Default> FromRequest<S> for Body<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        match json(request, state).await? {
            Some(value) => message(value).map(Self),
            None => Ok(Self(T::default())),
        }
    }
}

/// A message whose body is proto3 JSON, and some of whose fields stand in the path.
pub(super) struct Placed<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + ToSchema> FromRequest<S> for Placed<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        let descriptor = descriptor(&T::name());
        let (mut parts, body) = request.into_parts();
        let path = RawPathParams::from_request_parts(&mut parts, state).await;
        let path = path.map_err(|rejection| Problem::of_field("path", rejection.body_text()))?;
        let request = Request::from_parts(parts, body);
        let mut fields = match json(request, state).await? {
            None => Map::new(),
            Some(Value::Object(fields)) => fields,
            Some(_) => return Err(Problem::of_field("body", "is no object")),
        };
        for (name, text) in &path {
            let field = field(&descriptor, name)?;
            let placed = value(&field, text).map_err(|why| Problem::of_field(name, why))?;
            let in_body = [field.name(), field.json_name()];
            let in_body = in_body.map(|name| fields.remove(name));
            if in_body.into_iter().flatten().any(|it| it != placed) {
                let why = "is another one than in the path; leave it out";
                return Err(Problem::of_field(name, why));
            }
            fields.insert(field.name().to_owned(), placed);
        }
        message(Value::Object(fields)).map(Self)
    }
}

/// The body as JSON; none where there is none.
async fn json<S: Send + Sync>(request: Request, state: &S) -> Result<Option<Value>, Problem> {
    let content_type = request.headers().get(header::CONTENT_TYPE).cloned();
    let bytes = Bytes::from_request(request, state)
        .await
        .map_err(of_bytes)?;
    if bytes.is_empty() && content_type.is_none() {
        return Ok(None);
    }
    check_is_json(content_type.as_ref())?;
    if bytes.is_empty() {
        return Ok(None);
    }
    let value: Value = serde_json::from_slice(&bytes).map_err(|error| {
        Problem::of_http(
            StatusCode::BAD_REQUEST,
            "MALFORMED_JSON",
            "The body is not JSON",
            format!("the body is not JSON: {error}"),
        )
    })?;
    // As good as no body, where one may be left out.
    Ok(Some(value)
        .filter(|value| !value.is_null())
        .map(without_nulls))
}

/// The query string and the names in the path, as the fields of a message.
pub(super) struct Query<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + ToSchema> FromRequestParts<S> for Query<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let descriptor = descriptor(&T::name());
        let mut fields = Map::new();
        let path = RawPathParams::from_request_parts(parts, state).await;
        let path = path.map_err(|rejection| Problem::of_field("path", rejection.body_text()))?;
        let in_path = |name: &str| path.iter().any(|(known, _)| known == name);
        for (name, text) in &path {
            fields.insert(name.to_owned(), Value::from(text));
        }
        for (name, text) in
            url::form_urlencoded::parse(parts.uri.query().unwrap_or_default().as_bytes())
        {
            let field = field(&descriptor, &name)?;
            let value = value(&field, &text).map_err(|why| Problem::of_field(&*name, why))?;
            match fields.insert(field.name().to_owned(), value.clone()) {
                Some(before) if before != value || !in_path(field.name()) => {
                    return Err(Problem::of_field(name, "is given more than once"));
                }
                Some(_) | None => {}
            }
        }
        // An empty value is as good as none.
        fields.retain(|_, value| *value != Value::String(String::new()));
        message(Value::Object(fields)).map(Self)
    }
}

fn message<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let why = error.inner().to_string();
        // What serde says where none of the ways to write a number or an enum fits.
        let why = if why.contains("untagged enum") {
            "has a value of the wrong type".to_owned()
        } else {
            why
        };
        Problem::of_field(if path == "." { "body".into() } else { path }, why)
    })
}

/// Protobuf's JSON takes `null` for any field as "not set".
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(name, value)| (name, without_nulls(value)))
                .collect(),
        ),
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value,
    }
}

fn descriptor(name: &str) -> MessageDescriptor {
    pb::descriptors()
        .get_message_by_name(&format!("delos.deploy.v1.{name}"))
        .expect("a message is named as its schema")
}

fn field(descriptor: &MessageDescriptor, name: &str) -> Result<FieldDescriptor, Problem> {
    let found = descriptor
        .get_field_by_name(name)
        .or_else(|| descriptor.get_field_by_json_name(name));
    found.ok_or_else(|| {
        let known: Vec<_> = descriptor
            .fields()
            .map(|field| field.name().to_owned())
            .collect();
        Problem::of_field(
            name,
            format!(
                "is no parameter of this call; it takes {}",
                known.join(", ")
            ),
        )
    })
}

/// A parameter's text as the JSON of its field.
#[expect(clippy::wildcard_enum_match_arm, reason = "what is not listed is text")]
fn value(field: &FieldDescriptor, text: &str) -> Result<Value, String> {
    if text.is_empty() {
        return Ok(Value::String(String::new()));
    }
    match field.kind() {
        Kind::Int32 => text
            .parse::<i32>()
            .map(Value::from)
            .map_err(|_| format!("is '{}'; must be a whole number", shorten(text))),
        Kind::Bool => text
            .parse::<bool>()
            .map(Value::from)
            .map_err(|_| format!("is '{}'; must be true or false", shorten(text))),
        Kind::Enum(kind) => enum_value(&kind, text),
        _ => Ok(Value::from(text)),
    }
}

/// An enum by number, or by name: with or without its prefix, in any case.
fn enum_value(kind: &EnumDescriptor, text: &str) -> Result<Value, String> {
    let number = text.parse::<i32>().ok();
    let upper = text.to_uppercase();
    let prefix = kind
        .values()
        .next()
        .and_then(|zero| zero.name().strip_suffix("UNSPECIFIED").map(str::to_owned));
    let prefix = prefix.unwrap_or_default();
    let is_meant = |value: &EnumValueDescriptor| {
        let bare = value.name().strip_prefix(&prefix);
        Some(value.number()) == number || value.name() == upper || bare == Some(upper.as_str())
    };
    let meant = kind.values().find(is_meant);
    meant.map(|value| Value::from(value.name())).ok_or_else(|| {
        let names: Vec<_> = kind.values().map(|value| value.name().to_owned()).collect();
        format!(
            "is '{}'; must be one of {}",
            shorten(text),
            names.join(", ")
        )
    })
}

fn shorten(text: &str) -> String {
    text.chars().take(64).collect()
}

fn of_bytes(rejection: BytesRejection) -> Problem {
    let response = rejection.into_response();
    if response.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::of_http(
            StatusCode::PAYLOAD_TOO_LARGE,
            "BODY_TOO_LARGE",
            "The body is too large",
            format!("the body is larger than {} bytes", super::BODY_MAX),
        )
    } else {
        Problem::of_http(
            StatusCode::BAD_REQUEST,
            "BODY_INCOMPLETE",
            "The body could not be read",
            "the body could not be read to its end",
        )
    }
}

fn check_is_json(content_type: Option<&HeaderValue>) -> Result<(), Problem> {
    let text = content_type
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let kind = text
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    if kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json")) {
        return Ok(());
    }
    Err(Problem::of_http(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "NOT_JSON",
        "The body must be JSON",
        "send the body with 'Content-Type: application/json'",
    ))
}
