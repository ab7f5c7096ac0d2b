//! W3C Trace Context: a caller's trace goes on here, and ours in whom we call.
//!
//! A header that is malformed, all zero or sent twice is ignored whole, and a
//! trace of our own begins. An edge that doesn't trust its callers leaves
//! [`extract`] out. Without OTLP nothing is extracted and nothing injected.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::Context;
use opentelemetry::propagation::{Extractor, Injector, TextMapPropagator as _};
use opentelemetry::trace::TraceContextExt as _;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");
/// What the recommendation asks to forward at least; more is not forwarded.
const TRACESTATE_MEMBERS_MAX: usize = 32;

/// Makes `span` a child of the span that `headers` name. Has to come before the
/// span is entered for the first time, and before [`inject`].
pub fn extract(headers: &HeaderMap, span: &Span) {
    let Some(remote) = Remote::read(headers) else {
        return;
    };
    let parent = TraceContextPropagator::new().extract_with_context(&Context::new(), &remote);
    if parent.span().span_context().is_valid() {
        // Fails where spans aren't traced, and then there is nothing to set.
        let _ = span.set_parent(parent);
    }
}

/// Writes `traceparent`, and `tracestate` where there is one, for a call made
/// within `span`. Writes nothing where spans aren't traced.
pub fn inject(span: &Span, headers: &mut HeaderMap) {
    TraceContextPropagator::new().inject_context(&span.context(), &mut Outgoing(headers));
}

/// The `traceparent` of `span`, none where spans aren't traced.
#[must_use]
pub fn traceparent(span: &Span) -> Option<HeaderValue> {
    let context = span.context();
    if !context.span().span_context().is_valid() {
        return None;
    }
    let mut headers = HeaderMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut Outgoing(&mut headers));
    headers.remove(TRACEPARENT)
}

/// The headers of a caller, well formed.
struct Remote<'a> {
    traceparent: &'a str,
    tracestate: String,
}

impl<'a> Remote<'a> {
    fn read(headers: &'a HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let traceparent = parents.next()?.to_str().ok()?.trim();
        if parents.next().is_some() || !is_well_formed(traceparent) {
            return None;
        }
        let members: Vec<&str> = headers
            .get_all(TRACESTATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .map(str::trim)
            .filter(|member| !member.is_empty())
            .collect();
        let members_kept = if members.len() > TRACESTATE_MEMBERS_MAX {
            &[]
        } else {
            members.as_slice()
        };
        Some(Self {
            traceparent,
            tracestate: members_kept.join(","),
        })
    }
}

/// The propagator takes short ids and signs; the recommendation doesn't. A
/// version after 00 may go on behind the flags.
fn is_well_formed(traceparent: &str) -> bool {
    let bytes = traceparent.as_bytes();
    let Some((known, rest)) = bytes.split_at_checked(55) else {
        return false;
    };
    let shape = known.iter().enumerate().all(|(at, byte)| match at {
        2 | 35 | 52 => *byte == b'-',
        _ => matches!(byte, b'0'..=b'9' | b'a'..=b'f'),
    });
    shape && (rest.is_empty() || (!known.starts_with(b"00") && rest[0] == b'-'))
}

impl Extractor for Remote<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        match key {
            "traceparent" => Some(self.traceparent),
            "tracestate" if !self.tracestate.is_empty() => Some(&self.tracestate),
            _ => None,
        }
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent", "tracestate"]
    }
}

struct Outgoing<'a>(&'a mut HeaderMap);

impl Injector for Outgoing<'_> {
    fn set(&mut self, key: &str, value: String) {
        if value.is_empty() {
            return;
        }
        let name = HeaderName::from_bytes(key.as_bytes());
        if let (Ok(name), Ok(value)) = (name, HeaderValue::try_from(value)) {
            self.0.insert(name, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_the_recommendation_allows_is_well_formed() {
        let ids = "4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        assert!(is_well_formed(&format!("00-{ids}-01")));
        assert!(is_well_formed(&format!("cc-{ids}-01-later")));
        for wrong in [
            String::new(),
            format!("00-{ids}-1"),
            format!("00-{ids}-01-more"),
            format!("cc-{ids}-01.more"),
            format!("+0-{ids}-01"),
            format!("00-{}-01", ids.to_uppercase()),
            "00-1-1-01".to_owned(),
        ] {
            assert!(!is_well_formed(&wrong), "{wrong}");
        }
    }

    #[test]
    fn a_traceparent_sent_twice_is_ignored() {
        let mut headers = HeaderMap::new();
        let value = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        headers.append(TRACEPARENT, HeaderValue::from_static(value));
        assert!(Remote::read(&headers).is_some());
        headers.append(TRACEPARENT, HeaderValue::from_static(value));
        assert!(Remote::read(&headers).is_none());
    }
}
