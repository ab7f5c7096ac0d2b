//! Gates, judged on the evidence that the Eval service has or that somebody reports.

mod baseline;
mod compared_anew;

use std::time::{Duration, Instant};

use delos_deploy::evidence::pb::eval::{EvalRun, EvalRunStatus};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::harness::{
    App, Storage,
    binary::Binary,
    eval::{Eval, Fault, run_of},
    http, on_every_storage, on_lasting_storage, settings, until,
};

const PATIENCE: Duration = Duration::from_secs(30);

fn condition(kind: &str, operator: &str, threshold: f64, source: (&str, &str)) -> Value {
    let mut condition = json!({"type": kind, "operator": operator, "threshold": threshold});
    if !source.0.is_empty() {
        condition[source.0] = json!(source.1);
    }
    condition
}

fn score(source: (&str, &str)) -> Value {
    condition("eval_score", "gte", 0.9, source)
}

fn deployment(version: i32) -> Value {
    json!({
        "prompt_id": "greeting",
        "environment": "production",
        "to_version": version,
        "skip_approval": true,
    })
}

fn gate(conditions: &[Value], required: bool) -> Value {
    json!({"name": "Prod Gate", "prompt_id": "greeting", "conditions": conditions, "required": required})
}

/// A service that asks the stand-in, with a gate.
async fn gated(storage: Storage, eval: &Eval, conditions: &[Value]) -> App {
    let address = eval.address.to_string();
    let app = App::start_with(storage, &[("DELOS_EVAL_ENDPOINT", &address)]).await;
    let gate = gate(conditions, true);
    let answer = app.rest("POST", "/v1/quality-gates", Some(gate)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    app
}

/// Creates a deployment, lets its gates be looked after, and returns it.
async fn judged(app: &App, version: i32) -> Value {
    let created = app.create(deployment(version)).await;
    assert_eq!(created["status"], "DEPLOYMENT_STATUS_PENDING_GATES");
    app.tick().await;
    app.get(created["id"].as_str().unwrap()).await
}

fn status(deployment: &Value) -> &str {
    let status = deployment["status"].as_str().unwrap();
    status.strip_prefix("DEPLOYMENT_STATUS_").unwrap()
}

fn message(deployment: &Value) -> &str {
    deployment["gate_results"][0]["message"].as_str().unwrap()
}

fn with_status(run: EvalRun, status: EvalRunStatus) -> EvalRun {
    EvalRun {
        status: status.into(),
        error_message: "out of quota".into(),
        ..run
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_condition_is_measured_by_the_run_that_it_names() {
    let run = ("eval_run_id", "run-1");
    for (conditions, passes, measured) in [
        (vec![score(run)], true, 0.95),
        (vec![condition("eval_score", "eq", 0.95, run)], true, 0.95),
        (vec![condition("eval_score", "gte", 0.96, run)], false, 0.95),
        (vec![condition("latency", "lte", 100.0, run)], true, 100.0),
        (vec![condition("latency", "lte", 99.0, run)], false, 100.0),
        (vec![condition("cost", "lte", 0.01, run)], true, 0.01),
        (vec![condition("cost", "lte", 0.009, run)], false, 0.01),
        // The run that another condition of the gate names.
        (
            vec![condition("latency", "lte", 99.0, ("", "")), score(run)],
            false,
            100.0,
        ),
    ] {
        let eval = Eval::start().await;
        eval.put(run_of("run-1", "greeting", 2, 0.95));
        let app = gated(Storage::Memory, &eval, &conditions).await;
        let deployment = judged(&app, 2).await;
        let expected = if passes { "COMPLETED" } else { "GATES_FAILED" };
        assert_eq!(status(&deployment), expected, "{deployment}");
        let result = &deployment["gate_results"][0];
        assert_eq!(result["passed"], passes);
        assert_eq!(
            result["condition_results"][0]["actual"], measured,
            "{deployment}"
        );
        assert!(message(&deployment).contains("run-1"), "{deployment}");
        let id = deployment["id"].as_str().unwrap();
        let events = app
            .rest("GET", &format!("/v1/deployments/{id}/events"), None)
            .await
            .json();
        let measure = events["events"]
            .as_array()
            .unwrap()
            .iter()
            .find(|event| event["action"] == "measure");
        assert!(
            measure.unwrap()["reason"]
                .as_str()
                .unwrap()
                .contains("run-1"),
            "{events}"
        );
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_that_can_not_count_fails_the_gate_and_says_why() {
    let good = || run_of("run-1", "greeting", 2, 0.95);
    let mut without_summary = good();
    without_summary.summary = None;
    let mut idle = good();
    idle.completed_examples = 0;
    for (run, said) in [
        (
            run_of("run-1", "farewell", 2, 0.95),
            "is of version 2 of prompt 'farewell'",
        ),
        (run_of("run-1", "greeting", 3, 0.95), "is of version 3"),
        (
            run_of("another", "greeting", 2, 0.95),
            "there is no evaluation run 'run-1'",
        ),
        (
            with_status(good(), EvalRunStatus::Failed),
            "has failed: out of quota",
        ),
        (
            with_status(good(), EvalRunStatus::Cancelled),
            "was cancelled",
        ),
        (
            run_of("run-1", "greeting", 2, f64::NAN),
            "NaN is no eval_score",
        ),
        (
            run_of("run-1", "greeting", 2, f64::INFINITY),
            "inf is no eval_score",
        ),
        (run_of("run-1", "greeting", 2, 1.5), "1.5 is no eval_score"),
        (without_summary, "without a summary"),
        (idle, "has run no example"),
    ] {
        let eval = Eval::start().await;
        eval.put(run);
        let source = ("eval_run_id", "run-1");
        let conditions = [condition("cost", "lte", 1.0, source), score(source)];
        let app = gated(Storage::Memory, &eval, &conditions).await;
        let deployment = judged(&app, 2).await;
        assert_eq!(status(&deployment), "GATES_FAILED", "{deployment}");
        assert!(message(&deployment).contains(said), "{said}: {deployment}");
        assert_eq!(deployment["gate_results"][0]["passed"], false);
        app.finish().await;
    }
}

on_every_storage! {
    async fn a_dataset_without_a_run_starts_one_and_waits_for_it(app: &App) {
        let eval = Eval::start().await;
        // This service is started before it is known whom to ask.
        let storage = match app.settings().get("DELOS_STORAGE_BACKEND").map(String::as_str) {
            Some("postgres") => Storage::Postgres,
            Some("sqlite") => Storage::SqliteFile,
            _ => Storage::Memory,
        };
        // Of another version, of another prompt, and one that came to nothing.
        eval.put(run_of("old", "greeting", 1, 0.99));
        eval.put(run_of("other", "farewell", 2, 0.99));
        eval.put(with_status(run_of("failed", "greeting", 2, 0.99), EvalRunStatus::Failed));
        let app = gated(storage, &eval, &[score(("dataset_id", "golden-set"))]).await;
        let waiting = judged(&app, 2).await;
        assert_eq!(status(&waiting), "PENDING_GATES");
        assert!(waiting["status_message"].as_str().unwrap().contains("run started-1 was started"), "{waiting}");
        assert_eq!(eval.started(), 1);
        let started = eval.runs().pop().unwrap();
        let id = waiting["id"].as_str().unwrap();
        assert_eq!(started.name, format!("delos-deploy/{id}/golden-set"));
        assert_eq!(started.prompt_version, 2);
        for _ in 0..20 {
            app.advance(Duration::from_secs(10)).await;
        }
        assert!(message(&app.get(id).await).contains("has not begun yet"));
        assert_eq!(eval.started(), 1, "it is found again");
        eval.complete(0.93);
        app.advance(Duration::from_secs(30)).await;
        let done = app.get(id).await;
        assert_eq!(status(&done), "COMPLETED");
        assert_eq!(done["gate_results"][0]["condition_results"][0]["actual"], 0.93);
        // The next deployment of the version finds it, too.
        assert_eq!(status(&judged(&app, 2).await), "COMPLETED");
        assert_eq!(eval.started(), 1);
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_newest_completed_run_over_a_dataset_counts() {
    let eval = Eval::start().await;
    for (number, score) in [(0, 0.2), (150, 0.95), (120, 0.3)] {
        let mut run = run_of(&format!("run-{number}"), "greeting", 2, score);
        run.completed_at = Some(prost_types::Timestamp {
            seconds: 1_000 + number,
            nanos: 0,
        });
        eval.put(run);
    }
    // Beyond the first page.
    for number in 0..130 {
        eval.put(run_of(&format!("old-{number}"), "greeting", 1, 0.1));
    }
    eval.put(with_status(
        run_of("newer", "greeting", 2, 0.0),
        EvalRunStatus::Running,
    ));
    let app = gated(
        Storage::Memory,
        &eval,
        &[score(("dataset_id", "golden-set"))],
    )
    .await;
    let deployment = judged(&app, 2).await;
    assert_eq!(status(&deployment), "COMPLETED", "{deployment}");
    assert!(message(&deployment).contains("run-150"), "{deployment}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_our_own_that_came_to_nothing_is_not_started_again() {
    let eval = Eval::start().await;
    let app = gated(
        Storage::Memory,
        &eval,
        &[score(("dataset_id", "golden-set"))],
    )
    .await;
    let id = judged(&app, 2).await["id"].as_str().unwrap().to_owned();
    let run = eval.runs().pop().unwrap();
    eval.put(with_status(run, EvalRunStatus::Failed));
    app.advance(Duration::from_secs(30)).await;
    let failed = app.get(&id).await;
    assert_eq!(status(&failed), "GATES_FAILED");
    assert!(message(&failed).contains("out of quota"), "{failed}");
    assert_eq!(eval.started(), 1);
    app.finish().await;

    let app = gated(Storage::Memory, &eval, &[score(("dataset_id", "nowhere"))]).await;
    let failed = judged(&app, 2).await;
    assert_eq!(status(&failed), "GATES_FAILED");
    assert!(
        message(&failed).contains("dataset 'nowhere' does not exist"),
        "{failed}"
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_whose_claim_has_passed_on_starts_no_run() {
    let eval = Eval::start().await;
    let app = gated(
        Storage::Postgres,
        &eval,
        &[score(("dataset_id", "golden-set"))],
    )
    .await;
    app.create(deployment(2)).await;
    let store = app.service.store();
    let lease = Duration::from_secs(15);
    let (paused, other) = (Uuid::now_v7(), Uuid::now_v7());
    let stale = store.claim(paused, 10, lease).await.unwrap().remove(0);
    let deployment = app
        .service
        .deployment(&stale.deployment_id.to_string())
        .await
        .unwrap();
    app.clock.advance(lease);
    assert_eq!(store.claim(other, 10, lease).await.unwrap().len(), 1);
    app.service
        .advance_by_evidence(&stale, &deployment)
        .await
        .unwrap();
    assert_eq!(eval.started(), 0);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_nobody_answers_a_gate_waits_and_at_its_deadline_it_fails() {
    let eval = Eval::start().await;
    eval.fault(Fault::Unavailable);
    eval.put(run_of("run-1", "greeting", 2, 0.95));
    let app = gated(Storage::Memory, &eval, &[score(("eval_run_id", "run-1"))]).await;
    let first = judged(&app, 2).await;
    assert_eq!(status(&first), "PENDING_GATES");
    assert!(message(&first).contains("does not answer"), "{first}");
    for _ in 0..20 {
        app.advance(Duration::from_secs(30)).await;
    }
    // It is left alone for a while: by this process's clock no time has passed.
    assert!(eval.calls() < 12, "{} calls", eval.calls());
    let second = app.create(json!({"prompt_id": "greeting", "environment": "staging", "to_version": 2, "skip_approval": true})).await;
    app.advance(Duration::from_secs(3600)).await;
    for id in [&first["id"], &second["id"]] {
        let failed = app.get(id.as_str().unwrap()).await;
        assert_eq!(status(&failed), "GATES_FAILED");
        let why = failed["status_message"].as_str().unwrap();
        assert!(
            why.contains("not measured before the deadline") && why.contains("does not answer"),
            "{why}"
        );
    }
    eval.fault(Fault::None);
    let later = judged(&app, 2).await;
    let id = later["id"].as_str().unwrap();
    let patience = Instant::now() + PATIENCE;
    while status(&app.get(id).await) != "COMPLETED" {
        assert!(Instant::now() < patience, "it is never asked again");
        tokio::time::sleep(Duration::from_millis(100)).await;
        app.advance(Duration::from_secs(1)).await;
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_optional_gate_that_fails_stops_nothing() {
    let eval = Eval::start().await;
    eval.put(run_of("run-1", "greeting", 2, 0.5));
    let address = eval.address.to_string();
    let app = App::start_with(Storage::Memory, &[("DELOS_EVAL_ENDPOINT", &address)]).await;
    let gate = gate(&[score(("eval_run_id", "run-1"))], false);
    app.rest("POST", "/v1/quality-gates", Some(gate)).await;
    let deployment = judged(&app, 2).await;
    assert_eq!(status(&deployment), "COMPLETED");
    assert_eq!(deployment["gate_results"][0]["passed"], false);
    assert!(message(&deployment).contains("0.5"), "{deployment}");
    app.finish().await;
}

async fn report(app: &App, deployment: &Value, index: i32, body: Value) -> http::Answer {
    let id = deployment["id"].as_str().unwrap();
    let gate = deployment["gate_results"][0]["gate_id"].as_str().unwrap();
    let path = format!("/v1/deployments/{id}/gates/{gate}/conditions/{index}");
    app.rest("POST", &path, Some(body)).await
}

on_every_storage! {
    async fn what_is_decided_outside_is_reported(app: &App) {
        let conditions = [
            condition("custom", "gte", 3.0, ("", "")),
            condition("custom", "gte", 0.0, ("", "")),
            score(("dataset_id", "golden-set")),
        ];
        let answer = app.rest("POST", "/v1/quality-gates", Some(gate(&conditions, true))).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let waiting = app.create(deployment(2)).await;
        let refused = async |index, body| {
            let answer = report(app, &waiting, index, body).await;
            (answer.status, answer.json()["reason"].as_str().unwrap().to_owned())
        };
        let invalid = (400, "INVALID_REQUEST".to_owned());
        assert_eq!(refused(0, json!({})).await, invalid);
        assert_eq!(refused(0, json!({"actual": 1, "passed": true})).await, invalid);
        assert_eq!(refused(-1, json!({"passed": true})).await, invalid);
        assert_eq!(refused(0, json!({"passed": true, "index": 1})).await, invalid);
        assert_eq!(refused(7, json!({"passed": true})).await, (409, "CONDITION_NOT_BOUND".into()));
        assert_eq!(refused(2, json!({"actual": 1})).await, (409, "CONDITION_NOT_CUSTOM".into()));

        let one = report(app, &waiting, 0, json!({"actual": 3.5, "message": "checked by hand"})).await;
        assert_eq!(one.status, 200, "{one:?}");
        let one = one.json()["deployment"].clone();
        assert_eq!(status(&one), "PENDING_GATES");
        let result = &one["gate_results"][0]["condition_results"][0];
        assert_eq!((&result["actual"], &result["passed"]), (&json!(3.5), &json!(true)));
        let again = report(app, &waiting, 0, json!({"actual": 3.5})).await;
        assert_eq!(again.status, 200, "the same may be said again");
        assert_eq!(refused(0, json!({"actual": 2})).await, (409, "CONDITION_ALREADY_DECIDED".into()));

        let failed = report(app, &waiting, 1, json!({"passed": false, "message": "legal says no"})).await;
        let failed = failed.json()["deployment"].clone();
        assert_eq!(status(&failed), "GATES_FAILED");
        assert!(message(&failed).contains("legal says no"), "{failed}");
        assert_eq!(refused(0, json!({"actual": 3.5})).await, (409, "DEPLOYMENT_NOT_PENDING_GATES".into()));
    }
}

/// A service of its own process that asks the stand-in.
async fn start(
    storage: Storage,
    files: &std::path::Path,
    eval: &Eval,
) -> (Binary, std::collections::BTreeMap<String, String>) {
    let mut settings = settings(storage, files).await;
    settings.insert("DELOS_EVAL_ENDPOINT".into(), eval.address.to_string());
    (Binary::start(&settings), settings)
}

/// Kills the service while it asks, and while the run waits. Each time the next process takes over
/// when the lease of the one before has ended.
async fn a_gate_survives_a_kill_in_each_phase(storage: Storage) {
    let eval = Eval::start().await;
    eval.fault(Fault::Mute);
    let files = tempfile::tempdir().unwrap();
    let (service, settings) = start(storage, files.path(), &eval).await;
    service.wait_until_ready().await;
    service
        .post(
            "/v1/quality-gates",
            gate(&[score(("dataset_id", "golden-set"))], true),
        )
        .await;
    let created = service.post("/v1/deployments", deployment(2)).await;
    let id = created["deployment"]["id"].as_str().unwrap().to_owned();
    // While it asks.
    until("it is never asked", async || eval.calls() > 0).await;
    service.kill();
    eval.fault(Fault::None);
    let service = Binary::start(&settings);
    // While the run waits.
    until("no run is started", async || eval.started() > 0).await;
    service.kill();
    let service = Binary::start(&settings);
    eval.complete(0.95);
    service
        .deployment_becomes(&id, |it| status(it) == "COMPLETED")
        .await;
    assert_eq!(eval.started(), 1);
}

on_lasting_storage!(
    a_gate_survives_a_kill_in_each_phase_and_its_run_is_started_once,
    a_gate_survives_a_kill_in_each_phase
);

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_go_on_while_the_eval_service_takes_every_call_and_answers_none() {
    let eval = Eval::start().await;
    eval.fault(Fault::Mute);
    let files = tempfile::tempdir().unwrap();
    let (service, _settings) = start(Storage::Memory, files.path(), &eval).await;
    service
        .post(
            "/v1/quality-gates",
            gate(&[score(("dataset_id", "golden-set"))], true),
        )
        .await;
    for number in 0..100 {
        let mut body = deployment(2);
        body["environment"] = json!(format!("staging-{number}"));
        service.post("/v1/deployments", body).await;
    }
    let rollout = json!({
        "prompt_id": "farewell",
        "environment": "production",
        "to_version": 1,
        "strategy": {"type": "DEPLOYMENT_TYPE_GRADUAL", "initial_percentage": 25, "increment": 25, "interval_seconds": 1},
        "skip_approval": true,
    });
    let created = service.post("/v1/deployments", rollout).await;
    let id = created["deployment"]["id"].as_str().unwrap();
    service
        .deployment_becomes(id, |it| status(it) == "COMPLETED")
        .await;
    let path = format!("/v1/deployments/{id}");
    let done = http::get(&service.address, &path).await.unwrap().json();
    let at = |name: &str| {
        let text = done["deployment"][name].as_str().unwrap();
        text.parse::<chrono::DateTime<chrono::Utc>>().unwrap()
    };
    // Three steps of a second, and not one that waits for somebody's answer (three seconds).
    let took = at("completed_at") - at("started_at");
    assert!(took < chrono::TimeDelta::seconds(6), "{took}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_the_prompt_service_does_not_know_is_not_deployed() {
    let eval = Eval::start().await;
    eval.put(run_of("run-1", "greeting", 2, 0.95));
    let address = eval.address.to_string();
    let app = App::start_with(Storage::Memory, &[("DELOS_PROMPT_ENDPOINT", &address)]).await;
    assert_eq!(status(&app.create(deployment(2)).await), "COMPLETED");
    let create = async |body: Value| app.rest("POST", "/v1/deployments", Some(body)).await;
    let missing = create(deployment(3)).await;
    assert_eq!(missing.status, 400);
    assert_eq!(missing.json()["errors"][0]["field"], "to_version");
    let why = missing.json()["errors"][0]["detail"].to_string();
    assert!(why.contains("its newest is 2"), "{why}");
    let mut unknown = deployment(2);
    unknown["prompt_id"] = json!("farewell");
    let unknown = create(unknown).await;
    assert_eq!(
        (unknown.status, &unknown.json()["reason"]),
        (404, &json!("NOT_FOUND"))
    );
    assert!(
        unknown.json()["detail"]
            .as_str()
            .unwrap()
            .contains("farewell"),
        "{unknown:?}"
    );
    eval.fault(Fault::Unavailable);
    let down = create(deployment(2)).await;
    assert_eq!(down.status, 503);
    assert!(
        down.json()["detail"]
            .as_str()
            .unwrap()
            .contains("Prompt service"),
        "{down:?}"
    );
    assert_eq!(
        app.rest("GET", "/v1/deployments", None).await.json()["total_count"],
        1
    );
    app.finish().await;
}
