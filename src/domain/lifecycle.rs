//! What each transition does to a deployment and to the traffic of its environment.
//!
//! A transition that is refused changes neither. One that is made returns what is to be put on
//! record; deployment, traffic and record are stored in one transaction.

mod baseline;

use std::fmt;

use uuid::Uuid;

use super::{
    Timestamp,
    audit::{Action, Record},
    deployment::{Deployment, NewDeployment, ROLLBACK_FROM, Rollout},
    ids::Actor,
    judgement::{GateResult, Measurement, Verdict},
    plan::{Plan, Stage},
    state::{Refusal, Status, Verb, next},
    strategy::Strategy,
    traffic::{Candidate, Stable, Traffic},
};

/// Why a transition is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denied {
    /// The status forbids it.
    Status(Refusal),
    /// A completed deployment can be rolled back only while it is the one that is served.
    NotServed {
        /// What is served instead; none where nothing is.
        serving: Option<Stable>,
    },
    /// Another deployment is rolling out over this one.
    RolloutUnderway(Candidate),
    /// The version that would be restored never had all traffic.
    Unproven {
        /// That version.
        version: i32,
    },
    /// The deployment is bound to no such condition.
    NoSuchCondition {
        /// The gate.
        gate_id: Uuid,
        /// Which of its conditions, counted from 0.
        index: usize,
    },
    /// The condition is measured, not decided outside.
    NotCustom {
        /// The condition, in words.
        condition: String,
    },
    /// The condition has a verdict already, and it is another one.
    Decided {
        /// The condition and what became of it, in words.
        condition: String,
    },
}

impl From<Refusal> for Denied {
    fn from(refusal: Refusal) -> Self {
        Self::Status(refusal)
    }
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Status(refusal) => refusal.fmt(f),
            Self::NotServed { serving: Some(stable) } => write!(
                f,
                "the deployment is no longer the one that is served: deployment {} serves version {}; roll that one back",
                stable.deployment_id, stable.version
            ),
            Self::NotServed { serving: None } => {
                f.write_str("the deployment is no longer the one that is served: the environment serves nothing")
            }
            Self::RolloutUnderway(candidate) => write!(
                f,
                "deployment {} is rolling out version {} over this one; cancel it or roll it back first",
                candidate.deployment_id, candidate.version
            ),
            Self::Unproven { version } => write!(
                f,
                "rolling back would restore version {version}, whose rollout was itself taken back before it completed; create a deployment of the version you want"
            ),
            Self::NoSuchCondition { gate_id, index } => write!(
                f,
                "the deployment is bound to no condition {index} of gate {gate_id}; its gate_results list what it is bound to"
            ),
            Self::NotCustom { condition } => write!(
                f,
                "the condition is measured, and can't be reported: {condition}; only custom conditions are decided outside"
            ),
            Self::Decided { condition } => {
                write!(f, "the condition was decided before: {condition}")
            }
        }
    }
}

impl Deployment {
    /// A new deployment, in PENDING_APPROVAL or, where it needs no approval, with its gates.
    #[must_use]
    pub fn create(
        new: NewDeployment,
        served: &Traffic,
        gates: Gates,
        now: Timestamp,
    ) -> (Self, Record) {
        let mut deployment = Self {
            id: new.id,
            prompt_id: new.prompt_id,
            environment: new.environment,
            from_version: served.stable_version(),
            from_version_proven: true,
            to_version: new.to_version,
            strategy: new.strategy,
            status: Status::PendingApproval,
            status_message: "waiting for approval".into(),
            warning: new.warning,
            gates: Vec::new(),
            gates_passed: false,
            gates_due_at: None,
            rollout: None,
            created_at: now,
            started_at: None,
            completed_at: None,
            created_by: new.created_by.as_str().to_owned(),
            approved_by: String::new(),
            metadata: new.metadata,
            updated_at: now,
            revision: 0,
            event_count: 0,
        };
        if new.skip_approval {
            deployment.status = Status::PendingGates;
            deployment.bind(gates);
        }
        let record = Record::new(Action::Create, None, deployment.status, now)
            .with("from_version", deployment.from_version)
            .with("to_version", deployment.to_version)
            .with("skip_approval", new.skip_approval);
        (deployment, record)
    }

    /// Somebody approves it; its gates begin to be judged.
    ///
    /// # Errors
    /// The status forbids it.
    pub fn approve(
        &mut self,
        by: &Actor,
        comment: &str,
        gates: Gates,
        now: Timestamp,
    ) -> Result<Record, Denied> {
        let record = self.take(Verb::Approve, now)?;
        by.as_str().clone_into(&mut self.approved_by);
        self.bind(gates);
        Ok(record.because(comment))
    }

