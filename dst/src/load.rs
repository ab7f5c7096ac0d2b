//! What callers ask for in a run, and what they were answered.

use delos_deploy::{
    domain::{
        analysis::{PolicyRequest, WithoutEvidence},
        audit::Caller,
        deployment::{Deployment, DeploymentRequest},
        gate::{ConditionRequest, Gate, GateRequest},
        ids::Actor,
        outcome::{OutcomeReport, digest},
        strategy::{StrategyRequest, StrategyType},
    },
    service::{ConditionReport, Error, Once, Reply, RolledBack, Service},
};
use rand::{RngExt as _, rngs::StdRng};
use uuid::Uuid;

/// The one environment.
pub const ENVIRONMENT: &str = "production";
/// How often a call is sent at most while faults are made.
const SENDS_MAX: u32 = 4;
/// How many outcomes of each version a report has: as many as the circuit breaker looks at.
pub const OUTCOMES: usize = 10;

/// What a run asks for.
#[derive(Debug, Clone, Default)]
pub struct Load {
    /// Prompts that have a gate, with its id once there is one.
    pub gates: Vec<(String, Option<Uuid>)>,
    /// The deployments.
    pub wanted: Vec<Wanted>,
    /// What is asked, each once or more often.
    pub calls: Vec<Call>,
}

/// A deployment that somebody wants.
#[derive(Debug, Clone)]
pub struct Wanted {
    /// The prompt.
    pub prompt: String,
    /// The version: the same of no other.
    pub version: i32,
    /// How.
    pub strategy: StrategyRequest,
    /// Whether nobody has to approve it.
    pub skip_approval: bool,
    /// Its id, once somebody was told.
    pub id: Option<Uuid>,
}

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// For the deployment.
    Create,
    /// To approve it.
    Approve,
    /// To take down what the gate's condition came to.
    Report {
        /// The verdict.
        passed: bool,
    },
    /// To cancel it.
    Cancel,
    /// To take it back.
    RollBack,
    /// To take in that its version fails, and that the one before does not.
    Outcomes,
}

/// A request under a key of its own, however often it is sent.
#[derive(Debug, Clone)]
pub struct Call {
    /// The key.
    pub key: String,
    /// What is asked.
    pub ask: Ask,
    /// Of which wanted deployment.
    pub of: usize,
    /// How often it was sent.
    pub sends: u32,
    /// How often it is on its way.
    pub in_flight: u32,
    /// What was answered.
    pub answers: Vec<Answer>,
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    /// It was done: this.
    Done(String),
    /// It was refused, for this reason.
    Refused(&'static str),
    /// Nobody knows.
    Lost,
}

impl Call {
    fn new(ask: Ask, of: usize) -> Self {
        let name = match ask {
            Ask::Create => "create",
            Ask::Approve => "approve",
            Ask::Report { .. } => "report",
            Ask::Cancel => "cancel",
            Ask::RollBack => "roll back",
            Ask::Outcomes => "outcomes",
        };
        Self {
            key: format!("{name} d{}", of + 1),
            ask,
            of,
            sends: 0,
            in_flight: 0,
            answers: Vec::new(),
        }
    }

    /// Whether somebody knows what became of it.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.answers.iter().any(|answer| *answer != Answer::Lost)
    }

    /// How many outcomes were taken in anew, and how many were known, each time.
    pub fn taken_in(&self) -> impl Iterator<Item = (usize, usize)> {
        self.done().filter_map(|answer| {
            let (accepted, known) = answer.split_once(' ')?;
            Some((accepted.parse().ok()?, known.parse().ok()?))
        })
    }

    /// What it was answered where it was done.
    pub fn done(&self) -> impl Iterator<Item = &str> {
        self.answers.iter().filter_map(|answer| match answer {
            Answer::Done(what) => Some(what.as_str()),
            Answer::Refused(_) | Answer::Lost => None,
        })
    }
}

impl Load {
    /// What the seed has asked for.
    pub fn by(dice: &mut StdRng) -> Self {
        let prompts = dice.random_range(1..=2);
        let gates = (0..prompts).filter(|_| dice.random_ratio(1, 4));
        let gates = gates.map(|prompt| (name(prompt), None)).collect();
        let mut load = Self {
            gates,
            ..Self::default()
        };
        for of in 0..dice.random_range(1..=4) {
            load.wanted.push(Wanted {
                prompt: name(dice.random_range(0..prompts)),
                version: i32::try_from(of).unwrap_or(i32::MAX) + 1,
                strategy: strategy(dice),
                skip_approval: dice.random_ratio(1, 2),
                id: None,
            });
            load.ask(of, dice);
        }
        load
    }

