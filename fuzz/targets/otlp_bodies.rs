//! Exports of OpenTelemetry: the first byte says of what, and how they are encoded.
#![no_main]

use fuzz::{ask, post};
use http::{HeaderValue, header};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((kind, body)) = data.split_first() else {
        return;
    };
    let path = if kind & 1 == 0 {
        "/v1/traces"
    } else {
        "/v1/logs"
    };
    let encoding = if kind & 2 == 0 {
        "application/json"
    } else {
        "application/x-protobuf"
    };
    ask(|_| {
        let mut request = post(path, encoding, body.to_vec());
        if kind & 12 == 12 {
            let gzip = HeaderValue::from_static("gzip");
            request.headers_mut().insert(header::CONTENT_ENCODING, gzip);
        }
        Some(request)
    });
});
