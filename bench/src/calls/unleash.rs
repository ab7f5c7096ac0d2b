//! Unleash's evaluation of one toggle, as its front-end SDKs ask for it.

use serde::Deserialize;

use super::traffic::PROMPT;
use crate::load::http;

/// The token that the server is started with.
pub(crate) const TOKEN: &str = "*:production.bench";

/// The answer, as far as it matters.
#[derive(Debug, PartialEq, Eq, Deserialize)]
pub(crate) struct Toggle {
    name: String,
    /// Whether the toggle is on for who asks.
    pub(crate) enabled: bool,
}

/// The question.
pub(crate) fn question(user: &str) -> Vec<u8> {
    let target = format!("/api/frontend/features/{PROMPT}?userId={user}");
    http::request("GET", &target, &format!("Authorization: {TOKEN}\r\n"), "")
}

/// What the server is started with: the toggle, on for ten percent.
pub(crate) fn toggles() -> String {
    serde_json::json!({
        "version": 2,
        "features": [{
            "name": PROMPT,
            "type": "release",
            "project": "default",
            "enabled": true,
            "strategies": [{
                "name": "flexibleRollout",
                "constraints": [],
                "parameters": { "rollout": "10", "stickiness": "userId", "groupId": PROMPT },
            }],
        }],
    })
    .to_string()
}
