//! The edge of REST: what it takes, what it gives, and how it refuses.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use delos_deploy::wire::pb;
use http_body_util::Full;
use prost_reflect::{Kind, MessageDescriptor};
use serde_json::{Value, json};

use crate::harness::{
    App, Storage,
    http::{self, Answer, Version},
    openapi::DOCUMENT,
    rpc::{self, Framing},
};

const JSON: (&str, &str) = ("content-type", "application/json");

fn minimal() -> Value {
    json!({"prompt_id": "greeting", "environment": "production", "to_version": 1})
}

async fn post(app: &App, path: &str, body: Value) -> Answer {
    app.rest("POST", path, Some(body)).await
}

async fn get(app: &App, path: &str) -> Answer {
    app.rest("GET", path, None).await
}

/// Panics where the answer is no problem of this status and reason.
#[track_caller]
fn expect_problem(answer: &Answer, status: u16, reason: &str) -> Value {
    assert_eq!(answer.status, status, "{answer:?}");
    assert_eq!(answer.header("content-type"), "application/problem+json");
    assert_eq!(answer.header("cache-control"), "no-store");
    let problem = answer.json();
    assert_eq!(problem["reason"], reason, "{problem}");
    assert_eq!(problem["status"], status);
    assert_eq!(problem["request_id"], answer.header("x-request-id"));
    let kind = reason.to_lowercase().replace('_', "-");
    assert_eq!(problem["type"], format!("urn:delos:deploy:problem:{kind}"));
    assert!(!problem["title"].as_str().unwrap().is_empty());
    problem
}

