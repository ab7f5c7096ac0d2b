//! Redis beside the storage: hints, and a table for who starts while the database is away.

use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};

use delos_deploy::{
    clock::Clock,
    domain::{
        ids::{Environment, PromptId},
        traffic::{Stable, Traffic},
    },
    telemetry::Metrics,
    traffic::{Cache, Table},
};
use redis::TypedCommands as _;
use serde_json::{Value, json};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::harness::{
    Storage, binary::Binary, http, proxy::Proxy, redis::Redis, settings, until, watch,
};

const RESOLVE: &str = "/v1/environments/production/prompts/greeting/version";

/// A service's variables, a Redis, and a way to take the database away.
struct Setting {
    redis: Redis,
    database: Proxy,
    variables: BTreeMap<String, String>,
    _files: tempfile::TempDir,
}

impl Setting {
    async fn new() -> Self {
        let files = tempfile::tempdir().unwrap();
        let mut variables = settings(Storage::Postgres, files.path()).await;
        let server = format!("127.0.0.1:{}", variables["DELOS_DB_PORT"]);
        let database = Proxy::start(server.parse().unwrap()).await;
        let redis = Redis::start();
        variables.insert("DELOS_DB_PORT".into(), database.address.port().to_string());
        variables.insert("DELOS_REDIS_URL".into(), redis.url());
        Self {
            redis,
            database,
            variables,
            _files: files,
        }
    }

    async fn start(&self) -> Binary {
        let variables = self.variables.clone();
        tokio::task::spawn_blocking(move || Binary::start(&variables))
            .await
            .unwrap()
    }

    /// What the service calls something in Redis.
    fn name(&self, what: &str) -> String {
        let (port, name) = (
            &self.variables["DELOS_DB_PORT"],
            &self.variables["DELOS_DB_NAME"],
        );
        format!("delos-deploy:127.0.0.1:{port}/{name}:{what}")
    }

    /// What Redis has of production.
    fn kept(&self) -> Option<Value> {
        let kept = self
            .redis
            .connect()
            .hget(self.name("table"), "production")
            .unwrap();
        kept.map(|text| serde_json::from_str(&text).unwrap())
    }

    fn poison(&self, environment: &str, text: &str) {
        let mut redis = self.redis.connect();
        redis.hset(self.name("table"), environment, text).unwrap();
    }
}

async fn get(service: &Binary, path: &str) -> http::Answer {
    http::get(&service.address, path).await.unwrap()
}

