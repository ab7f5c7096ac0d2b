//! Which web pages may call the service.

use std::time::Duration;

use http::{HeaderName, HeaderValue, Method};
use tower_http::cors::{AllowOrigin, CorsLayer};

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
    let allowed = match origins {
        Origins::None => AllowOrigin::list([]),
        Origins::Loopback => AllowOrigin::predicate(|origin, _| is_loopback(origin)),
        Origins::List(list) => AllowOrigin::list(
            list.iter()
                .filter_map(|origin| HeaderValue::from_str(origin).ok()),
        ),
        Origins::Any => AllowOrigin::any(),
    };
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::POST])
        .allow_headers(named(&[
            "authorization",
            // Of the Connect protocol, as flagd's provider for browsers speaks it.
            "connect-protocol-version",
            "connect-timeout-ms",
            "content-type",
            "flagd-selector",
            "grpc-timeout",
            "idempotency-key",
            "traceparent",
            "tracestate",
            "x-delos-actor",
            "x-grpc-web",
            "x-request-id",
            "x-user-agent",
        ]))
        .expose_headers(named(&[
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
