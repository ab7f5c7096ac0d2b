//! Why a deployment is where it is, and what would move it.

use super::{Error, Service, deployment_id, error::of_store, not_found};
use crate::{
    domain::{
        Timestamp,
        analysis::{Analysis, Check, Overall, Verdict},
        decide::{self, Ahead, Decision, decide},
        deployment::Deployment,
        plan::Plan,
        state::Status,
    },
    store,
};

/// Why a deployment is where it is.
#[derive(Debug, Clone, PartialEq)]
pub struct Explained {
    /// The deployment.
    pub deployment: Deployment,
    /// In sentences, for people.
    pub summary: String,
    /// What is done next, as far as it is known now.
    pub next_action: NextAction,
    /// When that is done, or when it is looked at again.
    pub next_check_at: Option<Timestamp>,
    /// What stands in the way, one sentence each.
    pub blocked_by: Vec<String>,
    /// Each check of the live evidence, in the order in which they count.
    pub checks: Vec<Check>,
    /// When a rollout that is held is given up.
    pub held_until: Option<Timestamp>,
}

/// What is done next with a deployment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextAction {
    /// Nothing by itself.
    Nothing,
    /// Somebody has to approve it.
    Approve,
    /// Its gates are judged.
    JudgeGates,
    /// It starts when its turn comes.
    Start,
    /// Its share grows.
    Step,
    /// It gets all traffic.
    Complete,
    /// It is held until there is evidence.
    Hold,
    /// It is rolled back.
    RollBack,
    /// It fails.
    Fail,
}

impl Service {
    /// Why a deployment is where it is, and what would move it.
    ///
    /// # Errors
    /// There is none, or the storage failed.
    pub async fn explain(&self, id: &str) -> Result<Explained, Error> {
        let failed = |error: store::Error| of_store(&error, "deployment", id);
        let deployment = self.store.deployment(deployment_id(id)?).await;
        let deployment = deployment.map_err(failed)?.ok_or_else(|| not_found(id))?;
        let now = self.store.now().await.map_err(failed)?;
        let ahead = if deployment.is_in_line() {
            let (prompt, environment) = (&deployment.prompt_id, &deployment.environment);
            let served = self.store.traffic(prompt, environment).await;
            let served = served.map_err(failed)?;
            let ahead = self.store.ahead_of(&deployment).await.map_err(failed)?;
            ahead.or_else(|| Ahead::by_traffic(&deployment, &served))
        } else {
            None
        };
        let observed = self.store.observed(&deployment).await.map_err(failed)?;
        let analysis = observed.map(|observed| {
            // What ended is judged as of its end.
            let at = deployment.completed_at.unwrap_or(now);
            decide::analyse(&deployment.strategy, &observed.evidence, at)
        });
        let decision = decide(&deployment, ahead.as_ref(), analysis.as_ref(), now);
        Ok(explained(deployment, &decision, analysis, now))
    }
}

fn explained(
    deployment: Deployment,
    decision: &Decision,
    analysis: Option<Analysis>,
    now: Timestamp,
) -> Explained {
    let overall = analysis.as_ref().map(|analysis| &analysis.overall);
    let acts = deployment.strategy.auto_rollback && deployment.is_judged_live();
    let next_action = next_action(&deployment, decision, overall.filter(|_| acts));
    let held_until = match overall {
        Some(Overall::Hold { until, .. }) if acts => Some(*until),
        Some(
            Overall::Hold { .. }
            | Overall::RollBack { .. }
            | Overall::Fail { .. }
            | Overall::Unproven { .. }
            | Overall::Good,
        )
        | None => None,
    };
    let next_check_at = match decision {
        Decision::Rest => None,
        Decision::Wait { until, .. } => Some(*until),
        Decision::PassGates
        | Decision::FailGates { .. }
        | Decision::Start
        | Decision::Step(_)
        | Decision::Complete
        | Decision::RollBack { .. }
        | Decision::Fail { .. } => Some(now),
    };
    let checks = analysis.map(|analysis| analysis.checks).unwrap_or_default();
    let blocked_by = blocked_by(&deployment, decision, &checks, acts);
    Explained {
        summary: summary(&deployment, decision, &blocked_by),
        next_action,
        next_check_at,
        blocked_by,
        checks,
        held_until,
        deployment,
    }
}

