//! Conditions that are decided outside, by whoever is asked with a signed question.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use standardwebhooks::Webhook;

use crate::harness::{
    App, Storage,
    binary::Binary,
    eval::{Eval, run_of},
    http, on_every_storage, on_lasting_storage, settings, until,
    webhook::{Receiver, Reply, SECRET},
};

fn condition(url: &str) -> Value {
    json!({"type": "custom", "operator": "gte", "threshold": 0.9, "url": url})
}

fn gate(conditions: &[Value]) -> Value {
    json!({"name": "Tone", "prompt_id": "greeting", "conditions": conditions, "required": true})
}

fn deployment() -> Value {
    json!({"prompt_id": "greeting", "environment": "production", "to_version": 2, "skip_approval": true})
}

fn status(deployment: &Value) -> &str {
    let status = deployment["status"].as_str().unwrap();
    status.strip_prefix("DEPLOYMENT_STATUS_").unwrap()
}

fn message(deployment: &Value) -> &str {
    deployment["gate_results"][0]["message"].as_str().unwrap()
}

/// A service that may ask the stand-in, with a gate of these conditions.
async fn gated(storage: Storage, receiver: &Receiver, conditions: &[Value]) -> App {
    let allowed = receiver.allowed();
    let variables = [
        ("DELOS_WEBHOOK_SECRET", SECRET),
        ("DELOS_WEBHOOK_ALLOW", &allowed),
    ];
    let app = App::start_with(storage, &variables).await;
    let answer = app
        .rest("POST", "/v1/quality-gates", Some(gate(conditions)))
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    app
}

/// Creates a deployment, lets its gates be looked after, and returns it.
async fn judged(app: &App) -> Value {
    let created = app.create(deployment()).await;
    assert_eq!(status(&created), "PENDING_GATES");
    app.tick().await;
    app.get(created["id"].as_str().unwrap()).await
}

