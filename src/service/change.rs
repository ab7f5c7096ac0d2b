//! A change of a deployment within its transaction: made by what is decided, until there is nothing
//! to do before a later moment, and stored as one.

use std::time::Duration;

use uuid::Uuid;

use super::measure::Measured;
use crate::{
    domain::{
        Timestamp,
        analysis::{Analysis, Check},
        audit::{Action, Caller, Record},
        decide::{self, Ahead, Decision, decide},
        deployment::Deployment,
        ids::{Actor, PromptId},
        judgement::GateResult,
        lifecycle::{Denied, Gates},
        outcome::Cohort,
        state::Verb,
        traffic::Traffic,
    },
    faults::Bug,
    store::{self, Claim, Tx},
};

/// Most transitions in a row; more would be a loop. (Gates, start, and completion are three.)
const TRANSITIONS_MAX: usize = 8;

/// A deployment within a transaction: what it was, what it becomes, and what is stored with it.
pub(super) struct Change {
    before: Option<Deployment>,
    served: Traffic,
    pub(super) deployment: Deployment,
    pub(super) traffic: Traffic,
    pub(super) records: Vec<Record>,
    /// A second deployment, with what is put on record for it.
    pub(super) made: Option<(Deployment, Record)>,
    /// When the reconciler must look at it again; none for never.
    due_at: Option<Timestamp>,
    /// Whether it was decided by live evidence, which is then kept with it.
    has_new_evidence: bool,
}

/// What was stored.
#[derive(Clone)]
pub(super) struct Stored {
    pub(super) deployment: Deployment,
    pub(super) made: Option<Deployment>,
    pub(super) records: Vec<Record>,
    /// Where it has changed.
    pub(super) traffic: Option<Traffic>,
}

impl Change {
    /// Of a deployment that exists.
    pub(super) fn of(deployment: Deployment, traffic: Traffic) -> Self {
        Self {
            before: Some(deployment.clone()),
            ..Self::new(deployment, Vec::new(), traffic)
        }
    }

    /// Of a deployment that comes into being.
    pub(super) fn new(deployment: Deployment, records: Vec<Record>, traffic: Traffic) -> Self {
        Self {
            before: None,
            served: traffic.clone(),
            deployment,
            traffic,
            records,
            made: None,
            due_at: None,
            has_new_evidence: false,
        }
    }

    /// Takes in evidence for its gates, where they are still being judged, beside the version that
    /// the evidence is about.
    pub(super) fn measure(
        &mut self,
        measured: &Measured,
        now: Timestamp,
    ) -> Result<(), store::Error> {
        let is_of_this = measured.from_version == self.deployment.from_version;
        if !is_of_this || !self.deployment.needs_evidence() {
            return Ok(());
        }
        let record = self
            .deployment
            .measure(&measured.measurements, now)
            .map_err(|denied| impossible(self.deployment.id, &denied))?;
        self.records.extend(record.map(Record::by_system));
        Ok(())
    }

    /// Has its gates compare it anew where what they compare it with is no longer served.
    pub(super) fn compare_anew(&mut self, gate_timeout: Duration, now: Timestamp) {
        let due_at = now + gate_timeout;
        let record = self.deployment.compare_anew(&self.traffic, due_at, now);
        self.records.extend(record);
    }

    /// Makes every transition that is due at `now`. Gates that begin to be judged anew have
    /// `gate_timeout`.
    pub(super) async fn settle(
        &mut self,
        tx: &Tx,
        gate_timeout: Duration,
        now: Timestamp,
    ) -> Result<(), store::Error> {
        self.compare_anew(gate_timeout, now);
        for _ in 0..TRANSITIONS_MAX {
            let ahead = if self.deployment.is_in_line() {
                let ahead = tx.ahead_of(&self.deployment).await?;
                ahead.or_else(|| Ahead::by_traffic(&self.deployment, &self.traffic))
            } else {
                None
            };
            let analysis = analyse(tx, &self.deployment, now).await?;
            let decision = decide(&self.deployment, ahead.as_ref(), analysis.as_ref(), now);
            let record = self
                .act(decision, now)
                .map_err(|denied| impossible(self.deployment.id, &denied))?;
            let Some(record) = record else { return Ok(()) };
            let is_doubled =
                record.action == Action::Verb(Verb::Step) && tx.faults().has(Bug::DoublesStep);
            let checks = analysis.map(|analysis| analysis.checks).unwrap_or_default();
            let has_evidence = checks.iter().any(Check::has_seen_anything);
            self.has_new_evidence |= has_evidence;
            // A rollout that nobody reports anything of and that goes by time has no numbers.
            let on_record = has_evidence || self.deployment.strategy.auto_rollback;
            let checks = checks.iter().filter(|_| on_record);
            let record = checks.fold(record, |record, check| {
                record.with(check.subject.detail(), check.on_record())
            });
            self.records.extend(is_doubled.then(|| record.clone()));
            self.records.push(record);
        }
        let why = format!("deployment {} does not settle", self.deployment.id);
        Err(store::Error::Impossible(why))
    }

