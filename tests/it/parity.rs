//! Every call means the same over gRPC, over gRPC-web (binary and text) and over REST: the same
//! answer, and the same refusal of the same bad call.

use std::collections::{BTreeMap, BTreeSet};

use delos_deploy::wire::pb;
use prost::Message;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::harness::{
    App, Storage,
    http::Answer,
    rpc::{self, Framing},
};

/// A call of the contract, and the REST call that mirrors it.
trait Call: Message + Serialize + Clone {
    type Answer: Message + Default + Serialize + DeserializeOwned;
    const RPC: &'static str;
    const METHOD: &'static str;

    fn path(&self) -> String;
}

macro_rules! calls {
    ($($rpc:literal: $request:ident => $answer:ident, $method:literal |$message:ident| $path:expr;)*) => {
        $(impl Call for pb::$request {
            type Answer = pb::$answer;
            const RPC: &'static str = $rpc;
            const METHOD: &'static str = $method;

            fn path(&self) -> String {
                let $message = self;
                $path
            }
        })*

        /// The calls that this suite makes.
        const CALLS: &[&str] = &[$($rpc),*];
    };
}

calls! {
    "DeployService/CreateDeployment": CreateDeploymentRequest => CreateDeploymentResponse,
        "POST" |_m| "/v1/deployments".into();
    "DeployService/GetDeployment": GetDeploymentRequest => GetDeploymentResponse,
        "GET" |m| format!("/v1/deployments/{}", m.id);
    "DeployService/ListDeployments": ListDeploymentsRequest => ListDeploymentsResponse,
        "GET" |m| format!("/v1/deployments?{}", query(m));
    "DeployService/ApproveDeployment": ApproveDeploymentRequest => ApproveDeploymentResponse,
        "POST" |m| format!("/v1/deployments/{}/approve", m.id);
    "DeployService/RollbackDeployment": RollbackDeploymentRequest => RollbackDeploymentResponse,
        "POST" |m| format!("/v1/deployments/{}/rollback", m.id);
    "DeployService/CancelDeployment": CancelDeploymentRequest => CancelDeploymentResponse,
        "POST" |m| format!("/v1/deployments/{}/cancel", m.id);
    "DeployService/GetDeploymentStatus": GetDeploymentStatusRequest => GetDeploymentStatusResponse,
        "GET" |m| format!("/v1/deployments/{}/status", m.id);
    "DeployService/ExplainDeployment": ExplainDeploymentRequest => ExplainDeploymentResponse,
        "GET" |m| format!("/v1/deployments/{}/explain", m.id);
    "TelemetryService/ReportOutcomes": ReportOutcomesRequest => ReportOutcomesResponse,
        "POST" |_m| "/v1/outcomes".into();
    "DeployService/CreateQualityGate": CreateQualityGateRequest => CreateQualityGateResponse,
        "POST" |_m| "/v1/quality-gates".into();
    "DeployService/ListQualityGates": ListQualityGatesRequest => ListQualityGatesResponse,
        "GET" |m| format!("/v1/quality-gates?{}", query(m));
    "DeployService/Health": HealthRequest => HealthResponse,
        "GET" |_m| "/v1/health".into();
    "DeployService/ReportGateCondition": ReportGateConditionRequest => ReportGateConditionResponse,
        "POST" |m| format!("/v1/deployments/{}/gates/{}/conditions/{}", m.id, m.gate_id, m.index);
    "AuditService/ListEvents": ListEventsRequest => ListEventsResponse,
        "GET" |m| if m.deployment_id.is_empty() {
            format!("/v1/events?{}", query(m))
        } else {
            format!("/v1/deployments/{}/events?{}", m.deployment_id, query(m))
        };
}

/// The fields of a message as a query string.
fn query(message: &impl Serialize) -> String {
    let Value::Object(fields) = json!(message) else {
        panic!("a message is an object");
    };
    let pairs = fields.iter().map(|(name, value)| {
        let text = value.as_str().map(str::to_owned);
        (name, text.unwrap_or_else(|| value.to_string()))
    });
    url::form_urlencoded::Serializer::new(String::new())
        .extend_pairs(pairs)
        .finish()
}

