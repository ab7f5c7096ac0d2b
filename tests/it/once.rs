//! Requests under a key count once, however often and how many at a time they are sent.

use serde_json::{Value, json};
use sqlx::Connection as _;

use crate::harness::{
    App, Storage,
    binary::Binary,
    http::{self, Answer},
    minutes, on_every_storage, postgres, settings, until,
};

fn create(version: i32) -> Value {
    json!({
        "prompt_id": "greeting",
        "environment": "production",
        "to_version": version,
        "metadata": {"a": "1", "b": "2", "c": "3", "d": "4"},
    })
}

async fn post(app: &App, path: &str, body: &Value, headers: &[(&str, &str)]) -> Answer {
    let json = [("content-type", "application/json")];
    let headers = [&json, headers].concat();
    app.rest_with("POST", path, &headers, body.to_string())
        .await
}

async fn total(app: &App) -> Value {
    let answer = app.rest("GET", "/v1/deployments", None).await;
    answer.json()["total_count"].clone()
}

on_every_storage! {
    async fn the_first_answer_is_given_again(app: &App) {
        let key = [("idempotency-key", "one")];
        let first = post(app, "/v1/deployments", &create(1), &key).await;
        assert_eq!(first.status, 201);
        let id = first.json()["deployment"]["id"].as_str().unwrap().to_owned();
        let approve = format!("/v1/deployments/{id}/approve");
        let approved = post(app, &approve, &json!({"request_id": "two"}), &[]).await;
        assert_eq!(approved.status, 200);
        // It has moved on since.
        let again = post(app, "/v1/deployments", &create(1), &key).await;
        assert_eq!((again.status, again.json()), (201, first.json()));
        assert_eq!(again.header("location"), first.header("location"));
        assert_eq!(total(app).await, 1);
        // Without the key it would be refused, since it is approved.
        let again = post(app, &approve, &json!({"request_id": "two"}), &[]).await;
        assert_eq!((again.status, again.json()), (200, approved.json()));

        let rollback = format!("/v1/deployments/{id}/rollback");
        let quoted = [("idempotency-key", "\"three\"")];
        let back = post(app, &rollback, &json!({"reason": "no"}), &quoted).await;
        let same = json!({"reason": "no", "request_id": "three"});
        assert_eq!(post(app, &rollback, &same, &[]).await.json(), back.json());

        let gate = json!({"name": "Gate", "prompt_id": "greeting", "required": true,
            "conditions": [{"type": "custom", "operator": "gte", "threshold": 1}]});
        let key = [("idempotency-key", "four")];
        let made = post(app, "/v1/quality-gates", &gate, &key).await;
        let again = post(app, "/v1/quality-gates", &gate, &key).await;
        assert_eq!((again.status, again.json()), (201, made.json()));
        let gates = app.rest("GET", "/v1/quality-gates?prompt_id=greeting", None).await;
        assert_eq!(gates.json()["quality_gates"].as_array().unwrap().len(), 1);
    }

    async fn a_key_is_for_one_request(app: &App) {
        let key = [("idempotency-key", "one")];
        let first = post(app, "/v1/deployments", &create(1), &key).await.json();
        let other = post(app, "/v1/deployments", &create(2), &key).await;
        assert_eq!(other.status, 409);
        assert_eq!(other.json()["reason"], "IDEMPOTENCY_KEY_USED");
        let id = first["deployment"]["id"].as_str().unwrap();
        let cancel = format!("/v1/deployments/{id}/cancel");
        let other = post(app, &cancel, &json!({}), &key).await;
        assert_eq!(other.json()["reason"], "IDEMPOTENCY_KEY_USED");
        // Of another caller it is another key.
        let ada = [("idempotency-key", "one"), ("x-delos-actor", "ada")];
        assert_eq!(post(app, "/v1/deployments", &create(2), &ada).await.status, 201);
        // After a day it is free again.
        app.clock.advance(minutes(24 * 60 + 1));
        assert_eq!(post(app, "/v1/deployments", &create(3), &key).await.status, 201);
        assert_eq!(total(app).await, 3);
    }

    async fn three_at_once_have_one_effect(app: &App) {
        for number in 0..10 {
            let name = format!("storm-{number}");
            let key = [("idempotency-key", name.as_str())];
            let body = create(1);
            let call = || post(app, "/v1/deployments", &body, &key);
            let (first, second, third) = tokio::join!(call(), call(), call());
            for answer in [&first, &second, &third] {
                assert_eq!((answer.status, answer.json()), (201, first.json()));
            }
        }
        assert_eq!(total(app).await, 10);
    }
}