    fn ask(&mut self, of: usize, dice: &mut StdRng) {
        let Wanted {
            prompt,
            skip_approval,
            strategy,
            ..
        } = &self.wanted[of];
        let is_gated = self.gates.iter().any(|(gated, _)| gated == prompt);
        let report = Ask::Report {
            passed: dice.random_ratio(3, 4),
        };
        let asked = [
            (Ask::Create, true),
            (Ask::Approve, !skip_approval),
            (report, is_gated),
            (Ask::Outcomes, strategy.auto_rollback),
            (Ask::Cancel, dice.random_ratio(1, 4)),
            (Ask::RollBack, dice.random_ratio(1, 3)),
        ];
        let asked = asked.into_iter().filter(|(_, is_asked)| *is_asked);
        self.calls.extend(asked.map(|(ask, _)| Call::new(ask, of)));
    }

    /// One rollout of two steps beside a version that is served, and its cancellation.
    #[must_use]
    pub fn small(cancelled: bool) -> Self {
        let wanted = |version, strategy| Wanted {
            prompt: name(0),
            version,
            strategy,
            skip_approval: true,
            id: None,
        };
        let mut calls = vec![Call::new(Ask::Create, 0), Call::new(Ask::Create, 1)];
        if cancelled {
            calls.push(Call::new(Ask::Cancel, 1));
        }
        let gradual = StrategyRequest {
            kind: Ok(Some(StrategyType::Gradual)),
            initial_percentage: 30,
            increment: 40,
            interval_seconds: 1,
            ..StrategyRequest::default()
        };
        Self {
            gates: Vec::new(),
            wanted: vec![wanted(1, StrategyRequest::default()), wanted(2, gradual)],
            calls,
        }
    }

    /// Whether a call can be sent now: what it is about is known.
    #[must_use]
    pub fn can_send(&self, call: &Call) -> bool {
        let is_known = call.ask == Ask::Create || self.wanted[call.of].id.is_some();
        is_known && call.sends < SENDS_MAX
    }

    /// The gate of a prompt.
    #[must_use]
    pub fn gate_of(&self, prompt: &str) -> Option<Uuid> {
        let gate = self.gates.iter().find(|(gated, _)| gated == prompt);
        gate.and_then(|(_, id)| *id)
    }
}

fn name(prompt: i32) -> String {
    format!("p{}", prompt + 1)
}

fn strategy(dice: &mut StdRng) -> StrategyRequest {
    let kind = match dice.random_range(0..7) {
        0 => StrategyType::Immediate,
        1 => StrategyType::BlueGreen,
        2 | 3 => StrategyType::Canary,
        _ => StrategyType::Gradual,
    };
    StrategyRequest {
        kind: Ok(Some(kind)),
        initial_percentage: dice.random_range(1..=50),
        increment: dice.random_range(20..=50),
        interval_seconds: dice.random_range(1..=4),
        auto_rollback: dice.random_ratio(1, 4),
        analysis: PolicyRequest {
            without_evidence: Some(Ok(WithoutEvidence::Advance)),
            hold_seconds: 60,
            ..PolicyRequest::default()
        },
        ..StrategyRequest::default()
    }
}

/// The gate of a prompt: somebody outside decides.
#[must_use]
pub fn gate(prompt: &str) -> GateRequest {
    GateRequest {
        name: "outside".into(),
        prompt_id: prompt.into(),
        conditions: vec![ConditionRequest {
            kind: "custom".into(),
            operator: "gte".into(),
            threshold: 1.0,
            ..ConditionRequest::default()
        }],
        required: true,
    }
}

/// Who asks, with this request.
#[must_use]
pub fn caller(key: &str) -> Caller {
    Caller {
        actor: Actor::anonymous(),
        request_id: key.into(),
    }
}

/// A request on its way.
#[derive(Debug, Clone)]
pub struct Sent {
    key: String,
    ask: Ask,
    wanted: Wanted,
    gate: Option<Uuid>,
}

