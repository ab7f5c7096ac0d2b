//! Who asks, as they say of themselves, and with which request.

use http::{Extensions, HeaderMap};

use crate::{
    domain::{audit::Caller, ids::Actor, violation::Violation},
    service::Error,
};

/// Header (and gRPC metadata) in which a caller names themselves.
pub(super) const ACTOR: &str = "x-delos-actor";

/// The id of a request: the caller's `x-request-id` where it is a good one, otherwise a new one.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

/// The caller of a request.
pub(super) fn caller(headers: &HeaderMap, extensions: &Extensions) -> Result<Caller, Error> {
    let refuse = |description: String| {
        Error::Invalid(vec![Violation {
            field: ACTOR.into(),
            description,
        }])
    };
    let actor = match headers.get(ACTOR) {
        None => Actor::anonymous(),
        Some(value) => {
            let text =
                std::str::from_utf8(value.as_bytes()).map_err(|_| refuse("is not UTF-8".into()))?;
            Actor::parse(text).map_err(refuse)?
        }
    };
    let request_id = extensions
        .get::<RequestId>()
        .map_or_else(String::new, |id| id.0.clone());
    Ok(Caller { actor, request_id })
}