/// How a call reaches the service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Transport {
    Rpc(Framing),
    Rest,
}

const TRANSPORTS: [Transport; 4] = [
    Transport::Rpc(Framing::Grpc),
    Transport::Rpc(Framing::Web),
    Transport::Rpc(Framing::WebText),
    Transport::Rest,
];

/// A refusal, in terms that every protocol has.
#[derive(Debug, PartialEq)]
struct Refusal {
    code: Code,
    reason: String,
    detail: String,
    metadata: BTreeMap<String, String>,
    /// The fields that are wrong, and why.
    errors: Vec<(String, String)>,
    retry_after_seconds: Option<u64>,
}

impl Refusal {
    fn of_grpc(status: &Status) -> Self {
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(info.domain, "deploy.delos");
        let violations = details.bad_request().map(|bad| &bad.field_violations);
        let errors = violations.into_iter().flatten();
        Self {
            code: status.code(),
            reason: info.reason.clone(),
            detail: status.message().to_owned(),
            metadata: info.metadata.clone().into_iter().collect(),
            errors: errors
                .map(|error| (error.field.clone(), error.description.clone()))
                .collect(),
            retry_after_seconds: details
                .retry_info()
                .and_then(|info| info.retry_delay)
                .map(|delay| delay.as_secs()),
        }
    }

    /// `code` is what the refusal is in gRPC; its HTTP status has to be the one that belongs to it.
    fn of_rest(answer: &Answer, code: Code) -> Self {
        let belongs = HTTP_STATUS.contains(&(code, answer.status));
        assert!(belongs, "{code:?}: {answer:?}");
        let problem = answer.json();
        assert_eq!(problem["status"], answer.status);
        assert_eq!(problem["request_id"], answer.header("x-request-id"));
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let metadata = problem["metadata"].as_object().unwrap().iter();
        let errors = problem["errors"].as_array().unwrap().iter();
        Self {
            code,
            reason: text(&problem["reason"]),
            detail: text(&problem["detail"]),
            metadata: metadata
                .map(|(name, value)| (name.clone(), text(value)))
                .collect(),
            errors: errors
                .map(|error| (text(&error["field"]), text(&error["detail"])))
                .collect(),
            retry_after_seconds: answer.header("retry-after").parse().ok(),
        }
    }
}

/// The contract's table from gRPC code to HTTP status.
const HTTP_STATUS: [(Code, u16); 7] = [
    (Code::InvalidArgument, 400),
    (Code::NotFound, 404),
    (Code::FailedPrecondition, 409),
    (Code::Aborted, 409),
    (Code::AlreadyExists, 409),
    (Code::ResourceExhausted, 429),
    (Code::Unavailable, 503),
];

const NAME: (&str, &str) = ("x-delos-actor", "alice");

async fn rest<C: Call>(app: &App, call: &C, name: (&str, &str)) -> Answer {
    let headers = [
        ("content-type", "application/json"),
        ("x-request-id", "parity"),
        name,
    ];
    let body = if C::METHOD == "POST" {
        json!(call).to_string()
    } else {
        String::new()
    };
    app.rest_with(C::METHOD, &call.path(), &headers, body).await
}

async fn rpc<C: Call>(
    app: &App,
    framing: Framing,
    call: &C,
    name: (&str, &str),
) -> Result<C::Answer, Status> {
    let path = format!("/delos.deploy.v1.{}", C::RPC);
    let headers = [("x-request-id", "parity"), name];
    let reply = rpc::call(&app.address, framing, &path, &headers, call)
        .await
        .unwrap();
    assert_eq!(reply.http_status, 200);
    assert_eq!(reply.headers["x-request-id"], "parity");
    reply.message()
}