async fn deploy(service: &Binary, version: i32, strategy: &str) -> Value {
    let body = json!({
        "prompt_id": "greeting",
        "environment": "production",
        "to_version": version,
        "strategy": {"type": strategy, "interval_seconds": 3600},
        "skip_approval": true,
    });
    let answer = http::post(&service.address, "/v1/deployments", &body)
        .await
        .unwrap();
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["deployment"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_starts_while_the_database_is_away_serves_what_redis_has() {
    let setting = Setting::new().await;
    let first = setting.start().await;
    deploy(&first, 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    deploy(&first, 2, "DEPLOYMENT_TYPE_BLUE_GREEN").await;
    let is_kept = |kept: Option<Value>| kept.is_some_and(|kept| kept["revision"] == 2);
    until("Redis never has it", async || is_kept(setting.kept())).await;
    first.kill();

    setting.database.cut();
    let second = setting.start().await;
    let served = get(&second, RESOLVE).await.json();
    assert_eq!(
        (&served["version"], &served["revision"]),
        (&json!(1), &json!("2"))
    );
    let preview = get(&second, &format!("{RESOLVE}?preview=true")).await;
    assert_eq!(preview.json()["version"], 2);
    let listed = get(&second, "/v1/deployments").await;
    assert_eq!(
        (listed.status, &listed.json()["reason"]),
        (503, &json!("UNAVAILABLE"))
    );
    assert_eq!(get(&second, "/readyz").await.status, 503);
    assert_eq!(get(&second, "/readyz/traffic").await.status, 200);
    until("the answer never grows old", async || {
        get(&second, RESOLVE).await.json()["stale_seconds"] != 0
    })
    .await;

    setting.database.restore().await;
    second.wait_until_ready().await;
    until("the answer stays old", async || {
        get(&second, RESOLVE).await.json()["stale_seconds"] == 0
    })
    .await;
    assert_eq!(
        get(&second, "/v1/deployments").await.json()["total_count"],
        2
    );
    let path = "/v1/environments/production/prompts/greeting/traffic";
    assert_eq!(
        get(&second, path).await.json()["traffic"]["candidate_version"],
        2
    );
}

/// An environment that serves a version which was never deployed, at a revision that is never reached.
fn poison(setting: &Setting) -> String {
    let mut kept = setting.kept().unwrap();
    kept["revision"] = json!(NEVER_REACHED);
    kept["prompts"][0]["revision"] = json!(NEVER_REACHED);
    kept["prompts"][0]["stable"]["version"] = json!(666);
    kept.to_string()
}

const NEVER_REACHED: i64 = 1_000_000_000_000;

#[tokio::test(flavor = "multi_thread")]
async fn who_has_the_database_does_not_look_at_what_redis_has() {
    let setting = Setting::new().await;
    let service = setting.start().await;
    deploy(&service, 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    until("Redis never has it", async || setting.kept().is_some()).await;
    setting.poison("production", &poison(&setting));
    let mut redis = setting.redis.connect();
    for _ in 0..10_000 {
        redis.publish(setting.name("hints"), "anything").unwrap();
    }
    assert_eq!(get(&service, RESOLVE).await.json()["version"], 1);
    let next = deploy(&service, 2, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    assert_eq!(
        (&next["from_version"], &next["status"]),
        (&json!(1), &json!("DEPLOYMENT_STATUS_COMPLETED"))
    );
    until("Redis keeps what a stranger has put there", async || {
        setting.kept().is_some_and(|kept| kept["revision"] == 2)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_stranger_has_put_into_redis_ends_when_the_database_answers() {
    let setting = Setting::new().await;
    let first = setting.start().await;
    deploy(&first, 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    until("Redis never has it", async || setting.kept().is_some()).await;
    first.kill();
    let poison = poison(&setting);
    setting.poison("production", &poison);
    setting.poison("staging", &poison);
    setting.poison("elsewhere", "no JSON");
    setting.database.cut();
    let second = setting.start().await;
    let served = get(&second, RESOLVE).await.json();
    assert_eq!(served["version"], 666, "nothing else is known");
    let mut stream = watch(&second.address).await;
    let told = stream.message().await.unwrap().unwrap();
    assert_eq!(told.revision, NEVER_REACHED);

    setting.database.restore().await;
    second.wait_until_ready().await;
    let told = loop {
        // Keep-alives may come between.
        let told = stream.message().await.unwrap().unwrap();
        if told.snapshot {
            break told;
        }
    };
    assert_eq!((told.revision, told.traffic[0].stable_version), (1, 1));
    assert_eq!(get(&second, RESOLVE).await.json()["version"], 1);
    let staging = RESOLVE.replace("production", "staging");
    until("what was never served is served", async || {
        get(&second, &staging).await.status == 404
    })
    .await;
    let next = deploy(&second, 3, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    assert_eq!(
        (&next["from_version"], &next["status"]),
        (&json!(1), &json!("DEPLOYMENT_STATUS_COMPLETED"))
    );
    assert_eq!(get(&second, RESOLVE).await.json()["revision"], "2");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_redis_that_never_answers_holds_nothing_up() {
    let files = tempfile::tempdir().unwrap();
    let mut variables = settings(Storage::Postgres, files.path()).await;
    // It takes connections and says nothing.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}", mute.local_addr().unwrap());
    variables.insert("DELOS_REDIS_URL".into(), url);
    let service = tokio::task::spawn_blocking(move || Binary::start(&variables))
        .await
        .unwrap();
    service.wait_until_ready().await;
    deploy(&service, 1, "DEPLOYMENT_TYPE_IMMEDIATE").await;
    assert_eq!(get(&service, RESOLVE).await.json()["version"], 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_hints_at_what_it_writes_also_after_redis_was_away() {
    let mut redis = Redis::start();
    let cache = |redis: &Redis| Cache::new(&redis.url(), "test").unwrap();
    let (table, hint, stop) = (
        Table::default(),
        Arc::new(Notify::new()),
        CancellationToken::new(),
    );
    let keeper = cache(&redis).keep(
        table.clone(),
        Clock::System,
        Metrics::default(),
        stop.clone(),
    );
    let listener = cache(&redis);
    let (heard, end) = (Arc::clone(&hint), stop.clone());
    let tasks = [
        tokio::spawn(keeper),
        tokio::spawn(async move { listener.listen(heard, end).await }),
    ];
    let hears = async |revision: i64| {
        let patience = Instant::now() + Duration::from_secs(30);
        let mut revision = revision;
        loop {
            // Told once the listener is there; before, there is nobody to tell.
            let mut row = Traffic::none(
                PromptId::parse("greeting").unwrap(),
                Environment::parse("production").unwrap(),
            );
            row.stable = Some(Stable {
                version: 1,
                deployment_id: Uuid::nil(),
            });
            row.revision = revision;
            table.apply_own(row);
            let hint = tokio::time::timeout(Duration::from_millis(500), hint.notified()).await;
            if hint.is_ok() {
                return revision;
            }
            assert!(Instant::now() < patience, "no hint comes");
            revision += 1;
        }
    };
    // The first may be of the subscription itself.
    let mut revision = 1;
    for _ in 0..3 {
        revision = hears(revision).await + 1;
    }
    redis.restart();
    for _ in 0..3 {
        revision = hears(revision).await + 1;
    }
    until("Redis does not have it again", async || {
        let cached = cache(&redis).read(&Clock::System).await;
        cached.is_some_and(|cached| cached.environments[0].revision == revision - 1)
    })
    .await;
    redis.kill();
    assert_eq!(cache(&redis).read(&Clock::System).await, None);
    stop.cancel();
    for task in tasks {
        task.await.unwrap();
    }
}
