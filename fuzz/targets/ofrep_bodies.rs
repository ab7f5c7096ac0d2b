//! Evaluations of OFREP: the first byte says of what.
#![no_main]

use fuzz::{ask, post};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((call, body)) = data.split_first() else {
        return;
    };
    let path = match call % 4 {
        0 => "/ofrep/v1/evaluate/flags/served",
        1 => "/ofrep/v1/evaluate/flags",
        2 => "/environments/e/ofrep/v1/evaluate/flags/served",
        _ => "/environments/e/ofrep/v1/evaluate/flags",
    };
    ask(|_| Some(post(path, "application/json", body.to_vec())));
});
