//! Which version is served to whom: resolved from memory, watched, on one replica and on two.

use std::time::{Duration, Instant};

use delos_deploy::{
    domain::bucket,
    server::Stop,
    wire::pb::{
        Arm, ResolveVersionRequest, WatchTrafficRequest, WatchTrafficResponse,
        traffic_service_client::TrafficServiceClient,
    },
};
use serde_json::{Value, json};
use tonic::{Code, Streaming, transport::Channel};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_types::StatusExt as _;

use crate::harness::{
    App, Storage, binary::Binary, http, minutes, on_every_storage, postgres, settings,
};

const ENVIRONMENT: &str = "production";

async fn client(app: &App) -> TrafficServiceClient<Channel> {
    TrafficServiceClient::new(app.channel().await)
}

fn ask(key: &str) -> ResolveVersionRequest {
    ResolveVersionRequest {
        prompt_id: "greeting".into(),
        environment: ENVIRONMENT.into(),
        targeting_key: key.into(),
        preview: false,
    }
}

async fn deploy(app: &App, version: i32, strategy: &str) -> Value {
    app.create(json!({
        "prompt_id": "greeting",
        "environment": ENVIRONMENT,
        "to_version": version,
        "strategy": {"type": strategy, "initial_percentage": 10, "increment": 40, "interval_seconds": 60},
        "skip_approval": true,
    }))
    .await
}

/// The keys, of a thousand, that get a version.
async fn served(client: &mut TrafficServiceClient<Channel>, version: i32) -> Vec<String> {
    let mut keys = Vec::new();
    for number in 0..1000 {
        let key = format!("user-{number}");
        if client
            .resolve_version(ask(&key))
            .await
            .unwrap()
            .into_inner()
            .version
            == version
        {
            keys.push(key);
        }
    }
    keys
}

async fn roll_back(app: &App, deployment: &Value) {
    let path = format!(
        "/v1/deployments/{}/rollback",
        deployment["id"].as_str().unwrap()
    );
    assert_eq!(app.rest("POST", &path, None).await.status, 200);
}