/// Calls, and expects an answer.
async fn answer<C: Call>(app: &App, transport: Transport, call: &C) -> C::Answer {
    match transport {
        Transport::Rpc(framing) => rpc(app, framing, call, NAME).await.unwrap(),
        Transport::Rest => {
            let answer = rest(app, call, NAME).await;
            assert!(matches!(answer.status, 200 | 201), "{answer:?}");
            let message: C::Answer = serde_json::from_slice(&answer.body).unwrap();
            // REST says all that the message does, and nothing else.
            assert_eq!(json!(message), answer.json());
            message
        }
    }
}

/// Calls, and expects a refusal: the same over every transport.
async fn refusal<C: Call>(app: &App, call: &C, name: (&str, &str), code: Code) -> Refusal {
    let mut refusals = Vec::new();
    for transport in TRANSPORTS {
        refusals.push(match transport {
            Transport::Rpc(framing) => {
                let refused = rpc(app, framing, call, name).await.map(|_| ());
                Refusal::of_grpc(&refused.unwrap_err())
            }
            Transport::Rest => Refusal::of_rest(&rest(app, call, name).await, code),
        });
    }
    let first = refusals.remove(0);
    assert_eq!(first.code, code);
    for (other, transport) in refusals.into_iter().zip(&TRANSPORTS[1..]) {
        assert_eq!(other, first, "{transport:?} refuses {} otherwise", C::RPC);
    }
    first
}

/// What was answered, with ids by the order in which they come up.
#[derive(Debug, Default)]
struct Transcript {
    answers: Vec<(&'static str, Value)>,
    ids: Vec<String>,
}

impl Transcript {
    fn note<C: Call>(&mut self, answer: &C::Answer) {
        let answer = self.without_ids(json!(answer));
        self.answers.push((C::RPC, answer));
    }