    /// Evidence for its gates came in. Leaves something on record where a condition has a verdict by
    /// it.
    ///
    /// # Errors
    /// The status forbids it.
    pub fn measure(
        &mut self,
        measurements: &[Measurement],
        now: Timestamp,
    ) -> Result<Option<Record>, Denied> {
        let mut judged = Vec::new();
        for measurement in measurements {
            let gate = self
                .gates
                .iter_mut()
                .find(|gate| gate.gate_id == measurement.gate_id);
            let Some(gate) = gate else { continue };
            if gate.take(measurement.index, &measurement.found) {
                judged.push(format!(
                    "gate '{}': {}",
                    gate.gate_name,
                    gate.conditions[measurement.index].describe()
                ));
            }
        }
        if judged.is_empty() {
            return Ok(None);
        }
        let record = self.take(Verb::Measure, now)?;
        Ok(Some(record.because(judged.join("; "))))
    }

    /// Somebody who decides a condition outside reports it. What was reported before may be said
    /// again; it changes nothing.
    ///
    /// # Errors
    /// The status forbids it, there is no such condition, it is none that is decided outside, or it
    /// was decided otherwise.
    pub fn report(
        &mut self,
        measurement: &Measurement,
        now: Timestamp,
    ) -> Result<Option<Record>, Denied> {
        next(self.status, Verb::Measure).ok_or(Refusal {
            verb: Verb::Measure,
            status: self.status,
        })?;
        let gate_id = measurement.gate_id;
        let gate = self.gates.iter().find(|gate| gate.gate_id == gate_id);
        let condition = gate.and_then(|gate| gate.conditions.get(measurement.index));
        let Some(condition) = condition else {
            return Err(Denied::NoSuchCondition {
                gate_id,
                index: measurement.index,
            });
        };
        if !condition.condition.source.is_outside() {
            return Err(Denied::NotCustom {
                condition: condition.describe(),
            });
        }
        let waits = gate.is_some_and(|gate| gate.verdict == Verdict::Waiting);
        if !waits || condition.verdict != Verdict::Waiting {
            let mut said = condition.clone();
            said.verdict = Verdict::Waiting;
            said.take(&measurement.found);
            let is_same = said.verdict == condition.verdict && said.actual == condition.actual;
            return if is_same {
                Ok(None)
            } else {
                Err(Denied::Decided {
                    condition: condition.describe(),
                })
            };
        }
        self.measure(std::slice::from_ref(measurement), now)
    }

    /// Every required gate has passed. Optional gates that were not measured stay on record as
    /// not passed.
    ///
    /// # Errors
    /// The status forbids it.
    pub fn pass_gates(&mut self, now: Timestamp) -> Result<Record, Denied> {
        let record = self.take(Verb::PassGates, now)?;
        self.give_up_on_waiting_gates();
        self.gates_passed = true;
        "its gates have passed".clone_into(&mut self.status_message);
        Ok(record.with("gates", self.gates.len()).by_system())
    }

    /// A required gate failed, or could not be measured in time.
    ///
    /// # Errors
    /// The status forbids it.
    pub fn fail_gates(&mut self, why: &str, now: Timestamp) -> Result<Record, Denied> {
        let record = self.take(Verb::FailGates, now)?;
        self.give_up_on_waiting_gates();
        why.clone_into(&mut self.status_message);
        self.completed_at = Some(now);
        Ok(record.because(why).by_system())
    }

    /// Its rollout begins, over what the environment serves at this moment.
    ///
    /// # Errors
    /// The status forbids it.
    pub fn start(&mut self, traffic: &mut Traffic, now: Timestamp) -> Result<Record, Denied> {
        let record = self.take(Verb::Start, now)?;
        self.from_version = traffic.stable_version();
        self.started_at = Some(now);
        self.rollout = Some(Rollout {
            stage: 0,
            current_percentage: 0,
            target_percentage: 100,
            last_increment_at: now,
            next_increment_at: Some(now),
        });
        // A plan that begins with all traffic is completed by the next decision, at once.
        if let Some(first) = Plan::of(&self.strategy)
            .stage(0)
            .filter(|stage| stage.percentage < 100)
        {
            self.enter(first, 1, traffic, now);
        }
        let percentage = self.percentage();
        Ok(record
            .with("from_version", self.from_version)
            .with("to_percentage", percentage)
            .by_system())
    }

