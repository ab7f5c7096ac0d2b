//! What is to be done next with a deployment: a value, computed from what is known and the time.
//!
//! The reconciler acts on it, and the API can explain by it why a deployment is where it is.

use uuid::Uuid;

use super::{
    Timestamp,
    analysis::{Analysis, Asked, Evidence, Overall, judge},
    deployment::{Deployment, Rollout},
    judgement::{Again, GateResult, Verdict},
    plan::{Plan, Stage},
    state::Status,
    strategy::{Strategy, StrategyType},
    traffic::Traffic,
};

/// What is to be done next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Nothing, ever, by itself.
    Rest,
    /// Nothing before this moment; the reason is for people.
    Wait {
        /// When to look again.
        until: Timestamp,
        /// Why, where the deployment's message should say so.
        why: Option<String>,
    },
    /// Every required gate has passed.
    PassGates,
    /// A required gate failed, or could not be measured in time.
    FailGates {
        /// Which, and what was missing.
        why: String,
    },
    /// The rollout begins.
    Start,
    /// The rollout takes this step.
    Step(Stage),
    /// The rollout reaches all traffic.
    Complete,
    /// The rollout is taken back.
    RollBack {
        /// Why.
        why: String,
    },
    /// The rollout can't go on.
    Fail {
        /// Why.
        why: String,
    },
}

/// A deployment that has to end, or to go first, before another of its prompt and environment can start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// The deployment.
    pub id: Uuid,
    /// Its version.
    pub version: i32,
    /// Its status; none where its row can't be read, so that it may be in any.
    pub status: Option<Status>,
}

impl Ahead {
    /// A rollout of which only what is served tells: its deployment can't be found where it belongs.
    #[must_use]
    pub fn by_traffic(deployment: &Deployment, traffic: &Traffic) -> Option<Self> {
        let candidate = traffic.candidate.as_ref();
        let other = candidate.filter(|candidate| candidate.deployment_id != deployment.id)?;
        Some(Self {
            id: other.deployment_id,
            version: other.version,
            status: None,
        })
    }
}

/// How often a deployment that waits in line looks whether its turn has come, though the end of
/// the one before it says so.
const LINE_CHECK: chrono::TimeDelta = chrono::TimeDelta::seconds(30);

/// How often a rollout that is held is looked at, though new evidence says so: for what the message
/// says of it.
const HELD_CHECK: chrono::TimeDelta = chrono::TimeDelta::seconds(60);

/// The shortest and longest pause before evidence is looked for again.
const LOOK_AGAIN: (chrono::TimeDelta, chrono::TimeDelta) = (
    chrono::TimeDelta::seconds(1),
    chrono::TimeDelta::seconds(30),
);

/// What is to be done next with `deployment`, where `ahead` stands before it in line and live
/// evidence says `analysis` of it.
#[must_use]
pub fn decide(
    deployment: &Deployment,
    ahead: Option<&Ahead>,
    analysis: Option<&Analysis>,
    now: Timestamp,
) -> Decision {
    match deployment.status {
        Status::PendingGates if deployment.is_in_line() => start_or_wait(ahead, now),
        Status::PendingGates => judge_gates(deployment, now),
        Status::InProgress => advance(deployment, analysis, now),
        Status::PendingApproval
        | Status::GatesFailed
        | Status::Completed
        | Status::RolledBack
        | Status::Cancelled
        | Status::Failed => Decision::Rest,
    }
}

fn start_or_wait(ahead: Option<&Ahead>, now: Timestamp) -> Decision {
    match ahead {
        None => Decision::Start,
        Some(ahead) => Decision::Wait {
            until: now + LINE_CHECK,
            why: Some(format!(
                "its gates have passed; waiting for deployment {} (version {}, {}) to end",
                ahead.id,
                ahead.version,
                ahead.status.map_or("which can't be read", Status::as_str)
            )),
        },
    }
}

