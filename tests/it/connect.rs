//! flagd's evaluation over the Connect protocol, as it is on the wire.

use std::time::Duration;

use delos_deploy::{server::Stop, wire::flagd::pb::evaluation::v2};
use prost_reflect::prost::Message as _;
use serde_json::{Value, json};

use crate::harness::{App, Storage, http};

/// Calls over the Connect protocol.
async fn connect(app: &App, path: &str, content_type: &str, body: &[u8]) -> http::Answer {
    let headers = [("content-type", content_type)];
    let path = format!("/flagd.evaluation.{path}");
    let body = bytes::Bytes::copy_from_slice(body);
    let answer = http::send(&app.address, "POST", &path, &headers, body);
    answer.await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn evaluation_over_connect() {
    let app = App::start(Storage::Memory).await;
    let body = json!({
        "prompt_id": "greeting",
        "environment": "production",
        "to_version": 1,
        "skip_approval": true,
    });
    app.create(body).await;
    let json = "application/json";
    let body = br#"{"flagKey": "greeting", "context": {"targetingKey": "user-1"}}"#;
    let answer = connect(&app, "v2.Service/ResolveFloat", json, body).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, json));
    let said = answer.json();
    assert_eq!(
        (&said["value"], &said["variant"]),
        (&json!(1.0), &json!("v1"))
    );
    assert_eq!(said["metadata"]["arm"], "stable");

    let proto = "application/proto";
    let body = v2::ResolveIntRequest {
        flag_key: "greeting".into(),
        context: None,
    }
    .encode_to_vec();
    let answer = connect(&app, "v2.Service/ResolveInt", proto, &body).await;
    assert_eq!((answer.status, answer.header("content-type")), (200, proto));
    let said = v2::ResolveIntResponse::decode(answer.body).unwrap();
    assert_eq!((said.value, said.reason.as_str()), (Some(1), "STATIC"));
    let answer = connect(&app, "v1.Service/ResolveAll", json, b"{}").await;
    assert_eq!(
        answer.json()["flags"]["greeting"]["doubleValue"],
        json!(1.0)
    );

    for (call, body, status, code) in [
        ("ResolveInt", r#"{"flagKey": "unknown"}"#, 404, "not_found"),
        (
            "ResolveBoolean",
            r#"{"flagKey": "greeting"}"#,
            400,
            "invalid_argument",
        ),
        ("ResolveInt", "[", 400, "invalid_argument"),
        ("ResolveNothing", "{}", 501, "unimplemented"),
        ("EventStream", "{}", 501, "unimplemented"),
    ] {
        let path = format!("v2.Service/{call}");
        let answer = connect(&app, &path, json, body.as_bytes()).await;
        assert_eq!(
            (answer.status, answer.header("content-type")),
            (status, json)
        );
        assert_eq!(answer.json()["code"], code, "{call}");
    }
    let answer = connect(&app, "v2.Service/ResolveInt", proto, b"\xff").await;
    assert_eq!(answer.header("content-type"), json, "{answer:?}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn events_over_connect_end_with_unavailable() {
    let app = App::start(Storage::Memory).await;
    let streaming = "application/connect+json";
    let body = b"\0\0\0\0\x02{}";
    let answer = connect(&app, "v1.Service/EventStream", streaming, body);
    let stop = async {
        while app.service.traffic().watcher_count() == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        app.stop(Stop::AtOnce);
    };
    let (answer, ()) = tokio::join!(answer, stop);
    assert_eq!(
        (answer.status, answer.header("content-type")),
        (200, streaming)
    );
    let mut rest = &answer.body[..];
    let mut frames = Vec::new();
    while let Some((header, behind)) = rest.split_first_chunk::<5>() {
        let length = u32::from_be_bytes(header[1..].try_into().unwrap()) as usize;
        let message: Value = serde_json::from_slice(&behind[..length]).unwrap();
        frames.push((header[0], message));
        rest = &behind[length..];
    }
    assert_eq!(frames[0], (0, json!({"type": "provider_ready"})));
    let (flag, end) = frames.last().unwrap();
    assert_eq!((*flag, &end["error"]["code"]), (2, &json!("unavailable")));
}
