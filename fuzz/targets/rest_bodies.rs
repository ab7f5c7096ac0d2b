//! Bodies of REST: the first byte says of which call.
#![no_main]

use fuzz::{ask, post};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((call, body)) = data.split_first() else {
        return;
    };
    ask(|service| {
        let id = &service.deployment;
        let path = match call % 7 {
            0 => "/v1/deployments".to_owned(),
            1 => "/v1/quality-gates".to_owned(),
            2 => "/v1/outcomes".to_owned(),
            3 => format!("/v1/deployments/{id}/gates/{}/conditions/0", service.gate),
            4 => format!("/v1/deployments/{id}/approve"),
            5 => format!("/v1/deployments/{id}/rollback"),
            _ => format!("/v1/deployments/{id}/cancel"),
        };
        Some(post(&path, "application/json", body.to_vec()))
    });
});
