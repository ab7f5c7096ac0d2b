//! What the storage holds, whatever the code above it believes: races, fences, dropped requests,
//! and a database that goes away.

use std::time::Duration;

use delos_deploy::{
    domain::{audit::Caller, state::Status},
    service::{Advanced, Reply},
};
use futures_util::future::join_all;
use serde_json::{Value, json};
use sqlx::Connection as _;
use uuid::Uuid;

use crate::harness::{App, Storage, http, on_every_storage, postgres};

fn gradual(prompt: &str) -> Value {
    json!({
        "prompt_id": prompt,
        "environment": "production",
        "to_version": 1,
        "strategy": {"type": "DEPLOYMENT_TYPE_GRADUAL", "interval_seconds": 60},
        "skip_approval": true,
    })
}

fn id(deployment: &Value) -> String {
    deployment["id"].as_str().unwrap().to_owned()
}

async fn all_at_once(app: &App, path: &str, count: usize) -> Vec<u16> {
    let calls = (0..count).map(|_| app.rest("POST", path, Some(json!({}))));
    join_all(calls)
        .await
        .into_iter()
        .map(|answer| answer.status)
        .collect()
}

const LEASE: Duration = Duration::from_secs(15);

on_every_storage! {
    async fn of_many_who_approve_at_once_one_does(app: &App) {
        let mut body = gradual("greeting");
        body["skip_approval"] = json!(false);
        let created = app.create(body).await;
        let mut answers = all_at_once(app, &format!("/v1/deployments/{}/approve", id(&created)), 20).await;
        answers.sort_unstable();
        assert_eq!(answers[0], 200);
        assert!(answers[1..].iter().all(|status| *status == 409), "{answers:?}");
    }

    async fn of_many_who_roll_back_at_once_one_does(app: &App) {
        let created = app.create(gradual("greeting")).await;
        let answers = all_at_once(app, &format!("/v1/deployments/{}/rollback", id(&created)), 20).await;
        assert_eq!(answers.iter().filter(|status| **status == 200).count(), 1, "{answers:?}");
    }

    async fn deployments_at_once_form_one_chain(app: &App) {
        let body = |version: usize| json!({
            "prompt_id": "greeting",
            "environment": "production",
            "to_version": version,
            "skip_approval": true,
        });
        join_all((1..=20).map(|version| app.create(body(version)))).await;
        let answer = app.rest("GET", "/v1/deployments?limit=100", None).await.json();
        let mut from: Vec<_> = answer["deployments"].as_array().unwrap().iter().map(|deployment| {
            assert_eq!(deployment["status"], "DEPLOYMENT_STATUS_COMPLETED");
            deployment["from_version"].as_i64().unwrap()
        }).collect();
        from.sort_unstable();
        from.dedup();
        // Nobody started from what another one had already replaced.
        assert_eq!(from.len(), 20);
        assert_eq!(app.traffic("greeting", "production").await.revision, 20);
    }

    async fn a_claim_that_has_passed_on_changes_nothing(app: &App) {
        let created = app.create(gradual("greeting")).await;
        app.clock.advance(Duration::from_secs(60));
        let store = app.service.store();
        let (slow, fast) = (Uuid::now_v7(), Uuid::now_v7());
        let paused = store.claim(slow, 10, LEASE).await.unwrap();
        assert_eq!(paused.len(), 1);
        assert!(store.claim(fast, 10, LEASE).await.unwrap().is_empty(), "claimed twice");

        app.clock.advance(LEASE);
        let taken = store.claim(fast, 10, LEASE).await.unwrap();
        assert!(taken[0].taken_over && taken[0].epoch > paused[0].epoch);
        assert_eq!(app.service.advance(&paused[0]).await.unwrap(), Advanced::Fenced);
        assert_eq!(app.get(&id(&created)).await["rollout"]["current_percentage"], 10);
        assert_eq!(app.service.advance(&taken[0]).await.unwrap(), Advanced::Done);
        assert_eq!(app.get(&id(&created)).await["rollout"]["current_percentage"], 20);
        assert_eq!(app.service.advance(&taken[0]).await.unwrap(), Advanced::Fenced, "a claim ends with its work");
    }

    async fn a_caller_s_verb_goes_before_a_claim(app: &App) {
        let created = app.create(gradual("greeting")).await;
        app.clock.advance(Duration::from_secs(60));
        let claimed = app.service.store().claim(Uuid::now_v7(), 10, LEASE).await.unwrap();
        let caller = Caller { actor: delos_deploy::domain::ids::Actor::anonymous(), request_id: "r".into() };
        let back = app.service.roll_back(&id(&created), "now", &caller, None).await.unwrap();
        let Reply::Now(back) = back else { panic!("{back:?}") };
        assert_eq!(back.deployment.status, Status::RolledBack);
        assert_eq!(app.service.advance(&claimed[0]).await.unwrap(), Advanced::Fenced);
        assert_eq!(app.traffic("greeting", "production").await.candidate, None);
    }

    async fn what_a_stopped_replica_had_claimed_is_free_at_once(app: &App) {
        app.create(gradual("greeting")).await;
        app.clock.advance(Duration::from_secs(60));
        let store = app.service.store();
        let (stopped, other) = (Uuid::now_v7(), Uuid::now_v7());
        assert_eq!(store.claim(stopped, 10, LEASE).await.unwrap().len(), 1);
        store.release(stopped).await.unwrap();
        let claimed = store.claim(other, 10, LEASE).await.unwrap();
        assert_eq!(claimed.len(), 1);
        assert!(!claimed[0].taken_over);
    }

    async fn live_metrics_are_absent_until_outcomes_are_collected(app: &App) {
        let created = app.create(gradual("greeting")).await;
        let path = format!("/v1/deployments/{}/status", id(&created));
        let progress = app.rest("GET", &path, None).await.json();
        assert_eq!((progress.get("current_metrics"), progress.get("baseline_metrics")), (None, None));
    }
}

