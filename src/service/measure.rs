//! The evidence for the gates of a deployment: looked for where it is kept, or reported by who
//! decides it.

use std::time::Duration;

use uuid::Uuid;

use super::{Error, Service, check_text, verbs::Effect};
use crate::{
    domain::{
        audit::Caller,
        deployment::Deployment,
        gate::{Condition, ConditionType, Source},
        judgement::{Found, GateResult, Measurement},
        state::Verb,
        violation::Violations,
    },
    evidence::{Look, NoAnswer, Results},
    store::{self, Claim},
};

/// How long evidence is looked for at most, from when a deployment was claimed: well within the
/// lease, so that what is started then is started by one replica only.
pub(super) const TIME: Duration = Duration::from_secs(8);

/// What somebody reports of a condition that is decided outside.
#[derive(Debug, Clone, PartialEq)]
pub struct ConditionReport {
    /// The gate's id.
    pub gate_id: String,
    /// Which of its conditions, counted from 0.
    pub index: i32,
    /// What was measured; or else the verdict.
    pub actual: Option<f64>,
    /// The verdict, where there is no number to it.
    pub passed: Option<bool>,
    /// Why, for people.
    pub message: String,
}

impl Service {
    /// Looks for the evidence that the gates of a claimed deployment wait for.
    pub async fn measure(&self, claim: &Claim, deployment: &Deployment) -> Vec<Measurement> {
        let (mut measurements, asked) = tokio::join!(
            self.look_for_runs(claim, deployment),
            self.ask_webhooks(claim, deployment)
        );
        measurements.extend(asked);
        measurements
    }

    async fn look_for_runs(&self, claim: &Claim, deployment: &Deployment) -> Vec<Measurement> {
        let mut looked: Vec<(Source, Look)> = Vec::new();
        let mut measurements = Vec::new();
        for gate in &deployment.gates {
            for (index, condition) in gate.conditions_to_measure() {
                let source = source(gate, &condition.condition);
                if source.is_outside() {
                    continue;
                }
                let known = looked.iter().find(|(known, _)| known == source);
                let look = match known {
                    Some((_, look)) => look.clone(),
                    None => {
                        let look = self.look(claim, source, deployment).await;
                        looked.push((source.clone(), look.clone()));
                        look
                    }
                };
                measurements.push(Measurement {
                    gate_id: gate.gate_id,
                    index,
                    found: found(&condition.condition, look),
                });
            }
        }
        measurements
    }

    /// Looks for a run, and starts one where there is none.
    async fn look(&self, claim: &Claim, source: &Source, deployment: &Deployment) -> Look {
        let Some(left) = TIME.checked_sub(claim.claimed_at.elapsed()) else {
            return Look::NotYet("there was no time to look for it".into());
        };
        let look = self.sources.eval.look(source, deployment);
        let look = tokio::time::timeout(left, look)
            .await
            .unwrap_or_else(|_| Look::NotYet("the Eval service takes too long".into()));
        match (look, source) {
            (Look::Missing, Source::Dataset(dataset)) => {
                self.start_run(claim, dataset, deployment).await
            }
            (look, _) => look,
        }
    }

    /// Starts a run, while the deployment is claimed by this replica and no other.
    async fn start_run(&self, claim: &Claim, dataset: &str, deployment: &Deployment) -> Look {
        let is_held = self.store.holds(claim).await.unwrap_or(false);
        if !is_held || claim.claimed_at.elapsed() >= TIME {
            return Look::NotYet("another replica looks after it".into());
        }
        match self.sources.eval.start(dataset, deployment).await {
            Ok(run_id) => {
                tracing::info!(deployment_id = %deployment.id, %run_id, dataset, "an evaluation run was started");
                Look::NotYet(format!("run {run_id} was started"))
            }
            Err(NoAnswer::Unknown(said)) => Look::Unusable(format!(
                "no run can be started over dataset '{dataset}': {said}"
            )),
            Err(NoAnswer::Down(why)) => Look::NotYet(why),
        }
    }

    /// Takes in what somebody reports of a condition that is decided outside.
    ///
    /// # Errors
    /// Fields of the report are wrong, the deployment's gates are not being judged or have no such
    /// condition, it was decided otherwise, or the storage failed.
    pub async fn report_condition(
        &self,
        id: &str,
        report: &ConditionReport,
        caller: &Caller,
    ) -> Result<Deployment, Error> {
        check_text("message", &report.message)?;
        let measurement = resolve(report, caller)?;
        let effect: Box<Effect> = Box::new(move |tx, change, now| {
            let measurement = measurement.clone();
            store::boxed(async move {
                match change.deployment.report(&measurement, now) {
                    Ok(record) => change.records.extend(record),
                    Err(denied) => return Ok(Err(denied)),
                }
                change.settle(tx, now).await.map(Ok)
            })
        });
        let stored = self.verb(id, Verb::Measure, caller, effect).await?;
        Ok(stored.deployment)
    }
}

/// The run or dataset that a condition is measured by.
fn source<'g>(gate: &'g GateResult, condition: &'g Condition) -> &'g Source {
    if condition.source != Source::SameGate {
        return &condition.source;
    }
    let others = gate.conditions.iter().map(|other| &other.condition.source);
    let mut named = others.filter(|source| matches!(source, Source::Run(_) | Source::Dataset(_)));
    named.next().unwrap_or(&condition.source)
}

fn found(condition: &Condition, look: Look) -> Found {
    let Results {
        run_id,
        score,
        latency_ms,
        cost_usd,
    } = match look {
        Look::Ready(results) => results,
        Look::NotYet(why) => return Found::Nothing(why),
        Look::Unusable(why) => return Found::Unusable(why),
        Look::Missing => return Found::Nothing("there is no evaluation run".into()),
    };
    let value = match condition.kind {
        ConditionType::EvalScore => Some(score),
        ConditionType::Latency => Some(latency_ms),
        ConditionType::Cost => cost_usd,
        ConditionType::Custom => None,
    };
    match value {
        Some(value) => Found::Measure(value, format!("run {run_id}")),
        None => Found::Unusable(format!("run {run_id} has run no example")),
    }
}

fn resolve(report: &ConditionReport, caller: &Caller) -> Result<Measurement, Error> {
    let mut violations = Violations::default();
    let gate_id = Uuid::try_parse(&report.gate_id).ok();
    if gate_id.is_none() {
        let why = if report.gate_id.is_empty() {
            "is required: the gate's id"
        } else {
            "is no id of a gate"
        };
        violations.add("gate_id", why);
    }
    let index = usize::try_from(report.index).ok();
    if index.is_none() {
        let why = format!("is {}; conditions are counted from 0", report.index);
        violations.add("index", why);
    }
    let note = if report.message.is_empty() {
        format!("reported by {}", caller.actor.as_str())
    } else {
        format!("reported by {}: {}", caller.actor.as_str(), report.message)
    };
    let found = match (report.actual, report.passed) {
        (Some(actual), None) if actual.is_finite() => Some(Found::Measure(actual, note)),
        (Some(actual), None) => {
            violations.add("actual", format!("is {actual}; must be a finite number"));
            None
        }
        (None, Some(passed)) => Some(Found::Verdict(passed, note)),
        (None, None) => {
            violations.add("actual", "is required where passed is not given");
            None
        }
        (Some(_), Some(_)) => {
            violations.add("actual", "and passed exclude each other; give one");
            None
        }
    };
    let measurement = gate_id.zip(index).zip(found);
    let measurement = measurement.map(|((gate_id, index), found)| Measurement {
        gate_id,
        index,
        found,
    });
    violations.finish(measurement).map_err(Error::Invalid)
}
