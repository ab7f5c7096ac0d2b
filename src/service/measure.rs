//! The evidence for the gates of a deployment: looked for where it is kept, or reported by who
//! decides it.

use std::time::Duration;

use uuid::Uuid;

use super::{
    Error, Service, check_text,
    once::{Once, Reply},
    verbs::Effect,
};
use crate::{
    domain::{
        audit::Caller,
        deployment::Deployment,
        gate::{Condition, ConditionType, Source},
        judgement::{Found, GateResult, Measurement},
        paired,
        state::Verb,
        violation::Violations,
    },
    evidence::{Look, NoAnswer, Results, Wanted},
    faults::Point,
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

/// What looking for the evidence of a deployment has come to.
#[derive(Debug, Clone)]
pub(super) struct Measured {
    /// The version that was served then: what the new one was compared with.
    pub(super) from_version: i32,
    pub(super) measurements: Vec<Measurement>,
}

impl Service {
    /// Looks for the evidence that the gates of a claimed deployment wait for.
    pub(super) async fn measure(
        &self,
        claim: &Claim,
        deployment: &Deployment,
    ) -> Result<Measured, store::Error> {
        self.store.faults().at(Point::EvidenceBefore).await?;
        let (mut measurements, asked) = tokio::join!(
            self.look_for_runs(claim, deployment),
            self.ask_webhooks(claim, deployment)
        );
        measurements.extend(asked);
        self.store.faults().at(Point::EvidenceAfter).await?;
        Ok(Measured {
            from_version: deployment.from_version,
            measurements,
        })
    }

    async fn look_for_runs(&self, claim: &Claim, deployment: &Deployment) -> Vec<Measurement> {
        let mut looking = Looking {
            service: self,
            claim,
            deployment,
            looked: Vec::new(),
            started: Vec::new(),
        };
        let mut measurements = Vec::new();
        for gate in &deployment.gates {
            for (index, condition) in gate.conditions_to_measure() {
                let condition = &condition.condition;
                let source = source(gate, condition);
                if source.is_outside() {
                    continue;
                }
                let found = match nothing_to_compare(condition, deployment) {
                    Some(note) => Found::Verdict(true, note),
                    None => found(condition, looking.at(&source).await),
                };
                measurements.push(Measurement {
                    gate_id: gate.gate_id,
                    index,
                    found,
                });
            }
        }
        measurements
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
        once: Option<Once<Deployment>>,
    ) -> Result<Reply<Deployment>, Error> {
        check_text("message", &report.message)?;
        let measurement = resolve(report, caller)?;
        let timeout = self.gate_timeout;
        let effect: Box<Effect> = Box::new(move |tx, change, now| {
            let measurement = measurement.clone();
            store::boxed(async move {
                match change.deployment.report(&measurement, now) {
                    Ok(record) => change.records.extend(record),
                    Err(denied) => return Ok(Err(denied)),
                }
                change.settle(tx, timeout, now).await.map(Ok)
            })
        });
        self.verb(id, Verb::Measure, caller, effect, once).await
    }
}

/// Looking for the evidence of one deployment, once for each source.
struct Looking<'a> {
    service: &'a Service,
    claim: &'a Claim,
    deployment: &'a Deployment,
    looked: Vec<(Source, Look)>,
    /// The names of the runs that were started: they may not be listed at once.
    started: Vec<String>,
}

impl Looking<'_> {
    async fn at(&mut self, source: &Source) -> Look {
        if let Some((_, look)) = self.looked.iter().find(|(known, _)| known == source) {
            return look.clone();
        }
        let look = self.look(source).await;
        self.looked.push((source.clone(), look.clone()));
        look
    }

    /// Looks for a run, and starts one where there is none.
    async fn look(&mut self, source: &Source) -> Look {
        let Some(left) = TIME.checked_sub(self.claim.claimed_at.elapsed()) else {
            return Look::NotYet("there was no time to look for it".into());
        };
        let look = self.service.sources.eval.look(source, self.deployment);
        let look = tokio::time::timeout(left, look)
            .await
            .unwrap_or_else(|_| Look::NotYet("the Eval service takes too long".into()));
        match look {
            Look::Missing(wanted) => self.start_run(&wanted).await,
            Look::Ready(_) | Look::Both(_) | Look::NotYet(_) | Look::Unusable(_) => look,
        }
    }

    /// Starts a run, while the deployment is claimed by this replica and no other.
    async fn start_run(&mut self, wanted: &Wanted) -> Look {
        let (service, claim, deployment) = (self.service, self.claim, self.deployment);
        let (dataset, name) = (wanted.dataset(), wanted.name(deployment));
        if self.started.contains(&name) {
            return Look::NotYet(format!("run '{name}' was started"));
        }
        let is_held = service.store.holds(claim).await.unwrap_or(false);
        if !is_held || claim.claimed_at.elapsed() >= TIME {
            return Look::NotYet("another replica looks after it".into());
        }
        self.started.push(name);
        match service.sources.eval.start(wanted, deployment).await {
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
}

/// Why there is nothing that a new version can be worse than, where there is nothing.
fn nothing_to_compare(condition: &Condition, deployment: &Deployment) -> Option<String> {
    let compares = matches!(condition.source, Source::BothVersions(_));
    let Deployment {
        from_version,
        to_version,
        ..
    } = deployment;
    if !compares {
        None
    } else if *from_version == 0 {
        Some("the environment serves no version yet, so there is nothing to be worse than".into())
    } else if from_version == to_version {
        Some(format!(
            "the environment serves this version, {to_version}, already"
        ))
    } else {
        None
    }
}

/// The run or dataset that a condition is measured by.
fn source(gate: &GateResult, condition: &Condition) -> Source {
    if condition.source != Source::SameGate {
        return condition.source.clone();
    }
    let mut others = gate.conditions.iter().map(|other| &other.condition.source);
    let named = others.find(|source| source.names_a_run());
    match named.unwrap_or(&condition.source) {
        Source::BothVersions(dataset) => Source::Dataset(dataset.clone()),
        source @ (Source::Run(_)
        | Source::Dataset(_)
        | Source::SameGate
        | Source::Outside
        | Source::Webhook(_)) => source.clone(),
    }
}

fn found(condition: &Condition, look: Look) -> Found {
    match look {
        Look::Ready(results) => measured(condition.kind, &results),
        Look::Both(both) => match paired::compare(condition.kind, &both, condition.threshold) {
            Ok(comparison) => Found::Measure(comparison.bound, comparison.describe(&both)),
            Err(why) => Found::Unusable(why),
        },
        Look::NotYet(why) => Found::Nothing(why),
        Look::Unusable(why) => Found::Unusable(why),
        Look::Missing(_) => Found::Nothing("there is no evaluation run".into()),
    }
}

fn measured(kind: ConditionType, results: &Results) -> Found {
    let Results {
        run_id,
        score,
        latency_ms,
        cost_usd,
    } = results;
    let value = match kind {
        ConditionType::EvalScore => Some(*score),
        ConditionType::Latency => Some(*latency_ms),
        ConditionType::Cost => *cost_usd,
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