on_every_storage! {
    async fn who_gets_the_new_version_keeps_it_until_it_is_taken_back(app: &App) {
        let mut client = client(app).await;
        deploy(app, 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
        let rollout = deploy(app, 2, "DEPLOYMENT_TYPE_GRADUAL").await;
        let early = served(&mut client, 2).await;
        // Ten percent, give or take four standard deviations.
        assert!((62..=138).contains(&early.len()), "{}", early.len());
        let id = rollout["id"].as_str().unwrap().parse().unwrap();
        assert!(early.iter().all(|key| bucket::place(id, key) < 10_000));
        app.advance(minutes(1)).await;
        let later = served(&mut client, 2).await;
        assert!(later.len() > early.len() && early.iter().all(|key| later.contains(key)));
        assert_eq!(client.resolve_version(ask("")).await.unwrap().into_inner().version, 1, "no key, no risk");
        roll_back(app, &rollout).await;
        assert!(served(&mut client, 2).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rest_answers_what_grpc_answers_and_says_when_nothing_has_changed() {
    let app = App::start(Storage::Memory).await;
    deploy(&app, 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    let rollout = deploy(&app, 2, "DEPLOYMENT_TYPE_GRADUAL").await;
    let path = "/v1/environments/production/prompts/greeting/version?targeting_key=user-8";
    let answer = app.rest("GET", path, None).await;
    let body = answer.json();
    let over_grpc = client(&app)
        .await
        .resolve_version(ask("user-8"))
        .await
        .unwrap()
        .into_inner();
    assert_eq!(serde_json::to_value(&over_grpc).unwrap(), body);
    assert_eq!(body["attributes"]["gen_ai.prompt.name"], "greeting");
    assert_eq!(
        body["attributes"]["gen_ai.prompt.version"],
        body["version"].to_string()
    );

    let etag = answer.header("etag").to_owned();
    let known = [("if-none-match", etag.as_str())];
    let unchanged = app.rest_with("GET", path, &known, "").await;
    assert_eq!(
        (
            unchanged.status,
            unchanged.header("etag"),
            unchanged.body.len()
        ),
        (304, etag.as_str(), 0)
    );
    roll_back(&app, &rollout).await;
    let changed = app.rest_with("GET", path, &known, "").await;
    assert_eq!(
        (changed.status, &changed.json()["version"]),
        (200, &json!(1))
    );

    let split = app
        .rest(
            "GET",
            "/v1/environments/production/prompts/greeting/traffic",
            None,
        )
        .await
        .json();
    assert_eq!(
        (
            &split["traffic"]["stable_version"],
            &split["traffic"]["candidate_version"]
        ),
        (&json!(1), &json!(0))
    );
    let all = app
        .rest("GET", "/v1/environments/production/traffic", None)
        .await
        .json();
    assert_eq!(
        (&all["traffic"], &all["revision"]),
        (&json!([split["traffic"]]), &split["traffic"]["revision"])
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preview_gets_the_new_version_before_the_switch() {
    let app = App::start(Storage::Memory).await;
    deploy(&app, 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    deploy(&app, 2, "DEPLOYMENT_TYPE_BLUE_GREEN").await;
    let mut client = client(&app).await;
    assert!(served(&mut client, 2).await.is_empty());
    let preview = client
        .resolve_version(ResolveVersionRequest {
            preview: true,
            ..ask("")
        })
        .await
        .unwrap()
        .into_inner();
    assert_eq!((preview.version, preview.arm()), (2, Arm::Preview));
    app.advance(minutes(1)).await;
    assert_eq!(served(&mut client, 2).await.len(), 1000);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_served_is_an_answer_that_differs_from_an_outage() {
    let app = App::start(Storage::Postgres).await;
    let mut client = client(&app).await;
    let nothing = client.resolve_version(ask("user-1")).await.unwrap_err();
    assert_eq!(nothing.code(), Code::NotFound);
    assert_eq!(
        nothing.get_details_error_info().unwrap().reason,
        "NOTHING_SERVED"
    );
    let bad = app
        .rest("GET", "/v1/environments/production/prompts/-/version", None)
        .await;
    assert_eq!(bad.json()["errors"][0]["field"], "prompt_id");
    let rollout = deploy(&app, 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    roll_back(&app, &rollout).await;
    assert_eq!(
        client
            .resolve_version(ask("user-1"))
            .await
            .unwrap_err()
            .code(),
        Code::NotFound
    );

    // With the database away, what is served is served on.
    deploy(&app, 2, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    postgres::turn_away(app.settings()).await;
    assert_eq!(app.rest("GET", "/v1/deployments", None).await.status, 503);
    assert_eq!(
        client
            .resolve_version(ask("user-1"))
            .await
            .unwrap()
            .into_inner()
            .version,
        2
    );
    postgres::let_in(app.settings()).await;
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn with_the_database_away_an_answer_says_how_old_it_may_be() {
    let app = App::start(Storage::Postgres).await;
    deploy(&app, 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    let path = format!("/v1/environments/{ENVIRONMENT}/prompts/greeting/version");
    let fresh = app.rest("GET", &path, None).await;
    assert_eq!(fresh.json()["stale_seconds"], 0);
    let etag = fresh.header("etag").to_owned();
    let ofrep = async |key: &str| {
        let path = format!("/environments/{ENVIRONMENT}/ofrep/v1/evaluate/flags{key}");
        app.rest("POST", &path, Some(json!({}))).await
    };
    assert!(ofrep("").await.json().get("metadata").is_none());
    let bulk_etag = ofrep("").await.header("etag").to_owned();

    postgres::turn_away(app.settings()).await;
    let patience = Instant::now() + Duration::from_secs(30);
    let stale = loop {
        let answer = app.rest("GET", &path, None).await;
        if answer.json()["stale_seconds"] != 0 {
            break answer;
        }
        assert!(Instant::now() < patience, "the answer never grows old");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(stale.json()["version"], 1);
    let seconds = stale.json()["stale_seconds"].as_i64().unwrap();
    assert!((5..60).contains(&seconds), "{seconds}");
    assert_eq!(stale.header("age"), seconds.to_string());
    assert_eq!(stale.header("etag"), etag, "it is still the same answer");
    let known = app
        .rest_with("GET", &path, &[("if-none-match", &etag)], "")
        .await;
    assert_eq!(known.status, 304);
    assert!(known.header("age").parse::<i64>().unwrap() >= seconds);
    let single = ofrep("/greeting").await.json();
    assert!(single["metadata"]["staleSeconds"].as_i64().unwrap() >= seconds);
    let bulk = ofrep("").await;
    assert!(bulk.json()["metadata"]["staleSeconds"].as_i64().unwrap() >= seconds);
    assert_eq!(bulk.header("etag"), bulk_etag);

    // Who only asks which version to serve has a replica for it still.
    assert_eq!(app.rest("GET", "/readyz", None).await.status, 503);
    assert_eq!(app.rest("GET", "/readyz/traffic", None).await.status, 200);
    let mut health = HealthClient::new(app.channel().await);
    for (service, expected) in [
        ("", ServingStatus::NotServing),
        ("delos.deploy.v1.DeployService", ServingStatus::NotServing),
        ("delos.deploy.v1.TrafficService", ServingStatus::Serving),
        ("flagd.sync.v1.FlagSyncService", ServingStatus::Serving),
    ] {
        let request = HealthCheckRequest {
            service: service.into(),
        };
        let status = health.check(request).await.unwrap().into_inner().status();
        assert_eq!(status, expected, "{service:?}");
    }

    postgres::let_in(app.settings()).await;
    while app.rest("GET", &path, None).await.json()["stale_seconds"] != 0 {
        assert!(Instant::now() < patience, "the answer stays old");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storage_that_has_gone_back_in_time_is_believed() {
    let app = App::start(Storage::Postgres).await;
    deploy(&app, 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    deploy(&app, 2, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    let mut client = client(&app).await;
    let watch = WatchTrafficRequest {
        environment: ENVIRONMENT.into(),
        revision: 0,
    };
    let mut stream = client.watch_traffic(watch).await.unwrap().into_inner();
    assert_eq!(next(&mut stream).await.revision, 2);
    // As a restored backup has it.
    let mut database = postgres::connect(app.settings()).await;
    sqlx::raw_sql(
        "UPDATE traffic SET stable_version = 1, revision = 1; UPDATE traffic_revisions SET revision = 1",
    )
    .execute(&mut database)
    .await
    .unwrap();
    let told = next(&mut stream).await;
    assert_eq!((told.snapshot, told.revision), (true, 1));
    assert_eq!(told.traffic[0].stable_version, 1);
    let answer = client.resolve_version(ask("user-1")).await.unwrap();
    assert_eq!(answer.into_inner().version, 1);
    app.finish().await;
}

async fn next(stream: &mut Streaming<WatchTrafficResponse>) -> WatchTrafficResponse {
    tokio::time::timeout(Duration::from_secs(20), stream.message())
        .await
        .unwrap()
        .unwrap()
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watcher_hears_of_each_change_and_goes_on_where_it_was() {
    let app = App::start(Storage::Memory).await;
    let mut client = client(&app).await;
    let from = |revision| WatchTrafficRequest {
        environment: ENVIRONMENT.into(),
        revision,
    };
    let mut stream = client.watch_traffic(from(0)).await.unwrap().into_inner();
    let empty = next(&mut stream).await;
    assert_eq!(
        (empty.traffic.len(), empty.revision, empty.snapshot),
        (0, 0, true)
    );
    let mut hears = async |revision, stable, share| {
        let change = next(&mut stream).await;
        assert_eq!(
            (change.revision, change.snapshot, change.traffic.len()),
            (revision, false, 1)
        );
        let split = &change.traffic[0];
        assert_eq!(
            (split.stable_version, split.candidate_percentage),
            (stable, share)
        );
    };
    deploy(&app, 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    hears(1, 1, 0).await;
    let rollout = deploy(&app, 2, "DEPLOYMENT_TYPE_GRADUAL").await;
    hears(2, 1, 10).await;
    app.advance(minutes(1)).await;
    hears(3, 1, 50).await;
    roll_back(&app, &rollout).await;
    hears(4, 1, 0).await;

    // Broken off at revision 2, it is told what differs now; at the last one, nothing.
    let mut resumed = client.watch_traffic(from(2)).await.unwrap().into_inner();
    let missed = next(&mut resumed).await;
    assert_eq!(
        (missed.revision, missed.snapshot, missed.traffic.len()),
        (4, false, 1)
    );
    let mut current = client.watch_traffic(from(4)).await.unwrap().into_inner();
    assert!(next(&mut current).await.traffic.is_empty());
    // A revision of another storage is answered with a snapshot.
    let mut foreign = client.watch_traffic(from(99)).await.unwrap().into_inner();
    assert!(next(&mut foreign).await.snapshot);

    app.stop(Stop::AtOnce);
    let ended = tokio::time::timeout(Duration::from_secs(20), stream.message())
        .await
        .unwrap()
        .unwrap_err();
    assert_eq!(ended.code(), Code::Unavailable, "{ended:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn changes_come_as_server_sent_events() {
    let app = App::start(Storage::Memory).await;
    deploy(&app, 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    let mut events = http::events(&app.address, "/v1/environments/production/traffic/events").await;
    let snapshot = events.next().await;
    assert!(
        snapshot.contains("event: traffic")
            && snapshot.contains("id: 1")
            && snapshot.contains("\"snapshot\":true")
    );
    deploy(&app, 2, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    let change = events.next().await;
    assert!(
        change.contains("id: 2") && change.contains("\"stable_version\":2"),
        "{change}"
    );
    drop(events);
    app.finish().await;
}

/// What one replica has written is served by the other, which is told by a notification, and where
/// that gets lost, finds it by its poll.
#[tokio::test(flavor = "multi_thread")]
async fn what_one_replica_has_written_the_other_one_serves() {
    let files = tempfile::tempdir().unwrap();
    let settings = settings(Storage::Postgres, files.path()).await;
    let replicas = [Binary::start(&settings), Binary::start(&settings)];
    let version = async |replica: &Binary| {
        let path = "/v1/environments/production/prompts/greeting/version";
        let answer = http::get(&replica.address, path).await.unwrap();
        if answer.status == 200 {
            answer.json()["version"].as_i64().unwrap()
        } else {
            0
        }
    };
    for number in 1..=4 {
        let body = json!({"prompt_id": "greeting", "environment": ENVIRONMENT, "to_version": number, "skip_approval": true});
        let headers = [("content-type", "application/json")];
        let writer = &replicas[number as usize % 2];
        let answer = http::send(
            &writer.address,
            "POST",
            "/v1/deployments",
            &headers,
            body.to_string().into(),
        )
        .await
        .unwrap();
        assert_eq!(answer.status, 201, "{answer:?}");
        assert_eq!(
            version(writer).await,
            number,
            "its own write is served at once"
        );
        let other = &replicas[(number as usize + 1) % 2];
        let mut patience = 0;
        while version(other).await != number {
            patience += 1;
            assert!(patience < 500, "the other replica does not hear of it");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}