    /// Does what is decided; returns no record where there is nothing to do now.
    fn act(&mut self, decision: Decision, now: Timestamp) -> Result<Option<Record>, Denied> {
        let (deployment, traffic) = (&mut self.deployment, &mut self.traffic);
        match decision {
            Decision::Rest => {
                self.due_at = None;
                Ok(None)
            }
            Decision::Wait { until, why } => {
                if let Some(why) = why {
                    deployment.status_message = why;
                }
                self.due_at = Some(until);
                Ok(None)
            }
            Decision::PassGates => deployment.pass_gates(now).map(Some),
            Decision::FailGates { why } => deployment.fail_gates(&why, now).map(Some),
            Decision::Start => deployment.start(traffic, now).map(Some),
            Decision::Step(stage) => deployment.step(stage, traffic, now).map(Some),
            Decision::Complete => deployment.complete(traffic, now).map(Some),
            Decision::Fail { why } => deployment.fail(traffic, &why, now).map(Some),
            Decision::RollBack { why } => {
                let (by, id) = (Actor::system(), Uuid::now_v7());
                let back = deployment.roll_back(traffic, &why, &by, id, now)?;
                self.made = back.reverse;
                Ok(Some(back.record.by_system()))
            }
        }
    }

    /// Stores all of it. `claim` is the reconciler's, which fences it; a caller's change takes the
    /// deployment from whoever has claimed it.
    pub(super) async fn store(
        self,
        tx: &Tx,
        caller: &Caller,
        claim: Option<&Claim>,
        now: Timestamp,
    ) -> Result<Stored, store::Error> {
        let Self {
            before,
            served,
            mut deployment,
            mut traffic,
            records,
            made,
            due_at,
            has_new_evidence,
        } = self;
        let first = deployment.event_count + 1;
        deployment.event_count += i64::try_from(records.len()).unwrap_or(i64::MAX);
        match &before {
            None => tx.insert_deployment(&deployment).await?,
            Some(before) if *before == deployment => {}
            Some(before) => tx.update_deployment(before, &deployment).await?,
        }
        if !records.is_empty() {
            tx.append(&deployment, first, records.clone(), caller)
                .await?;
        }
        if let Some((made, record)) = &made {
            insert_made(tx, made, record, caller).await?;
        }
        match claim {
            Some(claim) => tx.finish(claim, due_at, 0).await?,
            None if before.is_none() && due_at.is_none() => {}
            None => tx.schedule(&deployment, due_at).await?,
        }
        if before.is_some() && deployment.status.is_settled() {
            tx.call_line(&deployment.prompt_id, &deployment.environment, now)
                .await?;
        }
        let has_shifted = !traffic.serves_the_same_as(&served);
        if has_new_evidence && let Some(observed) = tx.observed(&deployment).await? {
            tx.put_metrics(deployment.id, &observed, now).await?;
        }
        if has_shifted {
            tx.put_traffic(&mut traffic, now).await?;
            if traffic.candidate.is_some() {
                let limits = deployment.strategy.analysis.limits;
                tx.open_cohort(&Cohort::of(&traffic, now, now, limits))
                    .await?;
            }
        }
        let made = made.map(|(made, _)| made);
        Ok(Stored {
            deployment,
            made,
            records,
            traffic: has_shifted.then_some(traffic),
        })
    }
}

/// What live evidence says of a rollout; none where there is nothing to judge.
pub(super) async fn analyse(
    tx: &Tx,
    deployment: &Deployment,
    now: Timestamp,
) -> Result<Option<Analysis>, store::Error> {
    if !deployment.is_judged_live() {
        return Ok(None);
    }
    let evidence = tx.evidence(deployment).await?;
    let strategy = &deployment.strategy;
    Ok(evidence.map(|evidence| decide::analyse(strategy, &evidence, now)))
}

async fn insert_made(
    tx: &Tx,
    made: &Deployment,
    record: &Record,
    caller: &Caller,
) -> Result<(), store::Error> {
    let counted = Deployment {
        event_count: 1,
        ..made.clone()
    };
    tx.insert_deployment(&counted).await?;
    tx.append(&counted, 1, vec![record.clone()], caller).await
}

/// A decision that the machine forbids would be a bug; it must change nothing.
fn impossible(id: Uuid, denied: &Denied) -> store::Error {
    let why = format!("deployment {id}: decided what its status forbids: {denied}");
    store::Error::Impossible(why)
}

/// The gates that a deployment of the prompt is bound to when they begin to be judged.
pub(super) async fn gates_now(
    tx: &Tx,
    prompt_id: &PromptId,
    timeout: Duration,
    now: Timestamp,
) -> Result<Gates, store::Error> {
    let gates = tx.gates(prompt_id).await?;
    Ok(Gates {
        results: gates.into_iter().map(GateResult::waiting).collect(),
        due_at: now + timeout,
    })
}