/// What is done next: what is decided for now, or else what the next step would be.
fn next_action(
    deployment: &Deployment,
    decision: &Decision,
    overall: Option<&Overall>,
) -> NextAction {
    match decision {
        Decision::Rest if deployment.status == Status::PendingApproval => NextAction::Approve,
        Decision::Rest => NextAction::Nothing,
        Decision::PassGates | Decision::FailGates { .. } => NextAction::JudgeGates,
        Decision::Start => NextAction::Start,
        Decision::Step(_) => NextAction::Step,
        Decision::Complete => NextAction::Complete,
        Decision::RollBack { .. } => NextAction::RollBack,
        Decision::Fail { .. } => NextAction::Fail,
        Decision::Wait { .. } if deployment.is_in_line() => NextAction::Start,
        Decision::Wait { .. } if deployment.status == Status::PendingGates => {
            NextAction::JudgeGates
        }
        Decision::Wait { .. } if matches!(overall, Some(Overall::Hold { .. })) => NextAction::Hold,
        Decision::Wait { .. } => {
            let number = deployment
                .rollout
                .as_ref()
                .map_or(0, |rollout| rollout.stage);
            let stage = Plan::of(&deployment.strategy).stage(number);
            if stage.is_some_and(|stage| stage.percentage < 100) {
                NextAction::Step
            } else {
                NextAction::Complete
            }
        }
    }
}

fn blocked_by(
    deployment: &Deployment,
    decision: &Decision,
    checks: &[Check],
    acts: bool,
) -> Vec<String> {
    match decision {
        Decision::Rest if deployment.status == Status::PendingApproval => {
            vec!["nobody has approved it".to_owned()]
        }
        Decision::Wait { why: Some(why), .. } if deployment.status == Status::PendingGates => {
            vec![why.clone()]
        }
        Decision::Wait { .. } if acts => {
            let open = checks
                .iter()
                .filter(|check| check.verdict == Verdict::NoEvidence);
            open.map(|check| check.why.clone()).collect()
        }
        Decision::Rest
        | Decision::Wait { .. }
        | Decision::PassGates
        | Decision::FailGates { .. }
        | Decision::Start
        | Decision::Step(_)
        | Decision::Complete
        | Decision::RollBack { .. }
        | Decision::Fail { .. } => Vec::new(),
    }
}

fn summary(deployment: &Deployment, decision: &Decision, blocked_by: &[String]) -> String {
    let now = &deployment.status_message;
    let next = match decision {
        Decision::Rest if deployment.status == Status::PendingApproval => {
            "it goes on when somebody approves it".to_owned()
        }
        Decision::Rest => return now.clone(),
        Decision::Wait { until, why: None } if blocked_by.is_empty() => {
            format!("its next step is due at {}", moment(*until))
        }
        Decision::Wait { until, why: None } => format!(
            "its next step is due at {}, and by now {}",
            moment(*until),
            blocked_by.join("; ")
        ),
        Decision::Wait { why: Some(why), .. } => return why.clone(),
        Decision::PassGates => "its gates pass now".to_owned(),
        Decision::FailGates { why } | Decision::RollBack { why } | Decision::Fail { why } => {
            format!("it is ended now: {why}")
        }
        Decision::Start => "it starts now".to_owned(),
        Decision::Step(stage) => format!("it goes on to {} % now", stage.percentage),
        Decision::Complete => "it gets all traffic now".to_owned(),
    };
    format!("{now}; {next}")
}

fn moment(at: Timestamp) -> String {
    at.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}