impl Sent {
    /// The request of a call.
    #[must_use]
    pub fn of(load: &Load, call: &Call) -> Self {
        let wanted = load.wanted[call.of].clone();
        Self {
            key: call.key.clone(),
            ask: call.ask,
            gate: load.gate_of(&wanted.prompt),
            wanted,
        }
    }

    /// Sends it to a replica.
    pub async fn to(self, service: Service) -> Answer {
        let caller = caller(&self.key);
        let id = self.wanted.id.unwrap_or_default().to_string();
        let ended = match self.ask {
            Ask::Create => {
                let once = self.once(of_deployment);
                let created = service.create(self.request(), &caller, Some(once)).await;
                created.map(|reply| text(reply, of_deployment))
            }
            Ask::Approve => {
                let once = self.once(of_deployment);
                let approved = service.approve(&id, "", &caller, Some(once)).await;
                approved.map(|reply| text(reply, of_deployment))
            }
            Ask::Report { passed } => {
                let (once, report) = (self.once(of_deployment), self.report(passed));
                let reported = service.report_condition(&id, &report, &caller, Some(once));
                reported.await.map(|reply| text(reply, of_deployment))
            }
            Ask::Cancel => {
                let once = self.once(of_deployment);
                let cancelled = service.cancel(&id, "", &caller, Some(once)).await;
                cancelled.map(|reply| text(reply, of_deployment))
            }
            Ask::RollBack => {
                let once = self.once(of_rollback);
                let back = service.roll_back(&id, "", &caller, Some(once)).await;
                back.map(|reply| text(reply, of_rollback))
            }
            Ask::Outcomes => {
                let reported = service.report(self.outcomes(), Vec::new()).await;
                reported.map(|it| format!("{} {}", it.accepted, it.duplicates))
            }
        };
        match ended {
            Ok(what) => Answer::Done(what),
            Err(Error::Unavailable { .. }) => Answer::Lost,
            Err(error) => Answer::Refused(error.reason()),
        }
    }

    fn once<T>(&self, encode: fn(&T) -> Vec<u8>) -> Once<T> {
        Once {
            key: digest(&[&self.key]),
            content: digest(&["the same", &self.key]),
            encode,
        }
    }

    fn request(&self) -> DeploymentRequest {
        DeploymentRequest {
            prompt_id: self.wanted.prompt.clone(),
            environment: ENVIRONMENT.into(),
            to_version: self.wanted.version,
            strategy: self.wanted.strategy.clone(),
            skip_approval: self.wanted.skip_approval,
            ..DeploymentRequest::default()
        }
    }

    fn report(&self, passed: bool) -> ConditionReport {
        ConditionReport {
            gate_id: self.gate.unwrap_or_default().to_string(),
            index: 0,
            actual: None,
            passed: Some(passed),
            message: String::new(),
        }
    }

    /// Of every version that there may be, so that the one before is among them.
    fn outcomes(&self) -> Vec<OutcomeReport> {
        let versions = 1..=self.wanted.version.max(2);
        let outcome = |version, number| OutcomeReport {
            id: format!("{} {version} {number}", self.key),
            prompt_id: self.wanted.prompt.clone(),
            environment: ENVIRONMENT.into(),
            version,
            unit: Some(format!("{version} {number}")),
            error: version == self.wanted.version,
            ..OutcomeReport::default()
        };
        let each = versions.flat_map(|version| (0..OUTCOMES).map(move |n| (version, n)));
        each.map(|(version, number)| outcome(version, number))
            .collect()
    }
}

/// The gate that was created.
#[must_use]
pub fn gate_id(reply: Reply<Gate>) -> Option<Uuid> {
    match reply {
        Reply::Now(gate) => Some(gate.id),
        Reply::Before(_) => None,
    }
}

fn of_deployment(deployment: &Deployment) -> Vec<u8> {
    let Deployment {
        id,
        status,
        event_count,
        ..
    } = deployment;
    format!("{id} {status} {event_count}").into_bytes()
}

fn of_rollback(back: &RolledBack) -> Vec<u8> {
    let made = back.rollback_deployment.as_ref();
    let mut text = of_deployment(&back.deployment);
    text.extend(made.map(of_deployment).unwrap_or_default());
    text
}

fn text<T>(reply: Reply<T>, encode: fn(&T) -> Vec<u8>) -> String {
    let bytes = match reply {
        Reply::Now(value) => encode(&value),
        Reply::Before(bytes) => bytes,
    };
    String::from_utf8_lossy(&bytes).into_owned()
}
