//! A process that crashes at each place between two effects, twice: nothing is lost, nothing is done
//! twice, and the rollout ends as if nothing had been.

use std::{
    collections::BTreeMap,
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    sync::Arc,
    time::{Duration, Instant},
};

use delos_deploy::{
    domain::state::Status, faults::Point, wire::pb::audit_service_client::AuditServiceClient,
};
use serde_json::{Value, json};
use tonic::transport::Channel;

use crate::harness::{Storage, audit, binary::Binary, eval::Eval, http, settings};

const SIGABRT: i32 = 6;
/// A claim that a crash has left behind is taken over after 15 seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// At which arrivals the process crashes: at the first, and once it runs again at this one.
fn arrivals(point: Point) -> [u64; 2] {
    match point {
        Point::ClaimBefore | Point::ClaimAfter => [1, 3],
        // A run that is there already is looked for once.
        Point::EvidenceBefore => [1, 2],
        Point::EvidenceAfter => [1, 1],
        Point::BeginBefore | Point::CommitBefore | Point::CommitAfter => [1, 5],
        Point::EventBefore | Point::EventAfter => [1, 3],
        Point::NotifyBefore | Point::NotifyAfter => [1, 2],
        // A process that stops comes there once.
        Point::ReleaseBefore | Point::ReleaseAfter => [1, 1],
        Point::RetryBefore | Point::FenceSkipped => [1, 1],
    }
}

fn is_at_the_stop(point: Point) -> bool {
    matches!(point, Point::ReleaseBefore | Point::ReleaseAfter)
}

/// A service that is started again whenever it has crashed.
struct Run {
    point: Point,
    settings: BTreeMap<String, String>,
    /// The arrivals at which it has yet to crash, the next one last.
    ahead: Vec<u64>,
    service: Option<Binary>,
}

impl Run {
    fn service(&mut self) -> &mut Binary {
        while self.service.is_none() {
            let mut settings = self.settings.clone();
            if let Some(arrival) = self.ahead.last() {
                let crash = format!("{}:{arrival}", self.point.as_str());
                settings.insert("DELOS_FAULT_CRASH".into(), crash);
            }
            match Binary::try_start(&settings) {
                Ok(service) => self.service = Some(service),
                Err(status) => self.has_crashed(status),
            }
        }
        self.service.as_mut().unwrap()
    }

    fn has_crashed(&mut self, status: ExitStatus) {
        let point = self.point.as_str();
        assert_eq!(status.signal(), Some(SIGABRT), "{point}: {status}");
        let arrival = self.ahead.pop();
        assert!(arrival.is_some(), "{point}: a crash that nobody asked for");
        self.service = None;
    }

    /// Waits until the process has crashed.
    fn wait_for_the_crash(&mut self) {
        let status = self.service().wait();
        self.has_crashed(status);
    }

    /// Sends a request until it is answered.
    async fn call(&mut self, path: &str, body: &Value) -> Value {
        let patience = Instant::now() + PATIENCE;
        loop {
            let address = self.service().address.clone();
            match http::post(&address, path, body).await {
                Ok(answer) if answer.status < 300 => return answer.json(),
                Ok(answer) => assert!(answer.status >= 500, "{answer:?}"),
                Err(_) => self.wait_for_the_crash(),
            }
            assert!(Instant::now() < patience, "{path} is not answered");
        }
    }