    fn without_ids(&mut self, value: Value) -> Value {
        match value {
            Value::Object(fields) => {
                let fields = fields.into_iter().map(|(name, value)| {
                    let value = if name == "next_page_token" {
                        // It holds an id, and a checksum over it.
                        json!(value != "")
                    } else {
                        self.without_ids(value)
                    };
                    (name, value)
                });
                Value::Object(fields.collect::<Map<_, _>>())
            }
            Value::Array(items) => items
                .into_iter()
                .map(|item| self.without_ids(item))
                .collect(),
            Value::String(text) => {
                let words = text.split(' ').map(|word| self.without_id(word));
                Value::String(words.collect::<Vec<_>>().join(" "))
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value,
        }
    }

    fn without_id(&mut self, word: &str) -> String {
        let Some(id) = word
            .trim_matches(|c: char| !c.is_ascii_hexdigit())
            .get(..36)
            .filter(|id| Uuid::try_parse(id).is_ok())
        else {
            return word.to_owned();
        };
        let known = self.ids.iter().position(|known| known == id);
        let number = known.unwrap_or_else(|| {
            self.ids.push(id.to_owned());
            self.ids.len() - 1
        });
        word.replace(id, &format!("id-{number}"))
    }
}

fn gradual(version: i32) -> pb::CreateDeploymentRequest {
    pb::CreateDeploymentRequest {
        prompt_id: "greeting".into(),
        to_version: version,
        environment: "production".into(),
        strategy: Some(pb::DeploymentStrategy {
            r#type: pb::DeploymentType::Gradual.into(),
            initial_percentage: 10,
            increment: 20,
            interval_seconds: 60,
            auto_rollback: true,
            rollback_threshold: 0.75,
            analysis: Some(pb::AnalysisPolicy {
                metrics: vec![pb::MetricPolicy {
                    metric: pb::Metric::Latency.into(),
                    limit: 250.0,
                    ..Default::default()
                }],
                hold_seconds: 3600,
                ..Default::default()
            }),
        }),
        skip_approval: version > 1,
        metadata: [("ticket".to_owned(), "OPS-7 – größer".to_owned())].into(),
        request_id: String::new(),
    }
}

fn gate() -> pb::CreateQualityGateRequest {
    pb::CreateQualityGateRequest {
        name: "Prod Gate".into(),
        prompt_id: "greeting".into(),
        conditions: vec![
            pb::GateCondition {
                r#type: "eval_score".into(),
                operator: "gte".into(),
                threshold: 0.9,
                dataset_id: "golden-set".into(),
                ..Default::default()
            },
            pb::GateCondition {
                r#type: "latency".into(),
                operator: "lte".into(),
                threshold: 500.0,
                ..Default::default()
            },
            pb::GateCondition {
                r#type: "custom".into(),
                operator: "gte".into(),
                threshold: 4.5,
                ..Default::default()
            },
            pb::GateCondition {
                r#type: "eval_score".into(),
                operator: "gte".into(),
                threshold: 0.05,
                dataset_id: "golden-set".into(),
                baseline: true,
                ..Default::default()
            },
        ],
        required: true,
        request_id: String::new(),
    }
}

/// A report of which one is good, one is known and two are refused.
fn outcomes() -> pb::ReportOutcomesRequest {
    let good = pb::Outcome {
        id: "call-1".into(),
        prompt_id: "greeting".into(),
        environment: "production".into(),
        version: 1,
        unit: "größer".into(),
        error: true,
        latency_ms: Some(812.5),
        ..Default::default()
    };
    let elsewhere = pb::Outcome {
        id: "call-2".into(),
        environment: "staging".into(),
        ..good.clone()
    };
    pb::ReportOutcomesRequest {
        outcomes: vec![good.clone(), good, elsewhere],
        scores: vec![
            pb::Score {
                outcome_id: "call-1".into(),
                quality_score: 0.5,
                at: None,
            },
            pb::Score {
                outcome_id: "call-1".into(),
                quality_score: 1.5,
                at: None,
            },
        ],
    }
}

/// What somebody reports of the condition that is decided outside.
fn condition(deployment: &pb::Deployment) -> pb::ReportGateConditionRequest {
    pb::ReportGateConditionRequest {
        id: deployment.id.clone(),
        gate_id: deployment.gate_results[0].gate_id.clone(),
        index: 2,
        actual: Some(4.75),
        message: "by hand".into(),
        ..Default::default()
    }
}

/// A life of deployments in which every call is made.
async fn story(transport: Transport) -> Transcript {
    let app = App::start(Storage::Memory).await;
    let mut told = Transcript::default();
    macro_rules! tell {
        ($call:expr) => {{
            let call = $call;
            let answer = answer(&app, transport, &call).await;
            tell(&mut told, &call, &answer);
            answer
        }};
    }
    let created = tell!(gradual(1)).deployment.unwrap();
    let id = created.id;
    tell!(pb::GetDeploymentRequest { id: id.clone() });
    let comment = "Approved after review".into();
    tell!(pb::ApproveDeploymentRequest {
        id: id.clone(),
        comment,
        request_id: "approve once".into(),
    });
    tell!(outcomes());
    tell!(pb::GetDeploymentStatusRequest { id: id.clone() });
    tell!(pb::ExplainDeploymentRequest { id: id.clone() });
    tell!(gate());
    let prompt_id = "greeting".to_owned();
    tell!(pb::ListQualityGatesRequest { prompt_id });
    let next = tell!(gradual(2)).deployment.unwrap();
    tell!(condition(&next));
    let next = next.id;
    tell!(pb::GetDeploymentStatusRequest { id: next.clone() });
    tell!(pb::ListDeploymentsRequest {
        prompt_id: "greeting".into(),
        status: pb::DeploymentStatus::PendingGates.into(),
        limit: 10,
        ..Default::default()
    });
    let reason = "changed our minds".to_owned();
    tell!(pb::CancelDeploymentRequest {
        id: next,
        reason,
        request_id: String::new(),
    });
    app.advance(std::time::Duration::from_secs(60)).await;
    let reason = "Quality regression detected".to_owned();
    tell!(pb::RollbackDeploymentRequest {
        id: id.clone(),
        reason,
        request_id: String::new(),
    });
    tell!(pb::ListDeploymentsRequest::default());
    let mut events = pb::ListEventsRequest {
        deployment_id: id,
        page_size: 4,
        ..Default::default()
    };
    events.page_token = tell!(events.clone()).next_page_token;
    assert_eq!(tell!(events).next_page_token, "");
    tell!(pb::ListEventsRequest {
        action: "create".into(),
        actor: "alice".into(),
        page_size: 1,
        ..Default::default()
    });
    tell!(pb::HealthRequest {});
    app.finish().await;
    told
}

fn tell<C: Call>(told: &mut Transcript, _: &C, answer: &C::Answer) {
    told.note::<C>(answer);
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_has_the_same_answer_over_every_protocol() {
    let first = story(TRANSPORTS[0]).await;
    let made: BTreeSet<_> = first.answers.iter().map(|(rpc, _)| *rpc).collect();
    assert_eq!(made, CALLS.iter().copied().collect());
    for transport in &TRANSPORTS[1..] {
        let other = story(*transport).await;
        for (other, first) in other.answers.iter().zip(&first.answers) {
            assert_eq!(other, first, "{transport:?}");
        }
        assert_eq!(other.answers.len(), first.answers.len());
    }
}

#[test]
fn every_call_of_the_contract_is_compared() {
    let services = ["DeployService", "AuditService", "TelemetryService"].map(|name| {
        let service = pb::descriptors().get_service_by_name(&format!("delos.deploy.v1.{name}"));
        service.unwrap()
    });
    let served: BTreeSet<_> = services
        .iter()
        .flat_map(|service| {
            // REST has no streams of requests.
            let methods = service
                .methods()
                .filter(|method| !method.is_client_streaming());
            methods.map(|method| format!("{}/{}", service.name(), method.name()))
        })
        .collect();
    let compared = CALLS.iter().map(|call| (*call).to_owned()).collect();
    assert_eq!(served, compared, "a call is missing in the table above");
}

/// Calls with wrong fields; returns which are named.
async fn wrong_fields<C: Call>(app: &App, call: &C) -> Vec<String> {
    let refusal = refusal(app, call, NAME, Code::InvalidArgument).await;
    assert_eq!(refusal.reason, "INVALID_REQUEST");
    for (field, why) in &refusal.errors {
        let said = format!("{field} {why}");
        assert!(refusal.detail.contains(&said), "{said} in {refusal:?}");
    }
    let names = refusal.errors.into_iter().map(|(field, _)| field);
    names.collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_of_a_new_deployment_is_named_at_once_over_every_protocol() {
    let app = App::start(Storage::Memory).await;
    let mut create = gradual(0);
    create.prompt_id = "no spaces, please".into();
    create.environment = String::new();
    create.strategy = Some(pb::DeploymentStrategy {
        r#type: pb::DeploymentType::Canary.into(),
        initial_percentage: 101,
        increment: -1,
        interval_seconds: -5,
        auto_rollback: false,
        rollback_threshold: 1.5,
        analysis: Some(pb::AnalysisPolicy {
            metrics: vec![
                pb::MetricPolicy {
                    metric: pb::Metric::Cost.into(),
                    margin: 2.0,
                    ..Default::default()
                },
                pb::MetricPolicy::default(),
            ],
            alpha_rollback: 0.5,
            min_units_advance: -1,
            breaker: Some(pb::CircuitBreaker {
                calls: 5,
                failed: 6,
                ..Default::default()
            }),
            provider_margin: 1.5,
            ..Default::default()
        }),
    });
    create.metadata = [(String::from("k").repeat(64), String::new())].into();
    assert_eq!(
        wrong_fields(&app, &create).await,
        [
            "prompt_id",
            "environment",
            "to_version",
            "strategy.initial_percentage",
            "strategy.increment",
            "strategy.interval_seconds",
            "strategy.rollback_threshold",
            "strategy.analysis.metrics[0].margin",
            "strategy.analysis.metrics[0].limit",
            "strategy.analysis.metrics[1].metric",
            "strategy.analysis.alpha_rollback",
            "strategy.analysis.min_units_advance",
            "strategy.analysis.provider_margin",
            "strategy.analysis.breaker.failed",
            &format!("metadata[{:?}]", "k".repeat(63)),
        ]
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_wrong_field_of_other_calls_is_named_at_once_over_every_protocol() {
    let app = App::start(Storage::Memory).await;
    let mut bad = gate();
    bad.name = String::new();
    bad.conditions[0].operator = "about".into();
    bad.conditions[1].r#type = "vibes".into();
    assert_eq!(
        wrong_fields(&app, &bad).await,
        ["name", "conditions[0].operator", "conditions[1].type"]
    );
    bad.conditions.clear();
    bad.prompt_id = "../etc".into();
    assert_eq!(
        wrong_fields(&app, &bad).await,
        ["prompt_id", "name", "conditions"]
    );
    let list = pb::ListDeploymentsRequest {
        prompt_id: "a b".into(),
        environment: "a/b".into(),
        limit: -1,
        offset: -1,
        ..Default::default()
    };
    assert_eq!(
        wrong_fields(&app, &list).await,
        ["prompt_id", "environment", "limit", "offset"]
    );
    let prompt_id = "a b".to_owned();
    let gates = pb::ListQualityGatesRequest { prompt_id };
    assert_eq!(wrong_fields(&app, &gates).await, ["prompt_id"]);
    let events = pb::ListEventsRequest {
        action: "vanish".into(),
        page_size: -1,
        page_token: "s1.0000000000000000".into(),
        ..Default::default()
    };
    assert_eq!(
        wrong_fields(&app, &events).await,
        ["action", "page_size", "page_token"]
    );
    let report = pb::ReportGateConditionRequest {
        id: Uuid::nil().to_string(),
        gate_id: "gate".into(),
        index: -1,
        actual: Some(1.0),
        passed: Some(true),
        ..Default::default()
    };
    assert_eq!(
        wrong_fields(&app, &report).await,
        ["gate_id", "index", "actual"]
    );
    let (id, reason) = (Uuid::nil().to_string(), "x".repeat(4097));
    let cancel = pb::CancelDeploymentRequest {
        id,
        reason,
        ..Default::default()
    };
    assert_eq!(wrong_fields(&app, &cancel).await, ["reason"]);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_id_that_is_unknown_or_no_uuid_is_not_found_over_every_protocol() {
    let app = App::start(Storage::Memory).await;
    for id in ["00000000-0000-7000-8000-000000000000", "deployment-xyz"] {
        let (id, text) = (|| id.to_owned(), String::new);
        macro_rules! not_found {
            ($($call:expr;)*) => {[$(refusal(&app, &$call, NAME, Code::NotFound).await),*]};
        }
        let refusals = not_found! {
            pb::GetDeploymentRequest { id: id() };
            pb::GetDeploymentStatusRequest { id: id() };
            pb::ApproveDeploymentRequest { id: id(), comment: text(), ..Default::default() };
            pb::RollbackDeploymentRequest { id: id(), reason: text(), ..Default::default() };
            pb::CancelDeploymentRequest { id: id(), reason: text(), ..Default::default() };
            pb::ListEventsRequest { deployment_id: id(), ..Default::default() };
        };
        for refused in refusals {
            assert_eq!(refused.reason, "NOT_FOUND");
            assert!(refused.detail.contains(&id()), "{refused:?}");
            assert_eq!(refused.errors, []);
        }
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_state_forbids_is_refused_the_same_over_every_protocol() {
    let app = App::start(Storage::Memory).await;
    let created = answer(&app, TRANSPORTS[0], &gradual(1)).await;
    let id = created.deployment.unwrap().id;
    let forbidden = Code::FailedPrecondition;
    let roll_back = pb::RollbackDeploymentRequest {
        id: id.clone(),
        reason: "too early".into(),
        ..Default::default()
    };
    let refused = refusal(&app, &roll_back, NAME, forbidden).await;
    assert_eq!(refused.reason, "DEPLOYMENT_NOT_ROLLBACKABLE");
    assert_eq!(refused.metadata["status"], "PENDING_APPROVAL");
    assert_eq!(refused.metadata["allowed_in"], "IN_PROGRESS,COMPLETED");

    let cancel = pb::CancelDeploymentRequest {
        id: id.clone(),
        reason: String::new(),
        ..Default::default()
    };
    answer(&app, TRANSPORTS[0], &cancel).await;
    let refused = refusal(&app, &cancel, NAME, forbidden).await;
    assert_eq!(refused.reason, "DEPLOYMENT_NOT_CANCELLABLE");
    let approve = pb::ApproveDeploymentRequest {
        id,
        comment: String::new(),
        ..Default::default()
    };
    let refused = refusal(&app, &approve, NAME, forbidden).await;
    assert_eq!(refused.reason, "DEPLOYMENT_NOT_PENDING_APPROVAL");
    for status in ["CANCELLED", "PENDING_APPROVAL"] {
        assert!(refused.detail.contains(status), "{refused:?}");
    }

    let mut shipped = gradual(1);
    (shipped.strategy, shipped.skip_approval) = (None, true);
    let shipped = answer(&app, TRANSPORTS[0], &shipped).await;
    answer(&app, TRANSPORTS[0], &gradual(2)).await;
    let roll_back = pb::RollbackDeploymentRequest {
        id: shipped.deployment.unwrap().id,
        reason: String::new(),
        ..Default::default()
    };
    let refused = refusal(&app, &roll_back, NAME, forbidden).await;
    assert_eq!(refused.reason, "ROLLOUT_UNDERWAY");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_can_act_as_the_system_over_any_protocol() {
    let app = App::start(Storage::Memory).await;
    let id = || Uuid::nil().to_string();
    for name in ["system", "  System", &"x".repeat(129)] {
        macro_rules! named_wrongly {
            ($($call:expr;)*) => {
                [$(refusal(&app, &$call, ("x-delos-actor", name), Code::InvalidArgument).await),*]
            };
        }
        let refusals = named_wrongly! {
            gradual(1);
            gate();
            pb::ApproveDeploymentRequest { id: id(), comment: String::new(), ..Default::default() };
            pb::RollbackDeploymentRequest { id: id(), reason: String::new(), ..Default::default() };
            pb::CancelDeploymentRequest { id: id(), reason: String::new(), ..Default::default() };
        };
        for refused in refusals {
            assert_eq!(refused.errors.len(), 1);
            assert_eq!(refused.errors[0].0, "x-delos-actor");
        }
    }
    let listed = answer(&app, TRANSPORTS[0], &pb::ListDeploymentsRequest::default()).await;
    assert_eq!(listed.total_count, 0);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_token_of_another_query_is_refused_over_every_protocol() {
    let app = App::start(Storage::Memory).await;
    answer(&app, TRANSPORTS[0], &gradual(2)).await;
    let mut events = pb::ListEventsRequest {
        page_size: 1,
        prompt_id: "greeting".into(),
        ..Default::default()
    };
    let token = answer(&app, TRANSPORTS[0], &events).await.next_page_token;
    for (prompt, token) in [("farewell", token.as_str()), ("greeting", "ein Gruß / 1")] {
        (events.prompt_id, events.page_token) = (prompt.into(), token.into());
        let refused = refusal(&app, &events, NAME, Code::InvalidArgument).await;
        assert_eq!(refused.errors[0].0, "page_token");
    }
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_says_when_to_try_again_over_every_protocol() {
    let app = App::start(Storage::Memory).await;
    for _ in 0..100 {
        answer(&app, TRANSPORTS[0], &gate()).await;
    }
    let refused = refusal(&app, &gate(), NAME, Code::ResourceExhausted).await;
    assert_eq!(refused.reason, "LIMIT_REACHED");
    assert_eq!(refused.retry_after_seconds, Some(60));
    app.finish().await;
}