/// The database itself refuses a second rollout of a prompt in an environment.
#[tokio::test(flavor = "multi_thread")]
async fn the_database_holds_one_rollout_at_a_time() {
    const SECOND: &str =
        "UPDATE deployments SET status = 'IN_PROGRESS' WHERE status = 'PENDING_GATES'";
    let app = App::start(Storage::Postgres).await;
    app.create(gradual("greeting")).await;
    app.create(gradual("greeting")).await;
    let mut database = postgres::connect(app.settings()).await;
    let refused = sqlx::query(SECOND)
        .execute(&mut database)
        .await
        .unwrap_err();
    assert!(
        refused.as_database_error().unwrap().is_unique_violation(),
        "{refused}"
    );
    app.finish().await;

    let app = App::start(Storage::SqliteFile).await;
    app.create(gradual("greeting")).await;
    app.create(gradual("greeting")).await;
    let path = &app.settings()["DELOS_SQLITE_PATH"];
    let mut database = sqlx::SqliteConnection::connect(&format!("sqlite://{path}"))
        .await
        .unwrap();
    let refused = sqlx::query(SECOND)
        .execute(&mut database)
        .await
        .unwrap_err();
    assert!(
        refused.as_database_error().unwrap().is_unique_violation(),
        "{refused}"
    );
    app.finish().await;
}

/// SQLite syncs what it acknowledges and keeps its log beside the file.
#[tokio::test(flavor = "multi_thread")]
async fn an_sqlite_file_is_in_wal_mode() {
    let app = App::start(Storage::SqliteFile).await;
    let path = &app.settings()["DELOS_SQLITE_PATH"];
    let mut database = sqlx::SqliteConnection::connect(&format!("sqlite://{path}"))
        .await
        .unwrap();
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode")
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!(mode, "wal");
    app.finish().await;
}

/// Clients that go away in the middle of their requests leave no session inside a transaction, and
/// what was begun is either done or not.
#[tokio::test(flavor = "multi_thread")]
async fn dropped_requests_leave_no_session_in_a_transaction() {
    const ROUNDS: u64 = 150;
    const CALLS: u64 = 6;
    let app = App::start_with(Storage::Postgres, &[("DELOS_DB_MAX_CONNECTIONS", "6")]).await;
    let mut database = postgres::connect(app.settings()).await;
    let mut dropped = 0;
    for round in 0..ROUNDS {
        // Half of them at the service itself, where the drop comes closer to its transaction.
        let calls = (0..CALLS).map(|number| {
            let prompt = format!("prompt-{round}-{number}");
            let patience = Duration::from_micros((round * CALLS + number) * 7919 % 4000);
            let (address, service) = (app.address.clone(), app.service.clone());
            async move {
                if number % 2 == 0 {
                    let headers = [("content-type", "application/json")];
                    let body = gradual(&prompt).to_string();
                    let call =
                        http::send(&address, "POST", "/v1/deployments", &headers, body.into());
                    tokio::time::timeout(patience, call).await.is_err()
                } else {
                    let call = create(&service, &prompt);
                    tokio::time::timeout(patience, call).await.is_err()
                }
            }
        });
        dropped += join_all(calls)
            .await
            .into_iter()
            .filter(|dropped| *dropped)
            .count();
        no_session_stays_in_a_transaction(&mut database).await;
    }
    assert!(dropped > 200, "only {dropped} requests were dropped");
    app.finish().await;
}