/// Panics where the answer does not refuse this field, and this one only.
#[track_caller]
fn expect_bad_field(answer: &Answer, field: &str) -> String {
    let problem = expect_problem(answer, 400, "INVALID_REQUEST");
    let errors = problem["errors"].as_array().unwrap();
    assert_eq!(errors.len(), 1, "{problem}");
    assert_eq!(errors[0]["field"], field, "{problem}");
    errors[0]["detail"].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_created_says_where_it_is() {
    let app = App::start(Storage::Memory).await;
    let created = post(&app, "/v1/deployments", minimal()).await;
    assert_eq!(created.status, 201);
    let id = created.json()["deployment"]["id"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(created.header("location"), format!("/v1/deployments/{id}"));
    let found = get(&app, created.header("location")).await;
    assert_eq!(found.json(), created.json());

    let gate = json!({
        "name": "Prod Gate",
        "prompt_id": "greeting",
        "conditions": [{"type": "custom", "operator": "eq", "threshold": 1}],
    });
    let created = post(&app, "/v1/quality-gates", gate).await;
    assert_eq!(created.status, 201);
    let found = get(&app, created.header("location")).await.json();
    assert_eq!(
        found["quality_gates"],
        json!([created.json()["quality_gate"]])
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_is_read_as_protobuf_reads_json() {
    let app = App::start(Storage::Memory).await;
    let strategy = |strategy: Value| {
        let mut body = minimal();
        body["strategy"] = strategy;
        body
    };
    let same = [
        // The proto's own names, lowerCamelCase, and both.
        strategy(
            json!({"type": "DEPLOYMENT_TYPE_GRADUAL", "initial_percentage": 20, "interval_seconds": 60}),
        ),
        json!({"promptId": "greeting", "environment": "production", "toVersion": 1,
               "strategy": {"type": "DEPLOYMENT_TYPE_GRADUAL", "initialPercentage": 20, "interval_seconds": 60}}),
        // Enums by number, numbers as text.
        strategy(json!({"type": 2, "initial_percentage": "20", "interval_seconds": 60})),
        json!({"prompt_id": "greeting", "environment": "production", "to_version": "1", "strategy":
               {"type": 2, "initial_percentage": "20", "interval_seconds": "60", "rollback_threshold": "0"}}),
        // What is null is not set, wherever it stands.
        json!({"prompt_id": "greeting", "environment": "production", "to_version": 1, "skip_approval": null,
               "metadata": null, "strategy":
               {"type": 2, "initial_percentage": 20, "increment": null, "interval_seconds": 60}}),
    ];
    let mut read = Vec::new();
    for body in same {
        let deployment = app.create(body).await;
        read.push((
            deployment["strategy"].clone(),
            deployment["to_version"].clone(),
        ));
    }
    assert!(read.iter().all(|one| *one == read[0]), "{read:?}");
    assert_eq!(read[0].0["initial_percentage"], 20);
    // A type that is not said is IMMEDIATE, by name, by number, or not at all.
    for unsaid in [
        json!({}),
        json!({"type": 0}),
        json!({"type": "DEPLOYMENT_TYPE_UNSPECIFIED"}),
        Value::Null,
    ] {
        let deployment = app.create(strategy(unsaid)).await;
        assert_eq!(deployment["strategy"]["type"], "DEPLOYMENT_TYPE_IMMEDIATE");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_t_be_read_is_named() {
    let app = App::start(Storage::Memory).await;
    let with = |field: &str, value: Value| {
        let mut body = minimal();
        body[field] = value;
        body
    };
    let cases = [
        (with("surprise", json!(1)), "surprise"),
        (
            with("strategy", json!({"percentage": 5})),
            "strategy.percentage",
        ),
        (with("to_version", json!("one")), "to_version"),
        (with("to_version", json!(1.5)), "to_version"),
        (with("to_version", json!(4_294_967_297_i64)), "to_version"),
        (with("prompt_id", json!(7)), "prompt_id"),
        (with("skip_approval", json!("yes")), "skip_approval"),
        (
            with("strategy", json!({"type": "WATERFALL"})),
            "strategy.type",
        ),
        (with("strategy", json!({"type": 99})), "strategy.type"),
        (with("metadata", json!({"a": 1})), "metadata.a"),
    ];
    for (body, field) in cases {
        let answer = post(&app, "/v1/deployments", body.clone()).await;
        let detail = expect_bad_field(&answer, field);
        assert!(!detail.contains("untagged"), "{detail}");
    }
    let twice = with("toVersion", json!(2));
    let detail = expect_bad_field(&post(&app, "/v1/deployments", twice).await, "body");
    assert!(detail.contains("toVersion"), "{detail}");
    let condition = json!({"type": "custom", "operator": "eq", "treshold": 1});
    let gate = json!({"name": "G", "prompt_id": "greeting", "conditions": [condition]});
    let answer = post(&app, "/v1/quality-gates", gate).await;
    expect_bad_field(&answer, "conditions[0].treshold");
    for not_an_object in [json!([]), json!("text"), json!(1)] {
        let answer = post(&app, "/v1/deployments", not_an_object).await;
        expect_bad_field(&answer, "body");
    }
    let listed = get(&app, "/v1/deployments").await.json();
    assert_eq!(listed["total_count"], 0);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_no_json_is_refused() {
    let app = App::start(Storage::Memory).await;
    let create = async |headers: &[(&str, &str)], body: String| {
        app.rest_with("POST", "/v1/deployments", headers, body)
            .await
    };
    let good = minimal().to_string();
    for malformed in ["{", "{\"prompt_id\": }", "nonsense", "\u{0}", "{}{}"] {
        let answer = create(&[JSON], malformed.into()).await;
        expect_problem(&answer, 400, "MALFORMED_JSON");
    }
    let deep = "[".repeat(100_000);
    expect_problem(&create(&[JSON], deep).await, 400, "MALFORMED_JSON");
    for kind in [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/jsonp",
        "",
    ] {
        let answer = create(&[("content-type", kind)], good.clone()).await;
        expect_problem(&answer, 415, "NOT_JSON");
    }
    expect_problem(&create(&[], good.clone()).await, 415, "NOT_JSON");
    for kind in [
        "application/json; charset=utf-8",
        "Application/JSON",
        "application/merge-patch+json",
    ] {
        let answer = create(&[("content-type", kind)], good.clone()).await;
        assert_eq!(answer.status, 201, "{kind}: {answer:?}");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_over_a_mebibyte_is_refused() {
    const MAX: usize = 1024 * 1024;
    let app = App::start(Storage::Memory).await;
    let padded = |length: usize| {
        let body = minimal().to_string();
        body.clone() + &" ".repeat(length - body.len())
    };
    for (length, status) in [(MAX, 201), (MAX + 1, 413)] {
        let answer = app
            .rest_with("POST", "/v1/deployments", &[JSON], padded(length))
            .await;
        assert_eq!(answer.status, status);
        if status == 413 {
            let problem = expect_problem(&answer, 413, "BODY_TOO_LARGE");
            assert!(problem["detail"].as_str().unwrap().contains("1048576"));
        }
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_verb_needs_no_body_and_no_other_id_than_its_path_s() {
    let app = App::start(Storage::Memory).await;
    let other = app.create(minimal()).await["id"].clone();
    for (headers, body) in [
        (&[][..], String::new()),
        (&[JSON][..], String::new()),
        (&[JSON][..], "{}".into()),
        (&[JSON][..], "null".into()),
        (&[JSON][..], json!({"id": null}).to_string()),
    ] {
        let created = app.create(minimal()).await;
        let path = format!("/v1/deployments/{}/cancel", created["id"].as_str().unwrap());
        let answer = app.rest_with("POST", &path, headers, body.clone()).await;
        assert_eq!(answer.status, 200, "{body}: {answer:?}");
    }
    for verb in ["approve", "rollback", "cancel"] {
        let created = app.create(minimal()).await;
        let id = created["id"].as_str().unwrap();
        let path = format!("/v1/deployments/{id}/{verb}");
        let answer = post(&app, &path, json!({"id": other})).await;
        expect_bad_field(&answer, "id");
        assert_eq!(app.get(id).await, created);
        let answer = post(&app, &path, json!({"id": id})).await;
        let expected = if verb == "rollback" { 409 } else { 200 };
        assert_eq!(answer.status, expected, "{verb}: {answer:?}");
    }
    let path = format!("/v1/deployments/{}/events", other.as_str().unwrap());
    let answer = get(&app, &format!("{path}?deployment_id=another")).await;
    expect_bad_field(&answer, "deployment_id");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_path_or_method_is_a_problem_too() {
    let app = App::start(Storage::Memory).await;
    for path in [
        "/nowhere",
        "/v1",
        "/v1/",
        "/v1/deployments/",
        "/v1/deployments/a/b/c",
        "/v2/deployments",
        "/docs/nothing.js",
    ] {
        let answer = get(&app, path).await;
        if path.starts_with("/docs") {
            assert_eq!(answer.status, 404);
        } else {
            expect_problem(&answer, 404, "NO_SUCH_PATH");
        }
    }
    for (method, path, allowed) in [
        ("DELETE", "/v1/deployments", "GET,HEAD,POST"),
        ("PUT", "/v1/deployments/some-id", "GET,HEAD"),
        ("GET", "/v1/deployments/some-id/approve", "POST"),
        ("POST", "/v1/health", "GET,HEAD"),
        ("POST", "/healthz", "GET,HEAD"),
        ("PATCH", "/v1/quality-gates", "GET,HEAD,POST"),
    ] {
        let answer = app.rest_with(method, path, &[], "").await;
        expect_problem(&answer, 405, "METHOD_NOT_ALLOWED");
        let mut allow: Vec<_> = answer.header("allow").split(',').collect();
        allow.sort_unstable();
        assert_eq!(allow.join(","), allowed, "{method} {path}");
    }
    let answer = get(&app, "/v1/deployments/%FF").await;
    expect_bad_field(&answer, "path");
    let detail = answer.json()["errors"][0]["detail"].clone();
    assert!(detail.as_str().unwrap().contains("`id`"), "{detail}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_grpc_method_is_unimplemented_in_grpc_s_own_words() {
    let app = App::start(Storage::Memory).await;
    for framing in Framing::ALL {
        for path in [
            "/delos.deploy.v1.DeployService/Destroy",
            "/delos.deploy.v9.DeployService/Health",
            "/v1/nothing",
        ] {
            let reply = rpc::call(&app.address, framing, path, &[], &pb::HealthRequest {})
                .await
                .unwrap();
            assert_eq!(reply.http_status, 200, "{framing:?} {path}");
            assert_eq!(
                reply.status.code(),
                tonic::Code::Unimplemented,
                "{framing:?} {path}"
            );
        }
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parameters_are_read_strictly() {
    let app = App::start(Storage::Memory).await;
    for (query, field) in [
        ("colour=red", "colour"),
        ("prompt=greeting", "prompt"),
        ("limit=1&limit=2", "limit"),
        ("prompt_id=a&promptId=a", "promptId"),
        ("limit=ten", "limit"),
        ("limit=1.5", "limit"),
        ("limit=99999999999", "limit"),
        ("status=asleep", "status"),
        ("status=99", "status"),
    ] {
        let answer = get(&app, &format!("/v1/deployments?{query}")).await;
        let detail = expect_bad_field(&answer, field);
        if field == "colour" {
            assert!(detail.contains("prompt_id"), "{detail}");
        }
    }
    expect_bad_field(&get(&app, "/v1/quality-gates").await, "prompt_id");
    let answer = get(&app, "/v1/quality-gates?prompt_id=a&limit=1").await;
    expect_bad_field(&answer, "limit");
    let answer = get(&app, "/v1/events?since=yesterday").await;
    expect_bad_field(&answer, "since");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_status_is_filtered_by_in_any_form() {
    let app = App::start(Storage::Memory).await;
    app.create(minimal()).await;
    let mut shipped = minimal();
    shipped["skip_approval"] = json!(true);
    app.create(shipped).await;
    for (query, count) in [
        ("status=PENDING_APPROVAL", 1),
        ("status=pending_approval", 1),
        ("status=Deployment_Status_Pending_Approval", 1),
        ("status=1", 1),
        ("status=", 2),
        ("status=0", 2),
        ("status=unspecified", 2),
        ("status=completed&promptId=greeting", 1),
        ("prompt_id=&environment=&status=&limit=&offset=", 2),
        ("limit=%31", 1),
        ("status=FAILED", 0),
    ] {
        let answer = get(&app, &format!("/v1/deployments?{query}")).await.json();
        assert_eq!(
            answer["deployments"].as_array().unwrap().len(),
            count,
            "{query}"
        );
    }
    app.finish().await;
}

/// Panics where a field that always has a value is not there, or is not written as it should be.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kinds that no message has are many"
)]
fn expect_complete(message: &MessageDescriptor, value: &Value) {
    let mut fields = value.as_object().unwrap().clone();
    for field in message.fields() {
        let value = fields.remove(field.name());
        let may_be_absent = field.supports_presence();
        let Some(value) = value else {
            assert!(may_be_absent, "{} is left out", field.full_name());
            continue;
        };
        let items = if field.is_list() {
            value.as_array().unwrap().clone()
        } else {
            vec![value]
        };
        for item in items {
            match field.kind() {
                _ if field.is_map() => assert!(item.is_object()),
                Kind::Message(kind) if kind.full_name() == "google.protobuf.Timestamp" => {
                    let text = item.as_str().unwrap();
                    assert!(
                        text.ends_with('Z') && text.parse::<DateTime<Utc>>().is_ok(),
                        "{text}"
                    );
                }
                Kind::Message(kind) => expect_complete(&kind, &item),
                Kind::Enum(kind) => {
                    assert!(kind.get_value_by_name(item.as_str().unwrap()).is_some());
                }
                Kind::Int64 | Kind::String => assert!(item.is_string(), "{}", field.full_name()),
                Kind::Int32 => assert!(item.is_i64(), "{}", field.full_name()),
                Kind::Double => assert!(item.is_f64(), "{}", field.full_name()),
                Kind::Bool => assert!(item.is_boolean(), "{}", field.full_name()),
                other => panic!("no message has a {other:?}"),
            }
        }
    }
    assert!(fields.is_empty(), "not in the contract: {fields:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_field_that_has_a_value_is_written_also_where_it_is_zero() {
    let app = App::start(Storage::Memory).await;
    let gate = json!({
        "name": "Optional",
        "prompt_id": "greeting",
        "conditions": [{"type": "custom", "operator": "eq", "threshold": 0}],
    });
    let gate = post(&app, "/v1/quality-gates", gate).await;
    let gates = get(&app, "/v1/quality-gates?prompt_id=greeting").await;
    let mut body = minimal();
    body["skip_approval"] = json!(true);
    let created = post(&app, "/v1/deployments", body).await;
    let path = created.header("location").to_owned();
    let status = get(&app, &format!("{path}/status")).await;
    let cancelled = app
        .rest("POST", &format!("{path}/cancel"), Some(json!({})))
        .await;
    let mut other = minimal();
    (other["prompt_id"], other["skip_approval"]) = (json!("farewell"), json!(true));
    let shipped = post(&app, "/v1/deployments", other).await;
    let rolled_back = post(
        &app,
        &format!("{}/rollback", shipped.header("location")),
        json!({}),
    )
    .await;
    for (message, answer) in [
        ("CreateQualityGateResponse", gate),
        ("ListQualityGatesResponse", gates),
        ("CreateDeploymentResponse", created),
        ("GetDeploymentStatusResponse", status),
        ("CancelDeploymentResponse", cancelled),
        ("RollbackDeploymentResponse", rolled_back),
        (
            "ListDeploymentsResponse",
            get(&app, "/v1/deployments").await,
        ),
        ("ListEventsResponse", get(&app, "/v1/events").await),
        (
            "ListEventsResponse",
            get(&app, &format!("{path}/events")).await,
        ),
        ("HealthResponse", get(&app, "/v1/health").await),
    ] {
        let message = pb::descriptors().get_message_by_name(&format!("delos.deploy.v1.{message}"));
        expect_complete(&message.unwrap(), &answer.json());
    }
    let events = get(&app, &format!("{path}/events")).await.json();
    assert_eq!(events["events"][0]["sequence"], "1");
    let empty = get(&app, "/v1/deployments?prompt_id=nobody").await.json();
    assert_eq!(empty, json!({"deployments": [], "total_count": 0}));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_has_an_id_the_caller_s_where_it_is_a_good_one() {
    let app = App::start(Storage::Memory).await;
    for path in ["/v1/health", "/healthz", "/nowhere", "/openapi.json"] {
        let with = async |id: &str| {
            let headers = [("x-request-id", id)];
            let answer = app.rest_with("GET", path, &headers, "").await;
            answer.header("x-request-id").to_owned()
        };
        assert_eq!(with("ci-42/7").await, "ci-42/7");
        for bad in ["", "two words", "say \"hello\"", &"x".repeat(129)] {
            let id = with(bad).await;
            assert!(uuid::Uuid::try_parse(&id).is_ok(), "{path} {bad}: {id}");
        }
        let answer = get(&app, path).await;
        assert!(uuid::Uuid::try_parse(answer.header("x-request-id")).is_ok());
        assert_eq!(answer.header("x-content-type-options"), "nosniff");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_documentation_is_served_whole_by_the_service_itself() {
    let app = App::start(Storage::Memory).await;
    let answer = get(&app, "/").await;
    assert_eq!(
        (answer.status, answer.header("location")),
        (303, "/docs/"),
        "{answer:?}"
    );
    let page = get(&app, "/docs/").await;
    assert_eq!(page.status, 200);
    assert!(page.header("content-type").starts_with("text/html"));
    let mut assets = 0;
    for attribute in page.text().split(['<', ' ', '\n']) {
        let value = attribute
            .strip_prefix("src=\"")
            .or_else(|| attribute.strip_prefix("href=\""));
        let Some(asset) = value.and_then(|value| value.split('"').next()) else {
            continue;
        };
        assert!(!asset.contains("//"), "{asset} is somebody else's");
        let answer = get(&app, &format!("/docs/{}", asset.trim_start_matches("./"))).await;
        assert_eq!(answer.status, 200, "{asset}");
        assert!(!answer.body.is_empty(), "{asset}");
        assets += 1;
    }
    assert!(assets >= 4, "{}", page.text());
    let start = get(&app, "/docs/swagger-initializer.js").await;
    assert!(start.text().contains("/openapi.json"), "{}", start.text());

    let document = get(&app, "/openapi.json").await;
    assert_eq!(document.header("content-type"), "application/json");
    assert_eq!(document.json(), *DOCUMENT);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn operators_see_that_it_lives_that_it_is_ready_and_what_it_does() {
    let app = App::start_with(Storage::Memory, &[("DELOS_VERSION", "1.2.3-test")]).await;
    let alive = get(&app, "/healthz").await;
    assert_eq!(
        (alive.status, alive.json()),
        (200, json!({"status": "alive"}))
    );
    let ready = get(&app, "/readyz").await;
    assert_eq!(
        (ready.status, ready.json()),
        (200, json!({"status": "ready"}))
    );
    let health = get(&app, "/v1/health").await.json();
    assert_eq!(
        health,
        json!({"status": "healthy", "version": "1.2.3-test"})
    );

    let created = app.create(minimal()).await;
    let id = created["id"].as_str().unwrap();
    let rollback = format!("/v1/deployments/{id}/rollback");
    assert_eq!(post(&app, &rollback, json!({})).await.status, 409);
    get(&app, "/some/secret/path").await;
    for framing in [Framing::Grpc, Framing::Web] {
        let path = "/delos.deploy.v1.DeployService/Health";
        rpc::call(&app.address, framing, path, &[], &pb::HealthRequest {})
            .await
            .unwrap();
    }
    let metrics = get(&app, "/metrics").await;
    assert_eq!(metrics.status, 200);
    assert!(
        metrics
            .header("content-type")
            .starts_with("text/plain; version=0.0.4")
    );
    let text = metrics.text();
    for line in [
        r#"deploy_requests_total{code="201",method="POST /v1/deployments",protocol="http"} 1"#,
        r#"deploy_requests_total{code="409",method="POST /v1/deployments/{id}/rollback",protocol="http"} 1"#,
        r#"deploy_requests_total{code="404",method="_OTHER",protocol="http"} 1"#,
        r#"deploy_requests_total{code="OK",method="delos.deploy.v1.DeployService/Health",protocol="grpc"} 1"#,
        r#"deploy_requests_total{code="OK",method="delos.deploy.v1.DeployService/Health",protocol="grpc-web"} 1"#,
        r#"deploy_refusals_total{reason="DEPLOYMENT_NOT_ROLLBACKABLE"} 1"#,
        r#"deploy_build_info{version="1.2.3-test"} 1"#,
    ] {
        assert!(text.lines().any(|found| found == line), "{line}\n{text}");
    }
    for name in [
        "deploy_request_duration_seconds_bucket",
        "deploy_transitions_total",
        "deploy_pool_connections",
    ] {
        assert!(text.contains(name), "{name}");
    }
    assert!(!text.contains(id) && !text.contains("secret"), "{text}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_is_served_over_http_2_as_well() {
    let app = App::start(Storage::Memory).await;
    let body = Full::new(Bytes::from(minimal().to_string()));
    let path = "/v1/deployments";
    let created = http::exchange(Version::Http2, &app.address, "POST", path, &[JSON], body)
        .await
        .unwrap();
    assert_eq!(created.status, 201, "{created:?}");
    let found = get(&app, created.header("location")).await;
    assert_eq!(found.json(), created.json());
    let gone = format!("{path}/nothing");
    let empty = Full::new(Bytes::new());
    let refused = http::exchange(Version::Http2, &app.address, "GET", &gone, &[], empty)
        .await
        .unwrap();
    expect_problem(&refused, 404, "NOT_FOUND");
    app.finish().await;
}

/// A field whose enum can't be read does not hide the others.
#[tokio::test(flavor = "multi_thread")]
async fn every_bad_field_is_named_also_a_number_that_no_enum_has() {
    let app = App::start(Storage::Memory).await;
    let body = serde_json::json!({"to_version": 0, "strategy": {"type": 99, "increment": 101}});
    let answer = app.rest("POST", "/v1/deployments", Some(body)).await;
    assert_eq!(answer.status, 400);
    let mut deploy = app.deploy().await;
    let request = delos_deploy::wire::pb::CreateDeploymentRequest {
        strategy: Some(delos_deploy::wire::pb::DeploymentStrategy {
            r#type: 99,
            increment: 101,
            ..Default::default()
        }),
        ..Default::default()
    };
    let refused = deploy.create_deployment(request).await.unwrap_err();
    for field in [
        "prompt_id",
        "environment",
        "to_version",
        "strategy.type",
        "strategy.increment",
    ] {
        assert!(
            refused.message().contains(field),
            "{field}: {}",
            refused.message()
        );
    }
    app.finish().await;
}

/// A browser sends a POST without a body for a page of any origin, without asking first.
#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_page_can_t_send_a_verb() {
    let app = App::start(Storage::Memory).await;
    let created = app
        .create(serde_json::json!({"prompt_id": "p", "environment": "e", "to_version": 1}))
        .await;
    let path = format!("/v1/deployments/{}/cancel", created["id"].as_str().unwrap());
    let send = async |origin: &str| {
        let headers = [("origin", origin)];
        crate::harness::http::send(&app.address, "POST", &path, &headers, bytes::Bytes::new())
            .await
            .unwrap()
    };
    for foreign in [
        "https://evil.example",
        "null",
        "http://localhost.evil.example",
    ] {
        let refused = send(foreign).await;
        assert_eq!(
            (refused.status, &refused.json()["reason"]),
            (403, &"ORIGIN_NOT_ALLOWED".into())
        );
    }
    assert_eq!(
        app.get(created["id"].as_str().unwrap()).await["status"],
        "DEPLOYMENT_STATUS_PENDING_APPROVAL"
    );
    // The service's own pages, and in development those of this machine, may.
    assert_eq!(send(&format!("http://{}", app.address)).await.status, 200);
    assert_eq!(send("http://localhost:3000").await.status, 409);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_parameter_that_a_call_does_not_take_is_named_also_behind_an_id() {
    let app = App::start(Storage::Memory).await;
    let body = serde_json::json!({"prompt_id": "p", "environment": "e", "to_version": 1});
    let created = app.create(body).await;
    let path = format!("/v1/deployments/{}", created["id"].as_str().unwrap());
    for path in [
        format!("{path}?verbose=1"),
        format!("{path}/status?verbose=1"),
    ] {
        let refused = app.rest("GET", &path, None).await;
        assert_eq!(
            (refused.status, &refused.json()["errors"][0]["field"]),
            (400, &"verbose".into())
        );
    }
    app.finish().await;
}
