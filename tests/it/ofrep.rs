//! Any OpenFeature SDK: the served versions as flags, over OFREP.

use std::collections::BTreeMap;

use delos_deploy::domain::bucket;
use serde_json::{Value, json};

use crate::harness::{App, Storage, binary::Binary, http, minutes, settings};

const ONE: &str = "/ofrep/v1/evaluate/flags/greeting";
const ALL: &str = "/ofrep/v1/evaluate/flags";

async fn deploy_in(app: &App, environment: &str, version: i32, strategy: &str) -> Value {
    app.create(deployment(environment, version, strategy)).await
}

fn deployment(environment: &str, version: i32, strategy: &str) -> Value {
    json!({
        "prompt_id": "greeting",
        "environment": environment,
        "to_version": version,
        "strategy": {"type": strategy, "initial_percentage": 10, "increment": 40, "interval_seconds": 60},
        "skip_approval": true,
    })
}

/// Version 1 to everybody, version 2 to a tenth.
async fn begin_rollout(app: &App) -> Value {
    deploy_in(app, "production", 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    deploy_in(app, "production", 2, "DEPLOYMENT_TYPE_GRADUAL").await
}

async fn roll_back(app: &App, rollout: &Value) {
    let path = format!(
        "/v1/deployments/{}/rollback",
        rollout["id"].as_str().unwrap()
    );
    assert_eq!(app.rest("POST", &path, None).await.status, 200);
}

/// The answer to a context.
async fn evaluate(app: &App, path: &str, context: Value) -> (u16, Value) {
    let answer = app
        .rest("POST", path, Some(json!({"context": context})))
        .await;
    (answer.status, answer.json())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flag_is_the_version_of_a_prompt() {
    let app = App::start(Storage::Memory).await;
    let first = deploy_in(&app, "production", 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    let (status, flag) = evaluate(&app, ONE, json!({"targetingKey": "user-1"})).await;
    assert_eq!(status, 200);
    let expected = json!({
        "key": "greeting",
        "value": 1,
        "variant": "v1",
        "reason": "STATIC",
        "metadata": {
            "deploymentId": first["id"],
            "arm": "stable",
            "revision": 1,
            "environment": "production",
            "promptId": "greeting",
        },
    });
    assert_eq!(flag, expected);

    let rollout = deploy_in(&app, "production", 2, "DEPLOYMENT_TYPE_GRADUAL").await;
    let id = rollout["id"].as_str().unwrap().parse().unwrap();
    for number in 0..1000 {
        let key = format!("user-{number}");
        let (_, flag) = evaluate(&app, ONE, json!({"targetingKey": key, "plan": ["any"]})).await;
        let is_in = bucket::place(id, &key) < 10_000;
        let (value, arm) = if is_in {
            (2, "candidate")
        } else {
            (1, "stable")
        };
        assert_eq!(
            (
                &flag["value"],
                &flag["metadata"]["arm"],
                &flag["reason"],
                &flag["variant"]
            ),
            (
                &json!(value),
                &json!(arm),
                &json!("SPLIT"),
                &json!(format!("v{value}"))
            ),
            "{key}"
        );
    }

    // Without a key nobody takes part in a rollout; a preview sees it all the same.
    for body in [
        "",
        "null",
        "{}",
        r#"{"context": null}"#,
        r#"{"context": {}}"#,
        r#"{"context": {"targetingKey": ""}}"#,
    ] {
        let answer = app.rest_with("POST", ONE, &[], body).await.json();
        assert_eq!(
            (&answer["value"], &answer["reason"]),
            (&json!(1), &json!("STATIC")),
            "{body}"
        );
    }
    let (_, preview) = evaluate(&app, ONE, json!({"preview": true})).await;
    assert_eq!(
        (
            &preview["value"],
            &preview["metadata"]["arm"],
            &preview["reason"]
        ),
        (&json!(2), &json!("preview"), &json!("TARGETING_MATCH"))
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_of_the_path_or_the_context_or_the_configuration() {
    let variables = [("DELOS_DEFAULT_ENVIRONMENT", "staging")];
    let app = App::start_with(Storage::Memory, &variables).await;
    for (version, environment) in [(1, "staging"), (2, "canary"), (3, "production")] {
        deploy_in(&app, environment, version, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    }
    let bound = format!("/environments/production{ONE}");
    let cases = [
        (ONE, json!({}), 1),
        (ONE, json!({"environment": ""}), 1),
        (ONE, json!({"environment": "canary"}), 2),
        (&bound, json!({}), 3),
        (&bound, json!({"environment": "canary"}), 3),
        // There it is the application's own attribute.
        (&bound, json!({"environment": {"region": "eu"}}), 3),
    ];
    for (path, context, version) in cases {
        let (status, flag) = evaluate(&app, path, context.clone()).await;
        assert_eq!(
            (status, &flag["value"]),
            (200, &json!(version)),
            "{path} {context}"
        );
    }
    let all = evaluate(&app, &format!("/environments/canary{ALL}"), json!({}))
        .await
        .1;
    assert_eq!(all["flags"][0]["value"], 2);
    let all = evaluate(&app, ALL, json!({"environment": "production"}))
        .await
        .1;
    assert_eq!(
        all["eventStreams"],
        json!([{"type": "sse", "endpoint": {"requestUri": "/environments/production/ofrep/v1/events"}}])
    );
    app.finish().await;
}

/// Asks, and checks that it fails in the protocol's own shape.
async fn fails(app: &App, path: &str, body: &str, status: u16, code: &str, key: Option<&str>) {
    let answer = app.rest_with("POST", path, &[], body.to_owned()).await;
    let failure = answer.json();
    let shown: String = body.chars().take(60).collect();
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (status, "application/json"),
        "{path} {shown}"
    );
    assert_eq!(failure["errorCode"], code, "{path} {shown}");
    assert_eq!(failure["key"].as_str(), key, "{path} {shown}");
    assert!(!failure["errorDetails"].as_str().unwrap().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_served_is_not_found() {
    let app = App::start(Storage::Memory).await;
    deploy_in(&app, "staging", 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    for key in ["greeting", "farewell", "prompt/greeting v1", "-", ""] {
        let path = format!("{ALL}/{}", key.replace(' ', "%20"));
        fails(&app, &path, "{}", 404, "FLAG_NOT_FOUND", Some(key)).await;
    }
    let (status, all) = evaluate(&app, ALL, json!({})).await;
    assert_eq!((status, &all["flags"]), (200, &json!([])));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_t_be_read_is_refused_in_the_protocol_s_own_shape() {
    let app = App::start(Storage::Memory).await;
    deploy_in(&app, "production", 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    let context = |context: Value| json!({"context": context}).to_string();
    let malformed = [
        "{".to_owned(),
        json!([{"targetingKey": "user-1"}]).to_string(),
    ];
    let unusable = [
        context(json!(["user-1"])),
        context(json!({"targetingKey": 7})),
        context(json!({"targetingKey": "x".repeat(1025)})),
        context(json!({"preview": "yes"})),
        context(json!({"environment": "no name"})),
        context(json!({"environment": 7})),
    ];
    let huge = context(json!({"note": "x".repeat(1024 * 1024)}));
    for (path, key) in [(ONE, Some("greeting")), (ALL, None)] {
        for body in &malformed {
            fails(&app, path, body, 400, "PARSE_ERROR", key).await;
        }
        for body in &unusable {
            fails(&app, path, body, 400, "INVALID_CONTEXT", key).await;
        }
        fails(&app, path, &huge, 413, "PARSE_ERROR", key).await;
        let bound = format!("/environments/-{path}");
        fails(&app, &bound, "{}", 400, "INVALID_CONTEXT", key).await;
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn all_flags_come_once_and_again_when_an_event_says_so() {
    let app = App::start(Storage::Memory).await;
    let rollout = begin_rollout(&app).await;
    let context = r#"{"context": {"targetingKey": "user-8", "preview": true}}"#;
    let first = app.rest_with("POST", ALL, &[], context).await;
    let body = first.json();
    assert_eq!(
        (
            first.status,
            &body["flags"][0]["value"],
            body["flags"].as_array().unwrap().len()
        ),
        (200, &json!(2), 1)
    );
    let etag = first.header("etag").to_owned();
    let known = [("if-none-match", etag.as_str())];
    let unchanged = app.rest_with("POST", ALL, &known, context).await;
    assert_eq!(
        (
            unchanged.status,
            unchanged.header("etag"),
            unchanged.body.len()
        ),
        (304, etag.as_str(), 0)
    );
    // Another context is another answer.
    let other = app.rest_with("POST", ALL, &known, "{}").await;
    assert_eq!(
        (other.status, &other.json()["flags"][0]["value"]),
        (200, &json!(1))
    );

    let stream = body["eventStreams"][0]["endpoint"]["requestUri"]
        .as_str()
        .unwrap();
    let mut events = http::events(&app.address, stream).await;
    let at_first = data(&events.next().await);
    assert_eq!(
        at_first,
        json!({"type": "refetchEvaluation", "etag": "2", "lastModified": app.now().timestamp()})
    );
    app.clock.advance(minutes(1));
    roll_back(&app, &rollout).await;
    let event = data(&events.next().await);
    assert_eq!(event["lastModified"], app.now().timestamp());
    let told = format!(
        "{ALL}?flagConfigEtag={}&flagConfigLastModified={}",
        event["etag"].as_str().unwrap(),
        event["lastModified"]
    );
    let changed = app.rest_with("POST", &told, &known, context).await;
    assert_eq!(
        (changed.status, &changed.json()["flags"][0]["value"]),
        (200, &json!(1))
    );
    let by_query = http::events(&app.address, "/ofrep/v1/events?environment=staging").await;
    drop((events, by_query));
    let bad = app
        .rest("GET", "/ofrep/v1/events?environment=-", None)
        .await;
    assert_eq!(bad.json()["errorCode"], "INVALID_CONTEXT");
    app.finish().await;
}

/// A client that one replica has told of a revision may ask another one that has not heard of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_revision_that_was_told_of_is_waited_for_but_not_for_long() {
    let app = App::start(Storage::Memory).await;
    let rollout = begin_rollout(&app).await;
    let preview = r#"{"context": {"preview": true}}"#;
    let ask = async |revision: i64| {
        let path = format!("{ALL}?flagConfigEtag={revision}");
        app.rest_with("POST", &path, &[], preview).await.json()["flags"][0]["value"].clone()
    };
    assert_eq!(ask(2).await, 2);
    assert_eq!(ask(99).await, 2);
    let (told, ()) = tokio::join!(ask(3), roll_back(&app, &rollout));
    assert_eq!(told, 1);
    app.finish().await;
}

fn data(event: &str) -> Value {
    assert!(event.contains("event: message"), "{event}");
    let data = event.lines().find_map(|line| line.strip_prefix("data: "));
    serde_json::from_str(data.unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_moves_nobody() {
    let files = tempfile::tempdir().unwrap();
    let settings = settings(Storage::SqliteFile, files.path()).await;
    let service = Binary::start(&settings);
    for (version, strategy) in [
        (1, "DEPLOYMENT_TYPE_IMMEDIATE"),
        (2, "DEPLOYMENT_TYPE_CANARY"),
    ] {
        let body = deployment("production", version, strategy).to_string();
        let headers = [("content-type", "application/json")];
        let answer = http::send(
            &service.address,
            "POST",
            "/v1/deployments",
            &headers,
            body.into(),
        );
        let answer = answer.await.unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let before = assignments(&service).await;
    assert!(before.values().any(|version| *version == 2));
    service.kill();
    let after = assignments(&Binary::start(&settings)).await;
    assert_eq!(before, after);
}

async fn assignments(service: &Binary) -> BTreeMap<String, i64> {
    let mut versions = BTreeMap::new();
    for number in 0..200 {
        let key = format!("user-{number}");
        let body = json!({"context": {"targetingKey": key}}).to_string();
        let answer = http::send(&service.address, "POST", ONE, &[], body.into()).await;
        versions.insert(key, answer.unwrap().json()["value"].as_i64().unwrap());
    }
    versions
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_of_this_machine_may_ask() {
    let app = App::start(Storage::Memory).await;
    let headers = [
        ("origin", "http://localhost:8080"),
        ("access-control-request-method", "POST"),
        (
            "access-control-request-headers",
            "content-type,if-none-match,x-api-key",
        ),
    ];
    let answer = http::send(&app.address, "OPTIONS", ALL, &headers, "".into())
        .await
        .unwrap();
    let allowed = answer.header("access-control-allow-headers");
    assert!(
        allowed.contains("if-none-match") && allowed.contains("x-api-key"),
        "{answer:?}"
    );
    let answer = http::send(&app.address, "POST", ALL, &headers[..1], "".into())
        .await
        .unwrap();
    assert!(
        answer
            .header("access-control-expose-headers")
            .contains("etag")
    );
    assert_eq!(answer.json()["flags"], json!([]));
    app.finish().await;
}