fn judge_gates(deployment: &Deployment, now: Timestamp) -> Decision {
    let gates = &deployment.gates;
    let required = |verdict| move |gate: &&GateResult| gate.required && gate.verdict == verdict;
    if let Some(failed) = gates.iter().find(required(Verdict::Failed)) {
        return Decision::FailGates {
            why: format!("gate '{}' failed: {}", failed.gate_name, failed.message),
        };
    }
    let waiting: Vec<_> = gates
        .iter()
        .filter(|gate| gate.verdict == Verdict::Waiting)
        .collect();
    if waiting.is_empty() {
        return Decision::PassGates;
    }
    let describe = |gates: &[&GateResult]| {
        let each: Vec<_> = gates
            .iter()
            .map(|gate| format!("gate '{}': {}", gate.gate_name, gate.missing()))
            .collect();
        each.join("; ")
    };
    match deployment.gates_due_at {
        Some(due_at) if now < due_at => Decision::Wait {
            until: next_look(deployment, now).map_or(due_at, |look| look.min(due_at)),
            why: Some(format!("waiting for evidence for {}", describe(&waiting))),
        },
        Some(_) | None => {
            let missing: Vec<_> = waiting.into_iter().filter(|gate| gate.required).collect();
            if missing.is_empty() {
                Decision::PassGates
            } else {
                Decision::FailGates {
                    why: format!("not measured before the deadline: {}", describe(&missing)),
                }
            }
        }
    }
}

/// When to look for the evidence of gates again: at once where that was never done, then less and
/// less often, and not before the moment that somebody who was asked has named; none where all
/// that is missing is decided outside.
fn next_look(deployment: &Deployment, now: Timestamp) -> Option<Timestamp> {
    let waited = (now - deployment.updated_at).max(chrono::TimeDelta::zero());
    let in_turn = now + (waited / 10).clamp(LOOK_AGAIN.0, LOOK_AGAIN.1);
    let gates = deployment.gates.iter();
    let missing = gates.flat_map(GateResult::conditions_to_measure);
    let looks = missing.filter_map(|(_, condition)| match condition.again {
        Again::Soon if condition.note.is_empty() => Some(now),
        Again::Soon => Some(in_turn),
        // Where it has passed meanwhile, soon, yet not again and again at this moment.
        Again::After(at) => Some(at.max(now + LOOK_AGAIN.0)),
        Again::Never => None,
    });
    looks.min()
}

/// What live evidence says of a rollout, for its next step.
#[must_use]
pub fn analyse(strategy: &Strategy, evidence: &Evidence, now: Timestamp) -> Analysis {
    judge(&strategy.analysis, evidence, asked(strategy), now)
}

/// What a rollout's next step asks of its evidence.
fn asked(strategy: &Strategy) -> Asked {
    match strategy.kind {
        StrategyType::Immediate | StrategyType::Gradual => Asked::Step,
        StrategyType::Canary | StrategyType::BlueGreen => Asked::Promotion,
    }
}

fn advance(deployment: &Deployment, analysis: Option<&Analysis>, now: Timestamp) -> Decision {
    let Some(rollout) = &deployment.rollout else {
        return Decision::Fail {
            why: "it is in progress without a rollout".into(),
        };
    };
    // Without it verdicts are shown, and nothing follows from them.
    let acting = deployment.strategy.auto_rollback;
    let overall = analysis
        .filter(|_| acting)
        .map(|analysis| &analysis.overall);
    if let Some(Overall::RollBack { why }) = overall {
        return Decision::RollBack { why: why.clone() };
    }
    if let Some(until) = rollout.next_increment_at.filter(|at| *at > now) {
        return Decision::Wait { until, why: None };
    }
    match overall {
        Some(Overall::Hold { why, until }) => {
            return Decision::Wait {
                until: (now + HELD_CHECK).min(*until),
                why: Some(held(rollout, why, *until)),
            };
        }
        Some(Overall::Fail { why }) => {
            let why = format!("the evidence it needs did not come in time: {why}");
            return Decision::Fail { why };
        }
        Some(Overall::RollBack { .. } | Overall::Unproven { .. } | Overall::Good) | None => {}
    }
    match Plan::of(&deployment.strategy).stage(rollout.stage) {
        None => Decision::Fail {
            why: format!("its plan has no step {}", rollout.stage),
        },
        Some(stage) if stage.percentage == 100 => Decision::Complete,
        Some(stage) => Decision::Step(stage),
    }
}

fn held(rollout: &Rollout, why: &str, until: Timestamp) -> String {
    format!(
        "held at {} % of traffic: {why}. Report outcomes of both versions (ReportOutcomes, POST \
         /v1/outcomes or OpenTelemetry), or create it with another strategy.analysis; it ends at {}",
        rollout.current_percentage,
        until.to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
    )
}
