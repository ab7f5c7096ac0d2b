//! Users who are served the version that the split gives them, and what becomes of it.

use delos_deploy::domain::bucket::assign;
use serde_json::{Value, json};

use super::{App, http};

/// How a version does, for the user with this number: whether the call failed, and its score.
pub(crate) type Does = fn(version: i32, user: usize) -> (bool, Option<f64>);

/// Users are content, some more and some less, whichever the version.
pub(crate) fn good(_: i32, user: usize) -> (bool, Option<f64>) {
    (false, Some(if user.is_multiple_of(2) { 0.8 } else { 1.0 }))
}

/// As [`good`], but those who get version 2 are less content.
pub(crate) fn worse(version: i32, user: usize) -> (bool, Option<f64>) {
    let (failed, score) = good(version, user);
    let less = if version == 2 { 0.3 } else { 0.0 };
    (failed, score.map(|score| score - less))
}

/// Every call of version 2 fails.
pub(crate) fn broken(version: i32, user: usize) -> (bool, Option<f64>) {
    let (_, score) = good(version, user);
    (version == 2, score)
}

/// Serves users `from..to` of `greeting` in production by the split as it is, and reports what
/// became of it; returns how many got version 2.
pub(crate) async fn serve(app: &App, from: usize, to: usize, does: Does) -> usize {
    let traffic = app.traffic("greeting", "production").await;
    let users: Vec<usize> = (from..to).collect();
    let mut candidates = 0;
    for users in users.chunks(500) {
        let outcomes: Vec<Value> = users
            .iter()
            .map(|user| {
                let unit = format!("user-{user}");
                let version = assign(&traffic, &unit, false).unwrap().version;
                candidates += usize::from(version == 2);
                let (error, score) = does(version, *user);
                let mut outcome = outcome(&format!("call-{user}"), version, &unit);
                outcome["error"] = json!(error);
                outcome["latency_ms"] = json!(100 * version);
                if let Some(score) = score {
                    outcome["quality_score"] = json!(score);
                }
                outcome
            })
            .collect();
        let count = outcomes.len();
        let reported = report(app, json!({"outcomes": outcomes})).await;
        assert_eq!(reported["accepted"], count, "{reported}");
    }
    candidates
}

/// An outcome of `greeting` in production.
pub(crate) fn outcome(id: &str, version: i32, unit: &str) -> Value {
    json!({
        "id": id,
        "prompt_id": "greeting",
        "environment": "production",
        "version": version,
        "unit": unit,
    })
}

/// Reports over REST; returns the answer.
pub(crate) async fn report(app: &App, body: Value) -> Value {
    let answer = app.rest("POST", "/v1/outcomes", Some(body)).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

/// Version 1 of `greeting` in production, and version 2 on its way with a strategy; the id of its
/// deployment.
pub(crate) async fn roll_out(app: &App, strategy: Value) -> String {
    roll_out_at(&app.address, strategy).await
}

/// As [`roll_out`], wherever the service is.
pub(crate) async fn roll_out_at(address: &str, strategy: Value) -> String {
    let mut id = String::new();
    for (version, strategy) in [(1, json!({"type": 1})), (2, strategy)] {
        let body = json!({
            "prompt_id": "greeting",
            "environment": "production",
            "to_version": version,
            "strategy": strategy,
            "skip_approval": true,
        });
        let answer = http::post(address, "/v1/deployments", &body).await.unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        let created = answer.json();
        id = created["deployment"]["id"].as_str().unwrap().to_owned();
    }
    id
}
