//! Paths and query strings: filters, page tokens, keys. The first byte says of which call.
#![no_main]

use axum::body::Body;
use fuzz::ask;
use http::Request;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((call, rest)) = data.split_first() else {
        return;
    };
    let Ok(rest) = std::str::from_utf8(rest) else {
        return;
    };
    ask(|service| {
        let id = &service.deployment;
        let uri = match call % 9 {
            0 => format!("/v1/deployments?{rest}"),
            1 => format!("/v1/events?{rest}"),
            2 => format!("/v1/deployments/{id}/events?{rest}"),
            3 => format!("/v1/quality-gates?{rest}"),
            4 => format!("/v1/environments/e/prompts/served/version?{rest}"),
            5 => format!("/v1/environments/e/traffic/events?{rest}"),
            6 => format!("/v1/deployments/{rest}"),
            7 => format!("/v1/environments/{rest}"),
            _ => format!("/{rest}"),
        };
        // What is no URI reaches no service.
        Request::get(uri).body(Body::empty()).ok()
    });
});
