//! Which web pages may call the service.

use std::time::Duration;

use axum::extract::Request;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use tower_http::cors::{AllowOrigin, CorsLayer};

use super::error::Problem;

/// Whose pages may call the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// Nobody's.
    None,
    /// Pages that this machine serves to itself, on any port.
    Loopback,
    /// Pages of these origins, such as `https://console.example.com`.
    List(Vec<String>),
    /// Everybody's.
    Any,
}

pub(super) fn layer(origins: &Origins) -> CorsLayer {
    let named = |names: &[&'static str]| {
        names
            .iter()
            .map(|name| HeaderName::from_static(name))
            .collect::<Vec<_>>()
    };
    let origins = origins.clone();
    let allowed = AllowOrigin::predicate(move |origin, _| origins.allow(origin));
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(named(&[
            "authorization",
            // Of the Connect protocol, as flagd's provider for browsers speaks it.
            "connect-protocol-version",
            "connect-timeout-ms",
            // Of OTLP, where it is compressed.
            "content-encoding",
            "content-type",
            "flagd-selector",
            "grpc-timeout",
            "idempotency-key",
            "if-none-match",
            "traceparent",
            "tracestate",
            "x-api-key",
            "x-delos-actor",
            "x-grpc-web",
            "x-request-id",
            "x-user-agent",
        ]))
        .expose_headers(named(&[
            "age",
            "etag",
            "grpc-message",
            "grpc-status",
            "grpc-status-details-bin",
            "location",
            "retry-after",
            "traceresponse",
            "x-request-id",
        ]))
        .max_age(Duration::from_secs(600))
}

impl Origins {
    fn allow(&self, origin: &HeaderValue) -> bool {
        match self {
            Self::None => false,
            Self::Loopback => is_loopback(origin),
            Self::List(list) => list
                .iter()
                .any(|known| known.as_bytes() == origin.as_bytes()),
            Self::Any => true,
        }
    }
}

/// Turns away what a page of another origin sends without being asked first. A browser asks (by a
/// preflight) before most requests, but not before a POST without a body, which a verb takes.
pub(super) fn refusal(origins: &Origins, request: &Request) -> Option<Problem> {
    let headers = request.headers();
    let origin = headers.get(header::ORIGIN)?;
    let is_refused =
        request.method() == Method::POST && !is_own(origin, headers) && !origins.allow(origin);
    is_refused.then(|| {
        Problem::of_http(
            StatusCode::FORBIDDEN,
            "ORIGIN_NOT_ALLOWED",
            "The page may not call the service",
            "pages of this origin may not call the service; DELOS_CORS_ORIGINS names those that may",
        )
    })
}

/// Whether a page comes from the service itself, as `/docs` does.
fn is_own(origin: &HeaderValue, headers: &HeaderMap) -> bool {
    let origin = origin
        .to_str()
        .ok()
        .and_then(|origin| origin.split_once("://"));
    let host = headers
        .get(header::HOST)
        .and_then(|host| host.to_str().ok());
    origin.is_some_and(|(_, authority)| Some(authority) == host)
}

fn is_loopback(origin: &HeaderValue) -> bool {
    let Some(url) = origin
        .to_str()
        .ok()
        .and_then(|text| url::Url::parse(text).ok())
    else {
        return false;
    };
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_this_machine_s_own_pages_are_loopback() {
        for good in [
            "http://localhost:8080",
            "http://127.0.0.1",
            "https://[::1]:3000",
            "http://app.localhost",
        ] {
            assert!(is_loopback(&HeaderValue::from_static(good)), "{good}");
        }
        for bad in [
            "null",
            "http://localhost.evil.com",
            "http://127.0.0.1.evil.com",
            "http://10.0.0.1",
            "file://",
        ] {
            assert!(!is_loopback(&HeaderValue::from_static(bad)), "{bad}");
        }
    }
}
