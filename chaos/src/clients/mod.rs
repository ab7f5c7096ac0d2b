//! Teams that deploy all the time, and users whose outcomes they report.

mod caller;
mod history;

use std::{sync::Arc, time::Duration};

use delos_deploy::wire::pb::{
    AnalysisPolicy, ApproveDeploymentRequest, CancelDeploymentRequest, CreateDeploymentRequest,
    CreateQualityGateRequest, Deployment, DeploymentStatus, DeploymentStrategy, DeploymentType,
    GateCondition, Outcome, ReportOutcomesRequest, RollbackDeploymentRequest, WithoutEvidence,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

pub(crate) use caller::Caller;
pub(crate) use history::{Answer, Call, Done, History, Op};

use crate::{Failure, cluster::Cluster, plan::Plan};

/// Where everything is deployed.
pub(crate) const ENVIRONMENT: &str = "production";
/// The metadata of a deployment that bears the key of its creation.
pub(crate) const KEY: &str = "key";
/// How long a team waits for its rollout before it goes on.
const FOLLOWED: Duration = Duration::from_secs(20);
/// Users that are served at a time.
const USERS: usize = 40;
/// Each this many prompts have a gate.
const GATED: usize = 3;

/// Whether a version does well enough on examples.
pub(crate) fn passes_gates(version: i32) -> bool {
    version % 5 != 0
}

/// Whether all calls of a version fail.
fn is_broken(version: i32) -> bool {
    version % 6 == 0
}

fn prompt(number: usize) -> String {
    format!("prompt-{number}")
}

fn key() -> String {
    Uuid::now_v7().to_string()
}

/// Gives some prompts a gate that asks for an evaluation run.
pub(crate) async fn create_gates(caller: &mut Caller, plan: &Plan) -> Result<(), Failure> {
    for number in (0..plan.prompts).step_by(GATED) {
        let gate = CreateQualityGateRequest {
            name: "examples".into(),
            prompt_id: prompt(number),
            conditions: vec![GateCondition {
                r#type: "eval_score".into(),
                operator: "gte".into(),
                threshold: 0.8,
                dataset_id: "examples".into(),
                ..Default::default()
            }],
            required: true,
            request_id: key(),
        };
        match caller.call(Call::CreateGate(gate)).await {
            // What is wrong is on record, and the checker's to tell.
            Answer::Done(_) | Answer::Wrong(_) => {}
            other @ (Answer::Refused(..) | Answer::Unknown(_)) => {
                return Err(format!("a gate could not be created: {other:?}").into());
            }
        }
    }
    Ok(())
}

/// A team that deploys until it is told to stop.
pub(crate) struct Team {
    caller: Caller,
    prompts: usize,
    outcomes: usize,
    number: usize,
}

impl Team {
    /// The team with this number.
    pub(crate) fn new(
        number: usize,
        cluster: &Cluster,
        history: History,
        plan: &Plan,
    ) -> Result<Self, Failure> {
        // The nemesis has the seed itself.
        let rng = StdRng::seed_from_u64(plan.seed.wrapping_add(1 + number as u64));
        Ok(Self {
            caller: Caller::new(number, cluster, history, rng, plan.share)?,
            prompts: plan.prompts,
            outcomes: 0,
            number,
        })
    }

    /// Deploys until it is told to stop; says how many requests it has dropped.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> u64 {
        while !stop.is_cancelled() {
            self.deploy(&stop).await;
            let pause = self.caller.rng().random_range(0..200);
            tokio::time::sleep(Duration::from_millis(pause)).await;
        }
        self.caller.dropped
    }

    async fn deploy(&mut self, stop: &CancellationToken) {
        let request = self.any_deployment();
        let answer = self.caller.call(Call::Create(request)).await;
        let Answer::Done(Done::Deployment(deployment, _)) = answer else {
            return;
        };
        if deployment.status() == DeploymentStatus::PendingApproval
            && !self.decide(&deployment).await
        {
            return;
        }
        match self.caller.rng().random_range(0..100) {
            0..15 => self.take_back(&deployment, 3000).await,
            15..25 => self.cancel(&deployment, 2500).await,
            _ => self.follow(&deployment, stop).await,
        }
        // Now and then what has completed is taken back.
        if self.caller.rng().random_bool(0.1) {
            self.take_back(&deployment, 100).await;
        }
    }

    fn any_deployment(&mut self) -> CreateDeploymentRequest {
        let prompts = self.prompts;
        let rng = self.caller.rng();
        let types = [
            DeploymentType::Immediate,
            DeploymentType::Gradual,
            DeploymentType::Gradual,
            DeploymentType::Canary,
            DeploymentType::BlueGreen,
        ];
        let kind = types[rng.random_range(0..types.len())];
        let auto_rollback = rng.random_bool(0.4);
        let is_in_steps = matches!(kind, DeploymentType::Gradual | DeploymentType::Canary);
        let strategy = DeploymentStrategy {
            r#type: kind.into(),
            initial_percentage: if is_in_steps {
                rng.random_range(1..=5) * 10
            } else {
                0
            },
            increment: if kind == DeploymentType::Gradual {
                rng.random_range(1..=4) * 10
            } else {
                0
            },
            interval_seconds: if kind == DeploymentType::Immediate {
                0
            } else {
                1
            },
            auto_rollback,
            // A rollout that nobody uses goes on; a broken version is taken back by the breaker.
            analysis: auto_rollback.then(|| AnalysisPolicy {
                without_evidence: WithoutEvidence::Advance.into(),
                hold_seconds: 60,
                ..Default::default()
            }),
            ..Default::default()
        };
        let request_id = key();
        CreateDeploymentRequest {
            prompt_id: prompt(rng.random_range(0..prompts)),
            to_version: rng.random_range(1..=60),
            environment: ENVIRONMENT.into(),
            strategy: Some(strategy),
            skip_approval: rng.random_bool(0.7),
            metadata: [(KEY.to_owned(), request_id.clone())].into(),
            request_id,
        }
    }

    /// Approves a deployment, or cancels it, or leaves it; says whether it was approved.
    async fn decide(&mut self, deployment: &Deployment) -> bool {
        match self.caller.rng().random_range(0..100) {
            0..80 => {
                let approve = ApproveDeploymentRequest {
                    id: deployment.id.clone(),
                    comment: String::new(),
                    request_id: key(),
                };
                let answer = self.caller.call(Call::Approve(approve)).await;
                matches!(answer, Answer::Done(_))
            }
            80..95 => {
                self.cancel(deployment, 100).await;
                false
            }
            _ => false,
        }
    }

    async fn take_back(&mut self, deployment: &Deployment, within_ms: u64) {
        self.wait(within_ms).await;
        let roll_back = RollbackDeploymentRequest {
            id: deployment.id.clone(),
            reason: "by chance".into(),
            request_id: key(),
        };
        self.caller.call(Call::RollBack(roll_back)).await;
    }

    async fn cancel(&mut self, deployment: &Deployment, within_ms: u64) {
        self.wait(within_ms).await;
        let cancel = CancelDeploymentRequest {
            id: deployment.id.clone(),
            reason: "by chance".into(),
            request_id: key(),
        };
        self.caller.call(Call::Cancel(cancel)).await;
    }

    async fn wait(&mut self, within_ms: u64) {
        let pause = self.caller.rng().random_range(0..within_ms);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    /// Serves users while the rollout goes on.
    async fn follow(&mut self, deployment: &Deployment, stop: &CancellationToken) {
        let has_users = deployment
            .strategy
            .as_ref()
            .is_some_and(|by| by.auto_rollback);
        let patience = Instant::now() + FOLLOWED;
        while Instant::now() < patience && !stop.is_cancelled() {
            if self.caller.is_settled(&deployment.id).await == Some(true) {
                return;
            }
            if has_users {
                self.serve(&deployment.prompt_id).await;
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    }

    async fn serve(&mut self, prompt_id: &str) {
        let mut outcomes = Vec::new();
        for _ in 0..USERS {
            self.outcomes += 1;
            let unit = format!("user-{}-{}", self.number, self.outcomes);
            let Some(version) = self.caller.served(prompt_id, &unit).await else {
                continue;
            };
            outcomes.push(Outcome {
                id: format!("outcome-{}-{}", self.number, self.outcomes),
                prompt_id: prompt_id.into(),
                environment: ENVIRONMENT.into(),
                version,
                unit,
                error: is_broken(version),
                ..Default::default()
            });
        }
        if !outcomes.is_empty() {
            let report = ReportOutcomesRequest {
                outcomes,
                scores: Vec::new(),
            };
            self.caller.call(Call::Report(report)).await;
        }
    }
}

/// Starts the teams; each says when it has ended how many requests it has dropped.
pub(crate) fn start(
    cluster: &Arc<Cluster>,
    history: &History,
    plan: &Plan,
    stop: &CancellationToken,
) -> Result<tokio::task::JoinSet<u64>, Failure> {
    let mut teams = tokio::task::JoinSet::new();
    for number in 0..plan.teams {
        let team = Team::new(number, cluster, history.clone(), plan)?;
        teams.spawn(team.run(stop.clone()));
    }
    Ok(teams)
}
