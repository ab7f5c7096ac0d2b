//! Requests that count once: under `request_id` of the message, or the header `Idempotency-Key`
//! (draft-ietf-httpapi-idempotency-key-header), also as gRPC metadata.

use http::HeaderMap;
use prost::Message;
use serde::Serialize;
use serde_json::Value;

use super::pb;
use crate::{
    domain::{audit::Caller, outcome::digest, violation::Violation},
    service::{Error, Once, Reply},
};

/// The header, and the name of gRPC metadata.
const HEADER: &str = "idempotency-key";
/// Longest key, in characters.
const KEY_MAX: usize = 128;

/// A message that changes something, and may come again.
pub(super) trait Keyed: Serialize {
    /// The call.
    const CALL: &'static str;

    /// The key; empty for none.
    fn request_id(&self) -> &str;
}

macro_rules! keyed {
    ($($message:ident),* $(,)?) => {$(
        impl Keyed for pb::$message {
            const CALL: &'static str = stringify!($message);

            fn request_id(&self) -> &str {
                &self.request_id
            }
        }
    )*};
}

keyed! {
    ApproveDeploymentRequest,
    CancelDeploymentRequest,
    CreateDeploymentRequest,
    CreateQualityGateRequest,
    ReportGateConditionRequest,
    RollbackDeploymentRequest,
}

/// The key in a header; none where there is none.
///
/// # Errors
/// It is no key.
pub(super) fn header(headers: &HeaderMap) -> Result<Option<String>, Error> {
    let Some(value) = headers.get(HEADER) else {
        return Ok(None);
    };
    let text = std::str::from_utf8(value.as_bytes()).unwrap_or_default();
    // A string of structured fields (RFC 8941) stands in quotes; most write it without.
    let unquoted = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let key = unquoted.unwrap_or(text);
    check("idempotency-key", key)?;
    Ok(Some(key.to_owned()))
}

/// What makes a request count once; none where it has no key.
///
/// # Errors
/// The key is none, or there are two.
pub(super) fn once<M, T, A>(
    message: &M,
    header: Option<&str>,
    caller: &Caller,
) -> Result<Option<Once<T>>, Error>
where
    M: Keyed,
    T: Clone,
    A: From<T> + Message,
{
    let in_message = Some(message.request_id()).filter(|id| !id.is_empty());
    if let Some(id) = in_message {
        check("request_id", id)?;
    }
    let key = match (in_message, header) {
        (Some(id), Some(header)) if id != header => {
            let why = "is another one than in the header Idempotency-Key; give one";
            return Err(refuse("request_id", why.into()));
        }
        (Some(id), _) | (None, Some(id)) => id,
        (None, None) => return Ok(None),
    };
    let mut content = serde_json::to_value(message).map_err(|_| Error::Internal)?;
    if let Value::Object(fields) = &mut content {
        fields.remove("request_id");
    }
    let mut text = String::new();
    write(&content, &mut text);
    Ok(Some(Once {
        key: digest(&[caller.actor.as_str(), key]),
        content: digest(&[M::CALL, &text]),
        encode: |value| A::from(value.clone()).encode_to_vec(),
    }))
}

/// The answer's message.
///
/// # Errors
/// What was kept of it can't be read.
pub(super) fn answer<T, A: From<T> + Message + Default>(reply: Reply<T>) -> Result<A, Error> {
    reply.answer(A::from, |bytes| {
        A::decode(bytes).map_err(|error| {
            tracing::error!(%error, "an answer that was kept can't be read");
            Error::Internal
        })
    })
}

fn check(field: &str, key: &str) -> Result<(), Error> {
    let is_visible = |c: char| c.is_ascii_graphic() || c == ' ';
    if key.is_empty() || key.chars().count() > KEY_MAX || !key.chars().all(is_visible) {
        let why = format!("must be 1 to {KEY_MAX} visible characters of ASCII, such as a UUID");
        return Err(refuse(field, why));
    }
    Ok(())
}

fn refuse(field: &str, description: String) -> Error {
    Error::Invalid(vec![Violation {
        field: field.into(),
        description,
    }])
}

/// Writes a value in one way, whatever the order in which its fields come.
fn write(value: &Value, text: &mut String) {
    match value {
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            text.push('{');
            for (name, value) in fields {
                text.push_str(&Value::from(name.as_str()).to_string());
                text.push(':');
                write(value, text);
                text.push(',');
            }
            text.push('}');
        }
        Value::Array(items) => {
            text.push('[');
            for item in items {
                write(item, text);
                text.push(',');
            }
            text.push(']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            text.push_str(&value.to_string());
        }
    }
}