    /// Waits until a deployment has come to a status.
    async fn becomes(&mut self, id: &str, status: &str) {
        let path = format!("/v1/deployments/{id}");
        let patience = Instant::now() + PATIENCE;
        loop {
            let address = self.service().address.clone();
            match http::get(&address, &path).await {
                Ok(answer) => {
                    let deployment = answer.json()["deployment"].clone();
                    if deployment["status"] == format!("DEPLOYMENT_STATUS_{status}") {
                        return;
                    }
                    assert!(
                        Instant::now() < patience,
                        "{}: {deployment}",
                        self.point.as_str()
                    );
                }
                Err(_) => self.wait_for_the_crash(),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

fn gate() -> Value {
    json!({
        "name": "answers on examples",
        "prompt_id": "greeting",
        "required": true,
        "conditions": [{"type": "eval_score", "operator": "gte", "threshold": 0.8, "dataset_id": "golden-set"}],
        "request_id": "gate",
    })
}

fn deployment() -> Value {
    json!({
        "prompt_id": "greeting",
        "environment": "production",
        "to_version": 1,
        "strategy": {"type": "DEPLOYMENT_TYPE_GRADUAL", "initial_percentage": 40, "increment": 30,
            "interval_seconds": 1},
        "request_id": "create",
    })
}

/// Completes each run as soon as it is started.
async fn evaluate(eval: Arc<Eval>) {
    loop {
        if !eval.runs().is_empty() {
            eval.complete(0.9);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn crashes_at(point: Point, storage: Storage) {
    let files = tempfile::tempdir().unwrap();
    let eval = Arc::new(Eval::start().await);
    let evaluating = tokio::spawn(evaluate(Arc::clone(&eval)));
    let mut settings = settings(storage, files.path()).await;
    settings.insert("DELOS_EVAL_ENDPOINT".into(), eval.address.to_string());
    let [first, second] = arrivals(point);
    let mut run = Run {
        point,
        settings,
        ahead: vec![second, first],
        service: None,
    };
    let gate_made = run.call("/v1/quality-gates", &gate()).await;
    let created = run.call("/v1/deployments", &deployment()).await;
    let id = created["deployment"]["id"].as_str().unwrap().to_owned();
    let path = format!("/v1/deployments/{id}/approve");
    let approval = json!({"comment": "reviewed", "request_id": "approve"});
    let approved = run.call(&path, &approval).await;
    while is_at_the_stop(point) && !run.ahead.is_empty() {
        run.service().terminate();
        run.wait_for_the_crash();
    }
    run.becomes(&id, "COMPLETED").await;
    let ahead = &run.ahead;
    assert!(
        ahead.is_empty(),
        "{} is not reached, arrivals {ahead:?}",
        point.as_str()
    );

    // What was answered stays answered.
    assert_eq!(run.call("/v1/quality-gates", &gate()).await, gate_made);
    assert_eq!(run.call("/v1/deployments", &deployment()).await, created);
    assert_eq!(run.call(&path, &approval).await, approved);
    let address = run.service().address.clone();
    let listed = http::get(&address, "/v1/deployments").await.unwrap();
    assert_eq!(listed.json()["total_count"], 1);
    assert_eq!(eval.started(), 1, "an evaluation run is started once");
    let channel = Channel::from_shared(format!("http://{address}")).unwrap();
    let mut trail = AuditServiceClient::new(channel.connect().await.unwrap());
    let events = audit::events(&mut trail, &id).await;
    audit::check(&events, Some(Status::Completed));
    let shares = events
        .iter()
        .filter_map(|event| event.details.get("to_percentage"));
    assert_eq!(
        shares.collect::<Vec<_>>(),
        ["40", "70", "100"],
        "each step once"
    );
    let version = "/v1/environments/production/prompts/greeting/version?targeting_key=ada";
    assert_eq!(
        http::get(&address, version).await.unwrap().json()["version"],
        1
    );
    evaluating.abort();
}

/// A test for each place on SQLite and on PostgreSQL; a place without one does not compile.
macro_rules! at_every_place {
    ($($name:ident: $point:ident on $($storage:ident)+;)+) => {
        $(mod $name {
            use super::*;
            $(at_every_place!(@test $point $storage);)+
        })+

        const _: fn(Point) = |point| match point {
            $(Point::$point => {})+
            // Only a race that was lost, or a bug, comes there: the simulation does.
            Point::RetryBefore | Point::FenceSkipped => {}
        };
    };
    (@test $point:ident sqlite) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn sqlite_file() {
            crashes_at(Point::$point, Storage::SqliteFile).await;
        }
    };
    (@test $point:ident postgres) => {
        #[tokio::test(flavor = "multi_thread")]
        async fn postgres() {
            crashes_at(Point::$point, Storage::Postgres).await;
        }
    };
}

at_every_place! {
    claim_before: ClaimBefore on sqlite postgres;
    claim_after: ClaimAfter on sqlite postgres;
    evidence_before: EvidenceBefore on sqlite postgres;
    evidence_after: EvidenceAfter on sqlite postgres;
    begin_before: BeginBefore on sqlite postgres;
    commit_before: CommitBefore on sqlite postgres;
    commit_after: CommitAfter on sqlite postgres;
    event_before: EventBefore on sqlite postgres;
    event_after: EventAfter on sqlite postgres;
    // With one process there is nobody to tell.
    notify_before: NotifyBefore on postgres;
    notify_after: NotifyAfter on postgres;
    release_before: ReleaseBefore on sqlite postgres;
    release_after: ReleaseAfter on sqlite postgres;
}