    /// Its rollout takes the next step of its plan, which is not the last.
    ///
    /// # Errors
    /// The status forbids it.
    pub fn step(
        &mut self,
        to: Stage,
        traffic: &mut Traffic,
        now: Timestamp,
    ) -> Result<Record, Denied> {
        let before = self.percentage();
        let record = self.take(Verb::Step, now)?;
        let number = self.rollout.as_ref().map_or(0, |rollout| rollout.stage);
        self.enter(to, number + 1, traffic, now);
        Ok(record
            .with("from_percentage", before)
            .with("to_percentage", to.percentage)
            .by_system())
    }

    /// It receives all traffic.
    ///
    /// # Errors
    /// The status forbids it.
    pub fn complete(&mut self, traffic: &mut Traffic, now: Timestamp) -> Result<Record, Denied> {
        let before = self.percentage();
        let record = self.take(Verb::Complete, now)?;
        traffic.stable = Some(self.as_stable());
        traffic.candidate = None;
        if let Some(rollout) = &mut self.rollout {
            rollout.stage += 1;
            rollout.current_percentage = 100;
            rollout.last_increment_at = now;
            rollout.next_increment_at = None;
        }
        self.status_message = format!("version {} receives all traffic", self.to_version);
        self.completed_at = Some(now);
        Ok(record
            .with("from_percentage", before)
            .with("to_percentage", 100)
            .by_system())
    }

    /// Traffic goes back to `from_version`. Returns what is put on record, and the deployment
    /// that restores it with its own record; none where there is nothing to restore.
    ///
    /// # Errors
    /// The status forbids it, something else is served, or the version to restore never had all
    /// traffic.
    pub fn roll_back(
        &mut self,
        traffic: &mut Traffic,
        reason: &str,
        by: &Actor,
        reverse_id: Uuid,
        now: Timestamp,
    ) -> Result<RolledBack, Denied> {
        let completed = self.status == Status::Completed;
        if completed {
            self.check_is_served(traffic)?;
        }
        let before = self.percentage();
        let record = self.take(Verb::RollBack, now)?;
        self.end(reason, now);
        traffic.candidate = None;
        let record = record
            .because(reason)
            .with("from_percentage", before)
            .with("to_percentage", 0)
            .with("restored_version", self.from_version);
        if self.from_version == 0 {
            traffic.stable = None;
            return Ok(RolledBack {
                record,
                reverse: None,
            });
        }
        let (reverse, reverse_record) = self.reverse(reverse_id, by, completed, now);
        traffic.stable = Some(reverse.as_stable());
        Ok(RolledBack {
            record: record.with("rollback_deployment", reverse.id),
            reverse: Some((reverse, reverse_record)),
        })
    }

    /// Somebody cancels it; what traffic it had goes back.
    ///
    /// # Errors
    /// The status forbids it.
    pub fn cancel(
        &mut self,
        traffic: &mut Traffic,
        reason: &str,
        now: Timestamp,
    ) -> Result<Record, Denied> {
        self.withdraw(Verb::Cancel, traffic, reason, now)
    }

    /// Its rollout can't go on; what traffic it had goes back.
    ///
    /// # Errors
    /// The status forbids it.
    pub fn fail(
        &mut self,
        traffic: &mut Traffic,
        reason: &str,
        now: Timestamp,
    ) -> Result<Record, Denied> {
        Ok(self.withdraw(Verb::Fail, traffic, reason, now)?.by_system())
    }

    /// What is put on record when a verb is refused: nothing changes but the record.
    #[must_use]
    pub fn refused(&self, verb: Verb, why: &Denied, code: &'static str, now: Timestamp) -> Record {
        Record::new(Action::Verb(verb), Some(self.status), self.status, now)
            .because(why.to_string())
            .with("refused", code)
    }

    fn withdraw(
        &mut self,
        verb: Verb,
        traffic: &mut Traffic,
        reason: &str,
        now: Timestamp,
    ) -> Result<Record, Denied> {
        let before = self.percentage();
        let rolling_out = self.status == Status::InProgress;
        let mut record = self.take(verb, now)?.because(reason);
        if rolling_out {
            traffic.candidate = None;
            record = record
                .with("from_percentage", before)
                .with("to_percentage", 0);
        }
        self.end(reason, now);
        Ok(record)
    }

    /// Makes the transition, where the status allows it.
    fn take(&mut self, verb: Verb, now: Timestamp) -> Result<Record, Denied> {
        let from = self.status;
        let to = next(from, verb).ok_or(Refusal { verb, status: from })?;
        self.status = to;
        self.updated_at = now;
        Ok(Record::new(Action::Verb(verb), Some(from), to, now))
    }

    fn bind(&mut self, gates: Gates) {
        self.gates = gates.results;
        self.gates_due_at = Some(gates.due_at);
        "its gates are being judged".clone_into(&mut self.status_message);
    }

