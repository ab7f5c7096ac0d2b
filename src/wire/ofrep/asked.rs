//! What a client asks: the flag, the environment and the context.

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, RawPathParams, Request, rejection::BytesRejection},
    response::IntoResponse as _,
};
use http::{StatusCode, request::Parts};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    Ofrep,
    failure::{ErrorCode, EvaluationFailure},
};
use crate::wire::rest::BODY_MAX;

/// A request for an evaluation. All of it may be left out.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct EvaluationRequest {
    /// Whom the evaluation is for.
    #[serde(default)]
    pub(super) context: Option<EvaluationContext>,
}

/// Whom an evaluation is for. Attributes that are not listed are passed over.
#[derive(Debug, Default, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct EvaluationContext {
    /// Who gets the same version for as long as the split stays. Without one: the stable version.
    #[serde(default)]
    #[schema(max_length = 1024)]
    pub(super) targeting_key: Option<String>,
    /// The environment, where the base path names none.
    #[serde(default)]
    #[schema(pattern = "^([A-Za-z0-9][A-Za-z0-9_.-]{0,62})?$")]
    pub(super) environment: Option<String>,
    /// Get the version that is being rolled out, whatever its share.
    #[serde(default)]
    pub(super) preview: Option<bool>,
}

/// What a client asks.
pub(super) struct Asked {
    /// The flag; none where all are asked for.
    pub(super) key: Option<String>,
    pub(super) environment: String,
    /// Empty for none.
    pub(super) targeting_key: String,
    pub(super) preview: bool,
}

impl FromRequest<Ofrep> for Asked {
    type Rejection = EvaluationFailure;

    async fn from_request(request: Request, ofrep: &Ofrep) -> Result<Self, EvaluationFailure> {
        let (mut parts, body) = request.into_parts();
        let Place { environment, key } = Place::from_request_parts(&mut parts, ofrep).await?;
        let bytes = Bytes::from_request(Request::from_parts(parts, body), ofrep).await;
        let context = bytes
            .map_err(of_bytes)
            .and_then(|bytes| context(&bytes, environment.is_some()));
        let context = match context {
            Ok(context) => context,
            Err(failure) => return Err(failure.of_flag(key)),
        };
        Ok(Self {
            key,
            environment: ofrep.environment(environment.or(context.environment)),
            targeting_key: context.targeting_key.unwrap_or_default(),
            preview: context.preview.unwrap_or_default(),
        })
    }
}

impl Ofrep {
    /// The environment that is meant.
    pub(super) fn environment(&self, named: Option<String>) -> String {
        named
            .filter(|name| !name.is_empty())
            .unwrap_or_else(|| self.default_environment.to_string())
    }
}

/// What the path says.
pub(super) struct Place {
    pub(super) environment: Option<String>,
    pub(super) key: Option<String>,
}

impl<S: Send + Sync> FromRequestParts<S> for Place {
    type Rejection = EvaluationFailure;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, EvaluationFailure> {
        let names = RawPathParams::from_request_parts(parts, state).await;
        let names = names.map_err(|rejection| {
            EvaluationFailure::bad_request(ErrorCode::ParseError, rejection.body_text())
        })?;
        let find = |name| {
            let mut found = names.iter().filter(|(known, _)| *known == name);
            found.next().map(|(_, text)| text.to_owned())
        };
        Ok(Self {
            environment: find("environment"),
            key: find("key"),
        })
    }
}

/// The context of a body; its environment is left out where the path has one.
fn context(bytes: &[u8], is_bound: bool) -> Result<EvaluationContext, EvaluationFailure> {
    if bytes.is_empty() {
        return Ok(EvaluationContext::default());
    }
    let mut body: Value = serde_json::from_slice(bytes).map_err(|error| {
        let details = format!("the body is not JSON: {error}");
        EvaluationFailure::bad_request(ErrorCode::ParseError, details)
    })?;
    if !(body.is_object() || body.is_null()) {
        let details =
            "the body must be an object, such as {\"context\": {\"targetingKey\": \"user-1\"}}";
        return Err(EvaluationFailure::bad_request(
            ErrorCode::ParseError,
            details,
        ));
    }
    match body.get_mut("context") {
        None | Some(Value::Null) => return Ok(EvaluationContext::default()),
        // Then the attribute is the application's own, and may be anything.
        Some(Value::Object(attributes)) if is_bound => {
            attributes.remove("environment");
        }
        Some(Value::Object(_)) => {}
        Some(_) => {
            let details = "context must be an object";
            return Err(EvaluationFailure::bad_request(
                ErrorCode::InvalidContext,
                details,
            ));
        }
    }
    let request: EvaluationRequest = serde_path_to_error::deserialize(body).map_err(|error| {
        let details = format!("{}: {}", error.path(), error.inner());
        EvaluationFailure::bad_request(ErrorCode::InvalidContext, details)
    })?;
    Ok(request.context.unwrap_or_default())
}

fn of_bytes(rejection: BytesRejection) -> EvaluationFailure {
    if rejection.into_response().status() == StatusCode::PAYLOAD_TOO_LARGE {
        let details = format!("the body is larger than {BODY_MAX} bytes");
        EvaluationFailure::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            ErrorCode::ParseError,
            details,
        )
    } else {
        let details = "the body could not be read to its end";
        EvaluationFailure::bad_request(ErrorCode::ParseError, details)
    }
}