async fn create(service: &delos_deploy::service::Service, prompt: &str) {
    let request = delos_deploy::domain::deployment::DeploymentRequest {
        prompt_id: prompt.into(),
        environment: "production".into(),
        to_version: 1,
        ..Default::default()
    };
    service
        .create(request, &Caller::system(), None)
        .await
        .unwrap();
}

/// Waits until the writes under way have ended; one that has lost its caller never would.
async fn no_session_stays_in_a_transaction(database: &mut sqlx::PgConnection) {
    for _ in 0..500 {
        let open: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity \
             WHERE datname = current_database() AND state LIKE 'idle in transaction%'",
        )
        .fetch_one(&mut *database)
        .await
        .unwrap();
        if open == 0 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("a session is left inside a transaction");
}

/// A database that goes away is UNAVAILABLE, and the service is back when it is.
#[tokio::test(flavor = "multi_thread")]
async fn a_database_that_goes_away_is_unavailable_and_comes_back() {
    let app = App::start(Storage::Postgres).await;
    let created = app.create(gradual("greeting")).await;
    postgres::turn_away(app.settings()).await;
    let path = format!("/v1/deployments/{}", id(&created));
    let answer = app.rest("GET", &path, None).await;
    assert_eq!(
        (answer.status, answer.header("retry-after")),
        (503, "1"),
        "{answer:?}"
    );
    assert_eq!(answer.json()["reason"], "UNAVAILABLE");
    let answer = app.rest("POST", &format!("{path}/cancel"), None).await;
    assert_eq!(answer.status, 503, "{answer:?}");
    wait_for(&app, 503).await;

    postgres::let_in(app.settings()).await;
    wait_for(&app, 200).await;
    assert_eq!(
        app.get(&id(&created)).await["status"],
        "DEPLOYMENT_STATUS_IN_PROGRESS"
    );
    app.finish().await;
}

async fn wait_for(app: &App, status: u16) {
    for _ in 0..1000 {
        if http::get(&app.address, "/readyz").await.unwrap().status == status {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("/readyz does not become {status}");
}

/// How a service connects to PostgreSQL by each `DELOS_DB_SSLMODE`; none where it is refused.
async fn is_encrypted(mode: &str, host: &str, root: Option<&str>) -> Option<bool> {
    let files = tempfile::tempdir().unwrap();
    let mut settings = crate::harness::settings(Storage::Postgres, files.path()).await;
    settings.insert("DELOS_DB_SSLMODE".into(), mode.into());
    settings.insert("DELOS_DB_HOST".into(), host.into());
    if let Some(root) = root {
        settings.insert("DELOS_DB_SSLROOTCERT".into(), root.into());
    }
    let config = delos_deploy::config::Config::from_map(settings.clone()).unwrap();
    let clock = delos_deploy::clock::Clock::System;
    let store = delos_deploy::store::Store::open(&config.storage, clock)
        .await
        .ok()?;
    let mut database = postgres::connect(&settings).await;
    let encrypted = sqlx::query_scalar(
        "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) \
         WHERE datname = current_database() AND application_name LIKE 'delos-deploy%'",
    )
    .fetch_one(&mut database)
    .await
    .unwrap();
    store.close().await;
    encrypted
}

/// TLS to PostgreSQL is what the mode says, and a certificate that is to be checked is.
#[tokio::test(flavor = "multi_thread")]
async fn postgres_is_reached_over_tls_as_the_mode_says() {
    let root = std::env::var("DELOS_TEST_POSTGRES_ROOTCERT").unwrap();
    let root = Some(root.as_str());
    assert_eq!(
        is_encrypted("disable", "localhost", None).await,
        Some(false)
    );
    assert_eq!(is_encrypted("prefer", "localhost", None).await, Some(true));
    assert_eq!(is_encrypted("require", "localhost", None).await, Some(true));
    assert_eq!(
        is_encrypted("verify-ca", "127.0.0.1", root).await,
        Some(true)
    );
    assert_eq!(
        is_encrypted("verify-full", "localhost", root).await,
        Some(true)
    );
    assert_eq!(
        is_encrypted("verify-full", "localhost", None).await,
        None,
        "nobody we trust signed it"
    );
    assert_eq!(
        is_encrypted("verify-full", "127.0.0.1", root).await,
        None,
        "the certificate is another host's"
    );
}