async fn report(app: &App, deployment: &Value, body: Value) -> http::Answer {
    let id = deployment["id"].as_str().unwrap();
    let gate = deployment["gate_results"][0]["gate_id"].as_str().unwrap();
    let path = format!("/v1/deployments/{id}/gates/{gate}/conditions/0");
    app.rest("POST", &path, Some(body)).await
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_decides_and_says_where_it_comes_from() {
    for (reply, passes, actual, said) in [
        (r#"{"value": 0.93}"#, true, 0.93, "answered 0.93"),
        (
            r#"{"value": 0.9, "message": "fine\u0000\n"}"#,
            true,
            0.9,
            "answered 0.9: fine)",
        ),
        (
            r#"{"value": 0.89}"#,
            false,
            0.89,
            "is 0.89, must be gte 0.9",
        ),
        (r#"{"passed": true}"#, true, 0.0, "answered that it passed"),
        (
            r#"{"passed": false, "message": "rude"}"#,
            false,
            0.0,
            "answered that it failed: rude",
        ),
    ] {
        let receiver = Receiver::start(&[Reply::body(200, reply)]).await;
        let url = receiver.url("/score?token=hunter2");
        let app = gated(Storage::Memory, &receiver, &[condition(&url)]).await;
        let gates = app
            .rest("GET", "/v1/quality-gates?prompt_id=greeting", None)
            .await;
        assert_eq!(
            gates.json()["quality_gates"][0]["conditions"][0]["url"],
            url
        );
        let done = judged(&app).await;
        let expected = if passes { "COMPLETED" } else { "GATES_FAILED" };
        assert_eq!(status(&done), expected, "{done}");
        let result = &done["gate_results"][0]["condition_results"][0];
        assert_eq!(
            (&result["actual"], &result["passed"]),
            (&json!(actual), &json!(passes))
        );
        assert!(message(&done).contains(said), "{said}: {done}");
        let source = format!("webhook http://{} answered", receiver.address);
        let path = format!("/v1/deployments/{}/events", done["id"].as_str().unwrap());
        let events = app.rest("GET", &path, None).await;
        let measured = events.json()["events"]
            .as_array()
            .unwrap()
            .iter()
            .any(|event| {
                event["action"] == "measure" && event["reason"].as_str().unwrap().contains(&source)
            });
        assert!(measured, "{events:?}");
        // The query may hold what is secret.
        assert!(!done.to_string().contains("hunter2") && !events.text().contains("hunter2"));
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_question_is_a_signed_cloud_event_and_bears_nothing_else() {
    let receiver = Receiver::start(&[Reply::body(202, "")]).await;
    let app = gated(
        Storage::Memory,
        &receiver,
        &[condition(&receiver.url("/a/b?c=d"))],
    )
    .await;
    let waiting = judged(&app).await;
    let call = receiver.calls().remove(0);
    assert_eq!(
        (call.method.as_str(), call.target.as_str()),
        ("POST", "/a/b?c=d")
    );
    let mut names: Vec<_> = call.headers.keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(
        names,
        [
            "accept",
            "content-length",
            "content-type",
            "host",
            "user-agent",
            "webhook-id",
            "webhook-signature",
            "webhook-timestamp"
        ]
    );
    assert_eq!(call.header("host"), receiver.address.to_string());
    assert_eq!(
        call.header("webhook-timestamp"),
        app.now().timestamp().to_string()
    );
    let verifier = Webhook::new(SECRET).unwrap();
    // By the clock that stands still it is long ago, which the verifier would refuse.
    let signed = verifier.sign(call.header("webhook-id"), app.now().timestamp(), &call.body);
    assert_eq!(call.header("webhook-signature"), signed.unwrap());
    let event = call.json();
    let (id, gate_id) = (&waiting["id"], &waiting["gate_results"][0]["gate_id"]);
    assert_eq!(event["specversion"], "1.0");
    assert_eq!(event["type"], "delos.deploy.gate_condition.asked.v1");
    assert_eq!(event["id"], call.header("webhook-id"));
    assert!(!call.header("webhook-id").contains('.'));
    let path = event["data"]["report_path"].as_str().unwrap().to_owned();
    assert_eq!(
        event["data"],
        json!({
            "deployment_id": id,
            "prompt_id": "greeting",
            "environment": "production",
            "from_version": 0,
            "to_version": 2,
            "gate_id": gate_id,
            "gate_name": "Tone",
            "condition_index": 0,
            "operator": "gte",
            "threshold": 0.9,
            "deadline": "2026-01-01T01:00:00Z",
            "report_path": path,
        })
    );
    let reported = app.rest("POST", &path, Some(json!({"actual": 0.95}))).await;
    assert_eq!(
        status(&reported.json()["deployment"]),
        "COMPLETED",
        "{reported:?}"
    );
    app.finish().await;
}

on_every_storage! {
    async fn who_takes_it_on_is_not_asked_again_and_reports(app: &App) {
        // This service is started before it is known whom to ask.
        let storage = match app.settings().get("DELOS_STORAGE_BACKEND").map(String::as_str) {
            Some("postgres") => Storage::Postgres,
            Some("sqlite") => Storage::SqliteFile,
            _ => Storage::Memory,
        };
        for (reply, said) in [
            (Reply::body(202, ""), "has taken it on"),
            (Reply::body(200, "{}"), "has taken it on"),
            (Reply::body(410, ""), "answers 410 and is not asked again"),
        ] {
            let receiver = Receiver::start(&[reply]).await;
            let app = gated(storage, &receiver, &[condition(&receiver.url("/"))]).await;
            let waiting = judged(&app).await;
            assert_eq!(status(&waiting), "PENDING_GATES");
            assert!(message(&waiting).contains(said), "{waiting}");
            for _ in 0..20 {
                app.advance(Duration::from_secs(60)).await;
            }
            assert_eq!(receiver.calls().len(), 1);
            let reported = report(&app, &waiting, json!({"passed": true, "message": "read it"})).await;
            let done = &reported.json()["deployment"];
            assert_eq!(status(done), "COMPLETED");
            assert!(message(done).contains("read it"), "{done}");
            app.finish().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_nothing_that_counts_is_asked_again_until_the_deadline() {
    let elsewhere = Receiver::start(&[Reply::body(200, r#"{"value": 1}"#)]).await;
    for (reply, said) in [
        (Reply::body(500, r#"{"value": 1}"#), "answers 500"),
        (Reply::body(403, ""), "answers 403"),
        (
            Reply::header(302, "location", &elsewhere.url("/")),
            "redirects are not followed",
        ),
        (
            Reply::header(307, "location", "http://169.254.169.254/"),
            "redirects are not followed",
        ),
        (Reply::body(200, r#"{"value": NaN}"#), "can't be read"),
        (Reply::body(200, &" ".repeat(1 << 20)), "more than is read"),
        (Reply::body(200, r#"{"score": 1}"#), "without `value`"),
    ] {
        let receiver = Receiver::start(&[reply]).await;
        let app = gated(Storage::Memory, &receiver, &[condition(&receiver.url("/"))]).await;
        let waiting = judged(&app).await;
        assert_eq!(status(&waiting), "PENDING_GATES");
        assert!(message(&waiting).contains(said), "{said}: {waiting}");
        for _ in 0..10 {
            app.advance(Duration::from_secs(30)).await;
        }
        let calls = receiver.calls();
        assert!((5..=11).contains(&calls.len()), "{} calls", calls.len());
        let ids = calls.iter().map(|call| call.header("webhook-id"));
        assert!(ids.clone().all(|id| id == calls[0].header("webhook-id")));
        assert!(calls.iter().all(|call| call.body == calls[0].body));
        app.advance(Duration::from_secs(3600)).await;
        let failed = app.get(waiting["id"].as_str().unwrap()).await;
        assert_eq!(status(&failed), "GATES_FAILED");
        let why = failed["status_message"].as_str().unwrap();
        assert!(
            why.contains("not measured before the deadline") && why.contains(said),
            "{why}"
        );
        app.finish().await;
    }
    assert!(elsewhere.calls().is_empty(), "a redirect was followed");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_down_is_asked_again_and_one_that_asks_for_rest_has_it() {
    let rest = Reply::header(503, "retry-after", "120");
    let receiver = Receiver::start(&[rest, Reply::body(200, r#"{"value": 1}"#)]).await;
    let address = receiver.address.to_string();
    let app = gated(Storage::Memory, &receiver, &[condition(&receiver.url("/"))]).await;
    let waiting = judged(&app).await;
    let id = waiting["id"].as_str().unwrap();
    assert!(message(&waiting).contains("asking for 120 s"), "{waiting}");
    for _ in 0..119 {
        app.advance(Duration::from_secs(1)).await;
    }
    assert_eq!(receiver.calls().len(), 1);
    app.advance(Duration::from_secs(2)).await;
    assert_eq!(receiver.calls().len(), 2);
    assert_eq!(status(&app.get(id).await), "COMPLETED");

    drop(receiver);
    let waiting = judged(&app).await;
    let id = waiting["id"].as_str().unwrap();
    assert_eq!(status(&waiting), "PENDING_GATES");
    assert!(message(&waiting).contains("can't be reached"), "{waiting}");
    let receiver = Receiver::start_at(&address, &[Reply::body(200, r#"{"value": 1}"#)]).await;
    app.advance(Duration::from_secs(30)).await;
    assert_eq!(status(&app.get(id).await), "COMPLETED");
    assert_eq!(receiver.calls().len(), 1);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_is_refused_whose_webhook_could_not_be_called() {
    let refused = async |app: &App, conditions: &[Value]| {
        let answer = app
            .rest("POST", "/v1/quality-gates", Some(gate(conditions)))
            .await;
        assert_eq!(answer.status, 400, "{answer:?}");
        let errors = answer.json()["errors"].as_array().unwrap().clone();
        assert_eq!(errors.len(), 1, "{errors:?}");
        let text = |name: &str| errors[0][name].as_str().unwrap().to_owned();
        (text("field"), text("detail"))
    };
    let public = condition("https://example.com/score");
    let app = App::start(Storage::Memory).await;
    let (field, why) = refused(&app, std::slice::from_ref(&public)).await;
    assert_eq!(field, "conditions[0].url");
    assert!(why.contains("DELOS_WEBHOOK_SECRET"), "{why}");
    app.finish().await;

    let app = App::start_with(Storage::Memory, &[("DELOS_WEBHOOK_SECRET", SECRET)]).await;
    for (url, said) in [
        ("http://example.com/", "must begin with https://"),
        ("https://localhost/", "a name of this machine"),
        ("https://169.254.169.254/", "link-local"),
        ("https://10.0.0.1/", "private"),
        ("https://example.com:9005/", "must have 443"),
        ("https://me:hunter2@example.com/", "a user or a password"),
        ("https://0x7f.1/", "normal form; that is https://127.0.0.1/"),
    ] {
        let (field, why) = refused(&app, &[public.clone(), condition(url)]).await;
        assert_eq!(field, "conditions[1].url");
        assert!(
            why.contains(said) && !why.contains("hunter2"),
            "{url}: {why}"
        );
    }
    let mut score = condition("https://example.com/");
    score["type"] = json!("eval_score");
    score["dataset_id"] = json!("golden-set");
    let (field, why) = refused(&app, &[score]).await;
    assert!(
        field == "conditions[0].url" && why.contains("only for custom"),
        "{why}"
    );
    let answer = app
        .rest("POST", "/v1/quality-gates", Some(gate(&[public])))
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_every_call_and_answers_none_keeps_no_other_evidence() {
    let mute = Receiver::start(&[Reply::Mute]).await;
    let eval = Eval::start().await;
    eval.put(run_of("run-1", "greeting", 2, 0.95));
    let quick = Receiver::start(&[Reply::body(200, r#"{"value": 1}"#)]).await;
    let variables = [
        ("DELOS_WEBHOOK_SECRET", SECRET.to_owned()),
        (
            "DELOS_WEBHOOK_ALLOW",
            format!("{}, {}", mute.allowed(), quick.allowed()),
        ),
        ("DELOS_EVAL_ENDPOINT", eval.address.to_string()),
    ];
    let variables = variables
        .each_ref()
        .map(|(name, value)| (*name, value.as_str()));
    let app = App::start_with(Storage::Memory, &variables).await;
    let conditions = [
        condition(&mute.url("/")),
        condition(&quick.url("/")),
        json!({"type": "eval_score", "operator": "gte", "threshold": 0.9, "eval_run_id": "run-1"}),
    ];
    let answer = app
        .rest("POST", "/v1/quality-gates", Some(gate(&conditions)))
        .await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let waiting = judged(&app).await;
    let results = waiting["gate_results"][0]["condition_results"].clone();
    let passed: Vec<_> = (0..3)
        .map(|index| results[index]["passed"].clone())
        .collect();
    assert_eq!(passed, [false, true, true], "{waiting}");
    assert!(
        message(&waiting).contains("takes longer than 5 s"),
        "{waiting}"
    );
    // While it is asked, others may say it.
    let done = report(&app, &waiting, json!({"actual": 1})).await;
    assert_eq!(status(&done.json()["deployment"]), "COMPLETED");
    app.finish().await;
}

/// A service of its own process.
async fn start(
    storage: Storage,
    files: &std::path::Path,
    variables: &[(&str, &str)],
) -> (Binary, BTreeMap<String, String>) {
    let mut settings = settings(storage, files).await;
    for (name, value) in variables {
        settings.insert((*name).into(), (*value).into());
    }
    let service = Binary::start(&settings);
    service.wait_until_ready().await;
    (service, settings)
}

/// Kills the service while it waits for the answer, and again once the webhook has taken it on.
async fn a_question_survives_a_kill(storage: Storage) {
    let receiver = Receiver::start(&[Reply::Mute]).await;
    let files = tempfile::tempdir().unwrap();
    let allowed = receiver.allowed();
    let variables = [
        ("DELOS_WEBHOOK_SECRET", SECRET),
        ("DELOS_WEBHOOK_ALLOW", allowed.as_str()),
    ];
    let (service, settings) = start(storage, files.path(), &variables).await;
    service
        .post("/v1/quality-gates", gate(&[condition(&receiver.url("/"))]))
        .await;
    let created = service.post("/v1/deployments", deployment()).await;
    let id = created["deployment"]["id"].as_str().unwrap().to_owned();
    until("it is never asked", async || !receiver.calls().is_empty()).await;
    service.kill();
    receiver.reply(&[Reply::body(202, "")]);
    let service = Binary::start(&settings);
    service.wait_until_ready().await;
    let taken_on = |it: &Value| message(it).contains("has taken it on");
    service.deployment_becomes(&id, taken_on).await;
    service.kill();
    let service = Binary::start(&settings);
    service.wait_until_ready().await;
    // Long enough for a further call, which would come within the first second.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let calls = receiver.calls();
    assert_eq!(
        calls.len(),
        2,
        "the one that was cut off, and the one that was taken on"
    );
    let verifier = Webhook::new(SECRET).unwrap();
    for call in &calls {
        verifier.verify(&call.body, &call.headers).unwrap();
        assert_eq!(call.header("webhook-id"), calls[0].header("webhook-id"));
    }
    let path = calls[1].json()["data"]["report_path"]
        .as_str()
        .unwrap()
        .to_owned();
    let done = service.post(&path, json!({"actual": 0.95})).await;
    assert_eq!(status(&done["deployment"]), "COMPLETED");
}

on_lasting_storage!(
    a_question_survives_a_kill_and_who_has_taken_it_on_is_not_asked_again,
    a_question_survives_a_kill
);

#[tokio::test(flavor = "multi_thread")]
async fn what_the_operator_lists_no_more_is_not_called_any_more() {
    let receiver = Receiver::start(&[Reply::body(200, r#"{"value": 1}"#)]).await;
    let files = tempfile::tempdir().unwrap();
    let allowed = receiver.allowed();
    let mut variables = vec![
        ("DELOS_WEBHOOK_SECRET", SECRET),
        ("DELOS_WEBHOOK_ALLOW", allowed.as_str()),
    ];
    let (service, _) = start(Storage::SqliteFile, files.path(), &variables).await;
    service
        .post("/v1/quality-gates", gate(&[condition(&receiver.url("/"))]))
        .await;
    service.kill();
    // Another listed range does not reach it.
    for (allow, said) in [
        ("10.0.0.0/8", "may not be called"),
        ("", "may not be called"),
    ] {
        variables[1].1 = allow;
        let (service, _) = start(Storage::SqliteFile, files.path(), &variables).await;
        let created = service.post("/v1/deployments", deployment()).await;
        let id = created["deployment"]["id"].as_str().unwrap();
        service
            .deployment_becomes(id, |it| message(it).contains(said))
            .await;
        service.kill();
    }
    assert!(receiver.calls().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_is_trusted_by_who_signed_it() {
    let receiver = Receiver::start_encrypted(&[Reply::body(200, r#"{"value": 1}"#)]).await;
    let port = receiver.address.port();
    let url = format!("https://localhost:{port}/");
    let allowed = format!("localhost:{port}");
    let root = std::env::var("DELOS_TEST_POSTGRES_ROOTCERT").unwrap();
    for (root, expected, said) in [
        ("", "PENDING_GATES", "a certificate that is not trusted"),
        (root.as_str(), "COMPLETED", "answered 1"),
    ] {
        let variables = [
            ("DELOS_WEBHOOK_SECRET", SECRET),
            ("DELOS_WEBHOOK_ALLOW", allowed.as_str()),
            ("DELOS_WEBHOOK_SSLROOTCERT", root),
        ];
        let app = App::start_with(Storage::Memory, &variables).await;
        let answer = app
            .rest("POST", "/v1/quality-gates", Some(gate(&[condition(&url)])))
            .await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let judged = judged(&app).await;
        assert_eq!(status(&judged), expected, "{judged}");
        assert!(message(&judged).contains(said), "{judged}");
        app.finish().await;
    }
    assert_eq!(receiver.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn rollouts_go_on_while_a_webhook_takes_every_call_and_answers_none() {
    let receiver = Receiver::start(&[Reply::Mute]).await;
    let files = tempfile::tempdir().unwrap();
    let allowed = receiver.allowed();
    let variables = [
        ("DELOS_WEBHOOK_SECRET", SECRET),
        ("DELOS_WEBHOOK_ALLOW", allowed.as_str()),
    ];
    let (service, _) = start(Storage::Memory, files.path(), &variables).await;
    service
        .post("/v1/quality-gates", gate(&[condition(&receiver.url("/"))]))
        .await;
    for number in 0..100 {
        let mut body = deployment();
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
    let done = service
        .deployment_becomes(id, |it| status(it) == "COMPLETED")
        .await;
    let at = |name: &str| {
        let text = done[name].as_str().unwrap();
        text.parse::<chrono::DateTime<chrono::Utc>>().unwrap()
    };
    // Three steps of a second, and not one that waits for an answer (five seconds).
    let took = at("completed_at") - at("started_at");
    assert!(took < chrono::TimeDelta::seconds(8), "{took}");
}
