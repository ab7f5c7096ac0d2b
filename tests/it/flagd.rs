//! flagd's protocols, by their generated clients. `clients/flagd` has the providers themselves.

use std::time::Duration;

use delos_deploy::{
    server::Stop,
    wire::{
        flagd::pb::{
            evaluation::{v1, v2},
            sync::v1::{
                FetchAllFlagsRequest, GetMetadataRequest, SyncFlagsRequest, SyncFlagsResponse,
                flag_sync_service_client::FlagSyncServiceClient,
            },
        },
        pb::{ResolveVersionRequest, traffic_service_client::TrafficServiceClient},
    },
};
use prost_types::{Struct, Value as Field, value::Kind};
use serde_json::{Value, json};
use tonic::{Code, Request, Status, Streaming, transport::Channel};

use crate::harness::{App, Storage, minutes};

type EvaluationV1 = v1::service_client::ServiceClient<Channel>;
type EvaluationV2 = v2::service_client::ServiceClient<Channel>;

async fn evaluation(app: &App) -> EvaluationV2 {
    EvaluationV2::new(app.channel().await)
}

async fn deploy(app: &App, environment: &str, version: i32, strategy: &str) -> Value {
    app.create(json!({
        "prompt_id": "greeting",
        "environment": environment,
        "to_version": version,
        "strategy": {"type": strategy, "initial_percentage": 10, "increment": 40, "interval_seconds": 60},
        "skip_approval": true,
    }))
    .await
}

/// Version 1 for all, and version 2 for ten percent.
async fn roll_out(app: &App) -> Value {
    deploy(app, "production", 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    deploy(app, "production", 2, "DEPLOYMENT_TYPE_GRADUAL").await
}

async fn roll_back(app: &App, deployment: &Value) {
    let id = deployment["id"].as_str().unwrap();
    let path = format!("/v1/deployments/{id}/rollback");
    assert_eq!(app.rest("POST", &path, None).await.status, 200);
}

fn text(value: &str) -> Kind {
    Kind::StringValue(value.to_owned())
}

fn context<const N: usize>(attributes: [(&str, Kind); N]) -> Option<Struct> {
    let field = |(name, kind): (&str, Kind)| (name.to_owned(), Field { kind: Some(kind) });
    Some(Struct {
        fields: attributes.into_iter().map(field).collect(),
    })
}

fn int(context: Option<Struct>) -> v2::ResolveIntRequest {
    v2::ResolveIntRequest {
        flag_key: "greeting".into(),
        context,
    }
}

fn selecting<T>(message: T, selector: &str) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("flagd-selector", selector.parse().unwrap());
    request
}

async fn next<T>(stream: &mut Streaming<T>) -> Result<T, Status> {
    let message = tokio::time::timeout(Duration::from_secs(20), stream.message());
    message
        .await
        .unwrap()
        .map(|message| message.expect("a stream never just ends"))
}