/// Two replicas come to the same deployment at the same moment for the same request: the later one
/// must not find that the deployment has changed, and refuse what was done for it.
#[tokio::test(flavor = "multi_thread")]
async fn who_waits_for_the_same_request_is_not_refused_what_it_did() {
    let app = App::start(Storage::Postgres).await;
    let made = app.create(create(1)).await;
    let id = made["id"].as_str().unwrap();
    let approve = format!("/v1/deployments/{id}/approve");
    let mut database = postgres::connect(app.settings()).await;
    let mut held = database.begin().await.unwrap();
    sqlx::query("SELECT 1 FROM deployments FOR UPDATE")
        .execute(&mut *held)
        .await
        .unwrap();
    let body = json!({"request_id": "one"});
    let call = || post(&app, &approve, &body, &[]);
    let both_wait = async {
        let mut watcher = postgres::connect(app.settings()).await;
        let waiting = "SELECT count(*) FROM pg_stat_activity \
            WHERE datname = current_database() AND wait_event_type = 'Lock'";
        until("both wait", async || {
            let waiting = sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut watcher);
            waiting.await.unwrap() == 2
        })
        .await;
        held.commit().await.unwrap();
    };
    let (first, second, ()) = tokio::join!(call(), call(), both_wait);
    assert_eq!((first.status, second.status), (200, 200), "{second:?}");
    assert_eq!(first.json(), second.json());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_key_is_refused() {
    let app = App::start(Storage::Memory).await;
    let long = "x".repeat(129);
    for key in ["", "\"\"", "ä", long.as_str()] {
        let key = [("idempotency-key", key)];
        let answer = post(&app, "/v1/deployments", &create(1), &key).await;
        assert_eq!(answer.status, 400, "{answer:?}");
        assert_eq!(answer.json()["errors"][0]["field"], "idempotency-key");
    }
    let mut two = create(1);
    two["request_id"] = json!("one");
    let answer = post(&app, "/v1/deployments", &two, &[("idempotency-key", "two")]).await;
    assert_eq!(answer.json()["errors"][0]["field"], "request_id");
    assert_eq!(total(&app).await, 0);
    app.finish().await;
}

/// A caller writes all the time, and sends again what was broken off by a kill, fifty times: nothing
/// acknowledged is lost, and nothing is done twice.
#[tokio::test(flavor = "multi_thread")]
async fn fifty_kills_in_a_loop_of_writes_lose_and_double_nothing() {
    const KILLS: u64 = 50;
    let files = tempfile::tempdir().unwrap();
    let settings = settings(Storage::SqliteFile, files.path()).await;
    let mut service = Binary::start(&settings);
    service.wait_until_ready().await;
    let made = std::cell::RefCell::new(Vec::new());
    for kill in 0..KILLS {
        let address = service.address.clone();
        let storm = async {
            loop {
                let mut body = create(1);
                body["request_id"] = json!(format!("call-{}", made.borrow().len()));
                match http::post(&address, "/v1/deployments", &body).await {
                    Ok(answer) if answer.status == 201 => {
                        let id = answer.json()["deployment"]["id"].clone();
                        made.borrow_mut().push(id);
                    }
                    _ => return,
                }
            }
        };
        let killing = async {
            let before = made.borrow().len();
            until("nothing is made", async || made.borrow().len() > before).await;
            // At another place within a write each time.
            tokio::time::sleep(std::time::Duration::from_micros(3_777 * kill)).await;
            service.kill();
        };
        tokio::join!(storm, killing);
        service = Binary::start(&settings);
        service.wait_until_ready().await;
    }
    let mut stored = Vec::new();
    loop {
        let path = format!("/v1/deployments?limit=1000&offset={}", stored.len());
        let page = http::get(&service.address, &path).await.unwrap().json();
        let page = page["deployments"].as_array().unwrap().clone();
        if page.is_empty() {
            break;
        }
        stored.extend(page.into_iter().map(|deployment| deployment["id"].clone()));
    }
    let made = made.into_inner();
    let lost: Vec<_> = made.iter().filter(|id| !stored.contains(id)).collect();
    assert!(lost.is_empty(), "{lost:?}");
    // The last one was broken off, and may have had its effect.
    let (made, stored) = (made.len(), stored.len());
    assert!(
        (made..=made + 1).contains(&stored),
        "{made} answered, {stored} stored"
    );
}
