//! Whether a client already has what it asks for.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use http::{HeaderValue, header, request::Parts};

/// What the client says that it has: `If-None-Match`.
pub(super) struct IfNoneMatch(Option<HeaderValue>);

impl<S: Sync> FromRequestParts<S> for IfNoneMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.headers.get(header::IF_NONE_MATCH).cloned()))
    }
}

impl IfNoneMatch {
    /// Whether it names the tag; a weak one counts too (RFC 9110, 13.1.2).
    pub(super) fn names(&self, etag: &str) -> bool {
        let known = self.0.as_ref().and_then(|known| known.to_str().ok());
        let mut tags = known.into_iter().flat_map(|known| known.split(','));
        tags.any(|tag| ["*", etag].contains(&tag.trim().trim_start_matches("W/")))
    }
}
