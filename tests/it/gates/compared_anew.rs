//! The version that is served changes while another one is compared with it.

use super::{
    baseline::{results, score_beside},
    *,
};

fn evaluated(eval: &Eval, version: i32, score: f64) {
    let run = format!("run-of-{version}");
    eval.put(run_of(&run, "greeting", version, 0.0));
    eval.complete_by(&run, results(300, score, score));
}

async fn add_gate(app: &App, conditions: &[Value]) {
    let gate = gate(conditions, true);
    let answer = app.rest("POST", "/v1/quality-gates", Some(gate)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

async fn asking(storage: Storage, eval: &Eval) -> App {
    let address = eval.address.to_string();
    App::start_with(storage, &[("DELOS_EVAL_ENDPOINT", &address)]).await
}

/// The reasons that are on record.
async fn reasons(app: &App, id: &str) -> Vec<String> {
    let path = format!("/v1/deployments/{id}/events");
    let events = app.rest("GET", &path, None).await.json();
    let events = events["events"].as_array().unwrap().iter();
    events
        .map(|event| event["reason"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_waits_in_line_is_compared_with_what_went_before_it() {
    for (score, expected) in [(0.9, "COMPLETED"), (0.99, "GATES_FAILED")] {
        let eval = Eval::start().await;
        for (version, score) in [(1, 0.9), (2, score), (3, 0.9)] {
            evaluated(&eval, version, score);
        }
        let app = asking(Storage::Memory, &eval).await;
        app.create(deployment(1)).await;
        let mut ahead = deployment(2);
        ahead["strategy"] = json!({"type": "DEPLOYMENT_TYPE_CANARY", "interval_seconds": 7200});
        let ahead = app.create(ahead).await;
        add_gate(&app, &[score_beside(0.05)]).await;
        let waiting = judged(&app, 3).await;
        let id = waiting["id"].as_str().unwrap();
        assert_eq!(waiting["gates_passed"], true, "{waiting}");
        assert!(message(&waiting).contains("beside version 1"), "{waiting}");

        // Long after its gates had to be measured.
        app.advance(Duration::from_secs(7200)).await;
        let ahead = app.get(ahead["id"].as_str().unwrap()).await;
        assert_eq!(status(&ahead), "COMPLETED");
        let done = app.get(id).await;
        assert_eq!(status(&done), expected, "{done}");
        assert_eq!(done["from_version"], 2);
        assert!(
            message(&done).contains("beside version 2 in run run-of-2"),
            "{done}"
        );
        let reasons = reasons(&app, id).await;
        let anew = "the environment serves version 2 now and not 1";
        assert!(
            reasons.iter().any(|why| why.starts_with(anew)),
            "{reasons:#?}"
        );
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pass_beside_a_version_that_was_taken_back_does_not_stand() {
    let eval = Eval::start().await;
    for (version, score) in [(1, 0.99), (2, 0.9), (3, 0.9)] {
        evaluated(&eval, version, score);
    }
    let app = asking(Storage::Memory, &eval).await;
    app.create(deployment(1)).await;
    let second = app.create(deployment(2)).await;
    let custom = condition("custom", "gte", 1.0, ("", ""));
    add_gate(&app, &[score_beside(0.05), custom]).await;
    let waiting = judged(&app, 3).await;
    let result = &waiting["gate_results"][0]["condition_results"][0];
    assert_eq!(
        (status(&waiting), &result["passed"]),
        ("PENDING_GATES", &json!(true))
    );
    let path = format!(
        "/v1/deployments/{}/rollback",
        second["id"].as_str().unwrap()
    );
    let back = app.rest("POST", &path, Some(json!({}))).await;
    assert_eq!(back.status, 200, "{back:?}");
    // All that was missing, but for what no longer stands.
    let reported = report(&app, &waiting, 1, json!({"passed": true})).await;
    let reported = reported.json()["deployment"].clone();
    let results = &reported["gate_results"][0]["condition_results"];
    assert_eq!(status(&reported), "PENDING_GATES", "{reported}");
    assert_eq!(
        (&results[0]["passed"], &results[1]["passed"]),
        (&json!(false), &json!(true))
    );
    assert_eq!(reported["from_version"], 1);
    app.tick().await;
    let failed = app.get(waiting["id"].as_str().unwrap()).await;
    assert_eq!(status(&failed), "GATES_FAILED", "{failed}");
    assert!(
        message(&failed).contains("beside version 1 in run run-of-1"),
        "{failed}"
    );
    app.finish().await;
}

on_every_storage! {
    async fn an_approval_compares_with_what_is_served_by_then(app: &App) {
        let eval = Eval::start().await;
        let storage = match app.settings().get("DELOS_STORAGE_BACKEND").map(String::as_str) {
            Some("postgres") => Storage::Postgres,
            Some("sqlite") => Storage::SqliteFile,
            _ => Storage::Memory,
        };
        for version in 1..=3 {
            evaluated(&eval, version, 0.9);
        }
        let app = asking(storage, &eval).await;
        app.create(deployment(1)).await;
        let mut patient = deployment(3);
        patient["skip_approval"] = json!(false);
        let patient = app.create(patient).await;
        let id = patient["id"].as_str().unwrap();
        assert_eq!(patient["from_version"], 1);
        app.create(deployment(2)).await;
        add_gate(&app, &[score_beside(0.05)]).await;
        let path = format!("/v1/deployments/{id}/approve");
        let approved = app.rest("POST", &path, Some(json!({}))).await.json();
        assert_eq!(approved["deployment"]["from_version"], 2);
        app.tick().await;
        let done = app.get(id).await;
        assert_eq!(status(&done), "COMPLETED", "{done}");
        assert!(message(&done).contains("beside version 2"), "{done}");
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_measured_beside_another_version_meanwhile_does_not_count() {
    let eval = Eval::start().await;
    for version in 1..=3 {
        evaluated(&eval, version, 0.9);
    }
    let app = asking(Storage::Memory, &eval).await;
    app.create(deployment(1)).await;
    add_gate(&app, &[score_beside(0.05)]).await;
    let created = app.create(deployment(3)).await;
    let id = created["id"].as_str().unwrap();
    let store = app.service.store();
    let claims = store
        .claim(Uuid::now_v7(), 10, Duration::from_secs(15))
        .await;
    let claim = claims.unwrap().remove(0);
    // As if version 3 had been served when it was looked at, which it could not be worse than.
    let mut seen = app.service.deployment(id).await.unwrap();
    seen.from_version = 3;
    app.service
        .advance_by_evidence(&claim, &seen)
        .await
        .unwrap();
    let waiting = app.get(id).await;
    assert_eq!(
        (status(&waiting), &waiting["from_version"]),
        ("PENDING_GATES", &json!(1))
    );
    app.tick().await;
    let done = app.get(id).await;
    assert!(message(&done).contains("beside version 1"), "{done}");
    app.finish().await;
}