#[tokio::test(flavor = "multi_thread")]
async fn both_versions_answer_what_resolve_version_answers() {
    let app = App::start(Storage::Memory).await;
    let rollout = roll_out(&app).await;
    let mut ours = TrafficServiceClient::new(app.channel().await);
    let mut current = evaluation(&app).await;
    let mut older = EvaluationV1::new(app.channel().await);
    let mut new_version_to = 0;
    for number in 0..1000 {
        let key = format!("user-{number}");
        let ask = ResolveVersionRequest {
            prompt_id: "greeting".into(),
            environment: "production".into(),
            targeting_key: key.clone(),
            preview: false,
        };
        let expected = ours.resolve_version(ask).await.unwrap().into_inner();
        let context = context([("targetingKey", text(&key))]);
        let answer = current.resolve_int(int(context.clone())).await.unwrap();
        let answer = answer.into_inner();
        assert_eq!(answer.value, Some(expected.version.into()), "{key}");
        assert_eq!(answer.variant, Some(format!("v{}", expected.version)));
        assert_eq!(answer.reason, "SPLIT");
        let metadata = answer.metadata.unwrap().fields;
        assert_eq!(
            metadata["deploymentId"].kind,
            Some(text(&expected.deployment_id))
        );
        let answer = older.resolve_float(v1::ResolveFloatRequest {
            flag_key: "greeting".into(),
            context,
        });
        let answer = answer.await.unwrap().into_inner();
        assert_eq!(answer.value, f64::from(expected.version), "{key}");
        new_version_to += i32::from(expected.version == 2);
    }
    assert!((62..=138).contains(&new_version_to), "{new_version_to}");

    let anonymous = current.resolve_int(int(None)).await.unwrap().into_inner();
    assert_eq!(anonymous.value, Some(1));
    let preview = context([("preview", Kind::BoolValue(true))]);
    let preview = current.resolve_int(int(preview)).await.unwrap();
    assert_eq!(preview.into_inner().value, Some(2));
    roll_back(&app, &rollout).await;
    let answer = current.resolve_int(int(None)).await.unwrap().into_inner();
    assert_eq!((answer.value, answer.reason.as_str()), (Some(1), "STATIC"));
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_as_each_type_and_what_is_no_flag() {
    let app = App::start(Storage::Memory).await;
    roll_out(&app).await;
    let mut client = evaluation(&app).await;
    let flag_key = "greeting".to_owned();
    let answer = client.resolve_string(v2::ResolveStringRequest {
        flag_key: flag_key.clone(),
        context: None,
    });
    assert_eq!(
        answer.await.unwrap().into_inner().value.as_deref(),
        Some("1")
    );
    let answer = client.resolve_object(v2::ResolveObjectRequest {
        flag_key: flag_key.clone(),
        context: None,
    });
    let object = answer.await.unwrap().into_inner().value.unwrap().fields;
    assert_eq!(object["prompt"].kind, Some(text("greeting")));
    assert_eq!(object["version"].kind, Some(Kind::NumberValue(1.0)));
    let wrong_type = client.resolve_boolean(v2::ResolveBooleanRequest {
        flag_key,
        context: None,
    });
    assert_eq!(wrong_type.await.unwrap_err().code(), Code::InvalidArgument);
    for unknown in ["unknown", "no prompt's name", ""] {
        let request = v2::ResolveIntRequest {
            flag_key: unknown.into(),
            context: None,
        };
        let refused = client.resolve_int(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::NotFound, "{unknown}: {refused:?}");
    }
    let bad = context([("targetingKey", Kind::NumberValue(5.0))]);
    let refused = client.resolve_int(int(bad)).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);

    let mut older = EvaluationV1::new(app.channel().await);
    let all = older.resolve_all(v1::ResolveAllRequest::default()).await;
    let all = all.unwrap().into_inner().flags;
    assert_eq!(all.len(), 1);
    assert_eq!(
        all["greeting"].value,
        Some(v1::any_flag::Value::DoubleValue(1.0))
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_environment_is_the_selector_s_or_the_context_s_or_production() {
    let app = App::start(Storage::Memory).await;
    deploy(&app, "production", 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    deploy(&app, "staging", 2, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    let mut client = evaluation(&app).await;
    let named = || int(context([("environment", text("staging"))]));
    let answer = client.resolve_int(named()).await.unwrap().into_inner();
    // Not STATIC: providers would keep it for the requests that name another environment.
    assert_eq!(
        (answer.value, answer.reason.as_str()),
        (Some(2), "TARGETING_MATCH")
    );
    for (selector, value) in [("flagSetId=staging", 2), ("flagSetId=production", 1)] {
        let answer = client.resolve_int(selecting(named(), selector)).await;
        let answer = answer.unwrap().into_inner();
        assert_eq!(
            (answer.value, answer.reason.as_str()),
            (Some(value), "STATIC")
        );
    }
    let refused = client.resolve_int(selecting(int(None), "staging")).await;
    assert_eq!(refused.unwrap_err().code(), Code::InvalidArgument);

    let mut sync = FlagSyncServiceClient::new(app.channel().await);
    let in_body = |selector: &str| FetchAllFlagsRequest {
        selector: selector.into(),
        ..Default::default()
    };
    for (request, variant) in [
        (Request::new(in_body("")), "v1"),
        (Request::new(in_body("flagSetId=staging")), "v2"),
        (
            selecting(in_body("flagSetId=production"), "flagSetId=staging"),
            "v2",
        ),
    ] {
        let flags = sync.fetch_all_flags(request).await.unwrap().into_inner();
        let flags: Value = serde_json::from_str(&flags.flag_configuration).unwrap();
        assert_eq!(flags["flags"]["greeting"]["defaultVariant"], variant);
    }
    let nowhere = sync.fetch_all_flags(in_body("flagSetId=nowhere")).await;
    let nowhere = nowhere.unwrap().into_inner().flag_configuration;
    assert_eq!(nowhere, "{\"flags\":{}}");
    assert!(sync.get_metadata(GetMetadataRequest {}).await.is_ok());
    app.finish().await;
}

async fn configuration(stream: &mut Streaming<SyncFlagsResponse>) -> Value {
    let message = next(stream).await.unwrap();
    serde_json::from_str::<Value>(&message.flag_configuration).unwrap()["flags"]["greeting"].take()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_sent_the_configuration_with_each_change() {
    let app = App::start(Storage::Memory).await;
    let mut sync = FlagSyncServiceClient::new(app.channel().await);
    let stream = sync.sync_flags(SyncFlagsRequest::default()).await;
    let mut stream = stream.unwrap().into_inner();
    assert_eq!(configuration(&mut stream).await, Value::Null);
    deploy(&app, "production", 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    assert_eq!(
        configuration(&mut stream).await["variants"],
        json!({"v1": 1})
    );
    // Of no concern to this stream.
    deploy(&app, "staging", 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    let rollout = deploy(&app, "production", 2, "DEPLOYMENT_TYPE_GRADUAL").await;
    let weights =
        |flag: &Value| flag["targeting"]["if"][1]["fractional"].as_array().unwrap()[1..].to_vec();
    let flag = configuration(&mut stream).await;
    assert_eq!(
        weights(&flag),
        [json!(["v2", 10_000]), json!(["v1", 90_000])]
    );
    let id: uuid::Uuid = rollout["id"].as_str().unwrap().parse().unwrap();
    assert_eq!(flag["metadata"]["deploymentId"], id.to_string());
    let salt = &flag["targeting"]["if"][1]["fractional"][0]["cat"][0];
    assert_eq!(salt, &format!("{id}:"));
    app.advance(minutes(1)).await;
    let flag = configuration(&mut stream).await;
    assert_eq!(
        weights(&flag),
        [json!(["v2", 50_000]), json!(["v1", 50_000])]
    );
    roll_back(&app, &rollout).await;
    let flag = configuration(&mut stream).await;
    assert_eq!(
        (&flag["defaultVariant"], flag.get("targeting")),
        (&json!("v1"), None)
    );

    app.stop(Stop::AtOnce);
    let ended = next(&mut stream).await.unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_of_changes_is_sent_once() {
    let app = App::start(Storage::Memory).await;
    let mut sync = FlagSyncServiceClient::new(app.channel().await);
    let stream = sync.sync_flags(SyncFlagsRequest::default()).await;
    let mut stream = stream.unwrap().into_inner();
    configuration(&mut stream).await;
    for version in 1..=20 {
        deploy(&app, "production", version, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    }
    let mut messages = 0;
    while configuration(&mut stream).await["defaultVariant"] != "v20" {
        messages += 1;
    }
    assert!(messages < 19, "{messages} messages before the last");
    app.stop(Stop::AtOnce);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_provider_is_told_which_flags_have_changed() {
    let app = App::start(Storage::Memory).await;
    deploy(&app, "production", 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    let mut client = evaluation(&app).await;
    let all = client.event_stream(v2::EventStreamRequest {}).await;
    let mut all = all.unwrap().into_inner();
    let staging = selecting(v2::EventStreamRequest {}, "flagSetId=staging");
    let mut staging = client.event_stream(staging).await.unwrap().into_inner();
    for stream in [&mut all, &mut staging] {
        assert_eq!(next(stream).await.unwrap().r#type, "provider_ready");
    }
    let changed = |event: v2::EventStreamResponse| {
        assert_eq!(event.r#type, "configuration_change");
        match &event.data.unwrap().fields["flags"].kind {
            Some(Kind::StructValue(flags)) => flags.fields.keys().cloned().collect::<Vec<_>>(),
            kind => panic!("{kind:?}"),
        }
    };
    // What has changed while it was not listening it must not have kept.
    assert_eq!(changed(next(&mut all).await.unwrap()), ["greeting"]);
    let rollout = deploy(&app, "production", 2, "DEPLOYMENT_TYPE_GRADUAL").await;
    roll_back(&app, &rollout).await;
    deploy(&app, "staging", 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    for _ in 0..3 {
        assert_eq!(changed(next(&mut all).await.unwrap()), ["greeting"]);
    }
    assert_eq!(changed(next(&mut staging).await.unwrap()), ["greeting"]);
    app.stop(Stop::AtOnce);
    for stream in [&mut all, &mut staging] {
        let ended = next(stream).await.unwrap_err();
        assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
    }
}