    fn give_up_on_waiting_gates(&mut self) {
        for gate in self
            .gates
            .iter_mut()
            .filter(|gate| gate.verdict == Verdict::Waiting)
        {
            gate.message = format!("not measured before the deadline: {}", gate.missing());
            gate.verdict = Verdict::Failed;
        }
    }

    fn enter(&mut self, stage: Stage, number: usize, traffic: &mut Traffic, now: Timestamp) {
        let next_at = now + stage.hold;
        if let Some(rollout) = &mut self.rollout {
            rollout.stage = number;
            rollout.current_percentage = stage.percentage;
            rollout.last_increment_at = now;
            rollout.next_increment_at = Some(next_at);
        }
        traffic.candidate = Some(Candidate {
            version: self.to_version,
            percentage: stage.percentage,
            deployment_id: self.id,
        });
        self.status_message = self.describe_stage(stage, number, next_at);
    }

    fn describe_stage(&self, stage: Stage, number: usize, next_at: Timestamp) -> String {
        let next = Plan::of(&self.strategy)
            .stage(number)
            .map_or(100, |stage| stage.percentage);
        let at = next_at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true);
        let now = match stage.percentage {
            0 => format!("version {} stands ready for preview", self.to_version),
            percent => format!(
                "version {} receives {percent} % of traffic",
                self.to_version
            ),
        };
        format!("{now}; {next} % at {at}")
    }

    fn end(&mut self, reason: &str, now: Timestamp) {
        if let Some(rollout) = &mut self.rollout {
            rollout.current_percentage = 0;
            rollout.target_percentage = 0;
            rollout.last_increment_at = now;
            rollout.next_increment_at = None;
        }
        self.status_message = if reason.is_empty() {
            self.status.as_str().to_lowercase().replace('_', " ")
        } else {
            reason.to_owned()
        };
        self.completed_at = Some(now);
    }

    fn check_is_served(&self, traffic: &Traffic) -> Result<(), Denied> {
        if let Some(candidate) = &traffic.candidate {
            return Err(Denied::RolloutUnderway(candidate.clone()));
        }
        match &traffic.stable {
            Some(stable) if stable.deployment_id == self.id => {}
            serving => {
                return Err(Denied::NotServed {
                    serving: serving.clone(),
                });
            }
        }
        if self.from_version_proven {
            Ok(())
        } else {
            Err(Denied::Unproven {
                version: self.from_version,
            })
        }
    }

    fn reverse(&self, id: Uuid, by: &Actor, proven: bool, now: Timestamp) -> (Self, Record) {
        let reverse = Self {
            id,
            prompt_id: self.prompt_id.clone(),
            environment: self.environment.clone(),
            from_version: self.to_version,
            from_version_proven: proven,
            to_version: self.from_version,
            strategy: Strategy::immediate(),
            status: Status::Completed,
            warning: String::new(),
            status_message: format!(
                "restored version {} from deployment {}",
                self.from_version, self.id
            ),
            gates: Vec::new(),
            gates_passed: false,
            gates_due_at: None,
            rollout: Some(Rollout {
                stage: 1,
                current_percentage: 100,
                target_percentage: 100,
                last_increment_at: now,
                next_increment_at: None,
            }),
            created_at: now,
            started_at: Some(now),
            completed_at: Some(now),
            created_by: by.as_str().to_owned(),
            approved_by: String::new(),
            metadata: [(ROLLBACK_FROM.to_owned(), self.id.to_string())].into(),
            updated_at: now,
            revision: 0,
            event_count: 0,
        };
        let record = Record::new(Action::Create, None, Status::Completed, now)
            .because(format!("takes back deployment {}", self.id))
            .with("from_version", reverse.from_version)
            .with("to_version", reverse.to_version)
            .with(ROLLBACK_FROM, self.id)
            .with("to_percentage", 100);
        (reverse, record)
    }

    fn as_stable(&self) -> Stable {
        Stable {
            version: self.to_version,
            deployment_id: self.id,
        }
    }

    fn percentage(&self) -> u8 {
        self.rollout
            .as_ref()
            .map_or(0, |rollout| rollout.current_percentage)
    }
}

/// The gates that a deployment is bound to, and when they must have been measured.
#[derive(Debug, Clone, PartialEq)]
pub struct Gates {
    /// The gates, each waiting.
    pub results: Vec<GateResult>,
    /// The deadline.
    pub due_at: Timestamp,
}

/// What a rollback leaves.
#[derive(Debug, Clone, PartialEq)]
pub struct RolledBack {
    /// What is put on record for the deployment that was taken back.
    pub record: Record,
    /// The deployment that restores the version before, and its record.
    pub reverse: Option<(Deployment, Record)>,
}

#[cfg(test)]
mod tests;
