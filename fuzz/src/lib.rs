//! The service in memory, for the targets that send it requests: all routes, behind everything that
//! a request goes through, over a storage in memory.

use std::{cell::OnceCell, sync::Arc, time::Duration};

use axum::body::Body;
use delos_deploy::{
    clock::{Clock, ManualClock},
    config::Config,
    evidence::{Eval, webhook::Webhooks},
    service::{Service, Sources},
    store::{Backend, Store},
    telemetry::Telemetry,
    wire::{Readiness, Routes, Served, router},
};
use http::{Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// The service, with something in it.
pub struct InMemory {
    runtime: Runtime,
    routes: Served,
    /// A deployment that waits for approval, and whose gate waits for a report.
    pub deployment: String,
    /// That gate.
    pub gate: String,
}

/// What was answered.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The body, where it is JSON.
    pub json: Option<Value>,
    /// Its type.
    pub content_type: String,
}

thread_local! {
    static SERVICE: OnceCell<InMemory> = const { OnceCell::new() };
}

/// Sends a request that `make` makes to a service that all inputs of a run share, and holds the
/// answer against what every answer keeps to.
pub fn ask(make: impl FnOnce(&InMemory) -> Option<Request<Body>>) {
    SERVICE.with(|service| {
        let service = service.get_or_init(InMemory::start);
        if let Some(request) = make(service) {
            let shown = format!("{} {}", request.method(), request.uri());
            service.send(request).check(&shown);
        }
    });
}

impl InMemory {
    fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime starts");
        let routes = runtime.block_on(routes());
        let mut service = Self {
            runtime,
            routes,
            deployment: String::new(),
            gate: String::new(),
        };
        let gate = json!({"name": "g", "prompt_id": "p", "required": true,
            "conditions": [{"type": "custom", "operator": "eq", "threshold": 1}]});
        service.create("/v1/quality-gates", &gate);
        let mut deployment = json!({"prompt_id": "served", "environment": "e", "to_version": 1,
            "skip_approval": true});
        service.create("/v1/deployments", &deployment);
        deployment["to_version"] = 2.into();
        deployment["strategy"] =
            json!({"type": "DEPLOYMENT_TYPE_CANARY", "initial_percentage": 50});
        service.create("/v1/deployments", &deployment);
        deployment["prompt_id"] = "p".into();
        let made = service.create("/v1/deployments", &deployment)["deployment"].clone();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        service.deployment = text(&made["id"]);
        service.gate = text(&made["gate_results"][0]["gate_id"]);
        service
    }

    fn create(&self, path: &str, body: &Value) -> Value {
        let answer = self.send(post(
            path,
            "application/json",
            body.to_string().into_bytes(),
        ));
        assert_eq!(answer.status, StatusCode::CREATED, "{:?}", answer.json);
        answer.json.unwrap_or_default()
    }

    fn send(&self, request: Request<Body>) -> Answer {
        self.runtime.block_on(async {
            let response = self.routes.clone().oneshot(request).await;
            let response = match response {
                Ok(response) => response,
                Err(never) => match never {},
            };
            let (status, headers) = (response.status(), response.headers().clone());
            let kind = headers.get(header::CONTENT_TYPE);
            let content_type = kind.map_or("", |kind| kind.to_str().unwrap_or_default());
            let is_json = content_type.ends_with("json");
            // A stream has no end; that it begins is enough.
            let json = if is_json {
                let body = response
                    .into_body()
                    .collect()
                    .await
                    .expect("a body is sent whole");
                Some(serde_json::from_slice(&body.to_bytes()).expect("JSON is well formed"))
            } else {
                None
            };
            Answer {
                status,
                json,
                content_type: content_type.to_owned(),
            }
        })
    }
}

impl Answer {
    fn check(&self, request: &str) {
        assert!(
            !self.status.is_server_error(),
            "{request}: {} {:?}",
            self.status,
            self.json
        );
        if self.content_type == "application/problem+json" {
            let problem = self.json.as_ref().expect("a problem is JSON");
            assert_eq!(problem["status"], self.status.as_u16(), "{request}");
            assert!(problem["reason"].is_string(), "{request}: {problem}");
        }
    }
}

/// A POST with a body.
pub fn post(path: &str, content_type: &str, body: Vec<u8>) -> Request<Body> {
    Request::post(path)
        .header(header::CONTENT_TYPE, content_type)
        .body(body.into())
        .expect("a path of ours is a URI")
}

async fn routes() -> Served {
    let config = Config::from_map([("DELOS_TRACING_ENABLED".into(), "false".into())].into());
    let config = config.expect("the defaults are good");
    let clock = ManualClock::new(chrono::DateTime::UNIX_EPOCH + chrono::TimeDelta::days(20_000));
    let store = Store::open(&Backend::Memory, Clock::Manual(clock)).await;
    let telemetry = Telemetry::start(&config.telemetry).expect("nothing is sent anywhere");
    let sources = Sources {
        eval: Eval::new(&config.eval_endpoint).expect("an address"),
        prompts: None,
        webhooks: Webhooks::new(&config.webhooks).expect("no certificates to read"),
    };
    let (store, metrics) = (
        store.expect("a storage in memory"),
        telemetry.metrics().clone(),
    );
    let (service, collector) = Service::new(store, metrics, Duration::from_secs(3600), sources);
    let traffic = service.traffic().refresh(service.store()).await;
    traffic.expect("a new storage is read");
    tokio::spawn(collector.run(CancellationToken::new()));
    let routes = router(Routes {
        service,
        readiness: Readiness::new("fuzzed".into()),
        telemetry: Arc::new(telemetry),
        origins: config.origins,
        default_environment: config.default_environment,
        evaluation_name: None,
        timeout: Duration::from_secs(30),
        requests_max: 1,
    });
    routes.expect("the contract is reflected")
}
