//! Whether a client already has what it asks for.

use http::{HeaderMap, header};

/// Whether `If-None-Match` names the tag; a weak one counts too (RFC 9110, 13.1.2).
pub(super) fn is_known(headers: &HeaderMap, etag: &str) -> bool {
    let Some(known) = headers.get(header::IF_NONE_MATCH) else {
        return false;
    };
    let known = known.to_str().unwrap_or_default();
    known == "*"
        || known
            .split(',')
            .any(|tag| tag.trim().trim_start_matches("W/") == etag)
}
