//! How far a change has spread: over replicas, and to those who watch.

use std::time::{Duration, Instant};

use delos_deploy::wire::pb::WatchTrafficResponse;
use serde_json::{Value, json};
use tonic::Streaming;

use crate::harness::{
    self, App, Storage, binary::Binary, http, on_every_storage, postgres, settings,
};

fn deployment(version: i32, strategy: &str) -> Value {
    json!({
        "prompt_id": "greeting",
        "environment": "production",
        "to_version": version,
        "strategy": {"type": strategy, "interval_seconds": 3600},
        "skip_approval": true,
    })
}

/// Watches, and has been sent all there is.
async fn watch(address: &str) -> Streaming<WatchTrafficResponse> {
    let mut stream = harness::watch(address).await;
    stream.message().await.unwrap().unwrap();
    stream
}

async fn convergence(app: &App, deployment: &Value) -> Value {
    let id = deployment["id"].as_str().unwrap();
    let path = format!("/v1/deployments/{id}/status");
    app.rest("GET", &path, None).await.json()["convergence"].clone()
}

on_every_storage! {
    async fn a_split_has_spread_when_those_who_watch_have_been_sent_it(app: &App) {
        let rollout = app.create(deployment(1, "DEPLOYMENT_TYPE_GRADUAL")).await;
        let alone = convergence(app, &rollout).await;
        assert_eq!((&alone["converged"], &alone["watchers"]), (&json!(true), &json!(0)));
        assert_eq!(alone["revision"], "1");
        assert_eq!(alone["replicas"].as_array().unwrap().len(), 1);
        assert_eq!(alone["replicas"][0]["replica_id"], app.service.replica().to_string());

        let mut stream = watch(&app.address).await;
        // One that has connected and is never sent anything.
        let stuck = app.service.watch("production", 0).unwrap();
        let behind = convergence(app, &rollout).await;
        assert_eq!(behind["converged"], false);
        assert_eq!((&behind["watchers"], &behind["watchers_behind"]), (&json!(2), &json!(1)));
        drop(stuck);

        let path = format!("/v1/deployments/{}/rollback", rollout["id"].as_str().unwrap());
        assert_eq!(app.rest("POST", &path, Some(json!({}))).await.status, 200);
        stream.message().await.unwrap().unwrap();
        let after = convergence(app, &rollout).await;
        assert_eq!((&after["revision"], &after["converged"]), (&json!("2"), &json!(true)));
        assert_eq!((&after["watchers"], &after["watchers_behind"]), (&json!(1), &json!(0)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_done_when_no_replica_and_no_watcher_has_the_old_split() {
    let files = tempfile::tempdir().unwrap();
    let settings = settings(Storage::Postgres, files.path()).await;
    let (near, mut far) = (Binary::start(&settings), Binary::start(&settings));
    let call = async |method: &str, path: &str, body: Value| {
        let json = [("content-type", "application/json")];
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        let answer = http::send(&near.address, method, path, &json, body.into())
            .await
            .unwrap();
        assert!(answer.status < 300, "{answer:?}");
        answer.json()
    };
    call(
        "POST",
        "/v1/deployments",
        deployment(1, "DEPLOYMENT_TYPE_IMMEDIATE"),
    )
    .await;
    let created = call(
        "POST",
        "/v1/deployments",
        deployment(2, "DEPLOYMENT_TYPE_GRADUAL"),
    )
    .await;
    let id = created["deployment"]["id"].as_str().unwrap().to_owned();
    let mut streams = Vec::new();
    for _ in 0..5 {
        streams.push(watch(&far.address).await);
    }
    call("POST", &format!("/v1/deployments/{id}/rollback"), json!({})).await;
    let status = format!("/v1/deployments/{id}/status");
    let patience = Instant::now() + Duration::from_secs(20);
    let until = async |is_meant: &dyn Fn(&Value) -> bool| loop {
        let convergence = call("GET", &status, Value::Null).await["convergence"].clone();
        if is_meant(&convergence) {
            return convergence;
        }
        assert!(Instant::now() < patience, "{convergence}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let done = until(&|it| it["converged"] == true && it["watchers"] == 5).await;
    assert_eq!(
        (&done["revision"], &done["watchers_behind"]),
        (&json!("3"), &json!(0))
    );
    let replicas = done["replicas"].as_array().unwrap();
    assert_eq!(replicas.len(), 2);
    assert!(
        replicas.iter().all(|replica| replica["revision"] == "3"),
        "{done}"
    );
    for stream in &mut streams {
        // It may have begun before that replica had heard of the rollout.
        let told = loop {
            let told = stream.message().await.unwrap().unwrap();
            if told.revision == 3 {
                break told;
            }
        };
        assert_eq!(told.traffic[0].candidate_version, 0);
    }
    // One that stops takes its leave.
    drop(streams);
    far.terminate();
    assert!(far.wait().success());
    until(&|it| it["replicas"].as_array().unwrap().len() == 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_does_not_report_is_not_taken_to_have_it() {
    let app = App::start(Storage::Postgres).await;
    let rollout = app.create(deployment(1, "DEPLOYMENT_TYPE_GRADUAL")).await;
    let mut database = postgres::connect(app.settings()).await;
    let mut run = async |sql: &'static str| {
        sqlx::raw_sql(sql).execute(&mut database).await.unwrap();
    };
    // The test's clock stands at this time.
    run(
        "INSERT INTO replicas VALUES (gen_random_uuid(), '2026-01-01T00:00:00Z'); \
         INSERT INTO replica_spreads SELECT id, 'production', 1, 4, 0 FROM replicas \
         ON CONFLICT DO NOTHING",
    )
    .await;
    assert_eq!(convergence(&app, &rollout).await["converged"], true);
    run("UPDATE replica_spreads SET revision = 0 WHERE watchers = 4").await;
    let behind = convergence(&app, &rollout).await;
    assert_eq!(
        (&behind["converged"], &behind["watchers_behind"]),
        (&json!(false), &json!(4))
    );
    run("UPDATE replica_spreads SET revision = 1 WHERE watchers = 4").await;
    app.clock.advance(Duration::from_secs(15));
    let silent = convergence(&app, &rollout).await;
    assert_eq!(silent["converged"], false);
    let replicas = silent["replicas"].as_array().unwrap();
    assert_eq!(
        replicas
            .iter()
            .filter(|replica| replica["silent"] == true)
            .count(),
        1
    );
    app.clock.advance(Duration::from_secs(45));
    let gone = convergence(&app, &rollout).await;
    assert_eq!(
        (&gone["converged"], &gone["watchers"]),
        (&json!(true), &json!(0))
    );
    app.finish().await;
}
