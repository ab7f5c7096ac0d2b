//! What clients were told, against what is stored: nothing acknowledged is missing, nothing refused
//! was done, and nothing was done twice.

use std::collections::{BTreeMap, BTreeSet};

use tonic::Code;

use super::{
    Violation,
    stored::{self, Deployment, Stored},
};
use crate::clients::{Answer, Call, Done, Op};

/// What is wrong with what clients were told.
pub(crate) fn check(stored: &Stored, ops: &[Op]) -> Vec<Violation> {
    let effects = Effects::of(stored);
    let mut wrong = Vec::new();
    for op in ops {
        if let Answer::Wrong(what) = &op.answer {
            let told = format!(
                "{} was answered what never should be: {what}",
                name(&op.call)
            );
            wrong.push(Violation::of("I5", told));
        }
        if let Some(action) = op.call.action() {
            wrong.extend(effects.check(op, action));
        }
    }
    wrong.extend(effects.nobody_asked_for(ops));
    wrong.extend(stored.deployments.iter().flat_map(refused_after_done));
    wrong
}

/// What was done under a key is given again to whoever sends it again, and never refused.
fn refused_after_done(deployment: &Deployment) -> Vec<Violation> {
    let mut done = BTreeSet::new();
    let mut wrong = Vec::new();
    for event in &deployment.events {
        let (action, key) = (event.action.as_str(), event.request_id.as_str());
        if !event.is_refusal() {
            done.insert((action, key));
        } else if done.contains(&(action, key)) {
            let what = format!("{action} under {key} was refused after it was done");
            wrong.push(Violation::of("I5", what).about(&deployment.id.to_string()));
        }
    }
    wrong
}

/// Whether a refusal may stand beside the effect: where the request was sent several times, a copy of
/// it that was late may find that the state allows it by now. A refusal is not kept under the key.
fn has_come_late(op: &Op, deployment: &Deployment) -> bool {
    let key = op.call.key();
    let mut of_key = deployment
        .events
        .iter()
        .filter(|event| event.request_id == key);
    1 < op.sent && of_key.next().is_some_and(stored::Event::is_refusal)
}

/// An evaluation run has a name that says what it is for, and is started once.
pub(crate) fn runs(names: &[String]) -> Vec<Violation> {
    let mut count: BTreeMap<&str, usize> = BTreeMap::new();
    for name in names {
        *count.entry(name).or_default() += 1;
    }
    let twice = count.into_iter().filter(|(_, count)| *count > 1);
    twice
        .map(|(name, count)| {
            let what = format!("the evaluation run '{name}' was started {count} times");
            Violation::of("I5", what)
        })
        .collect()
}

/// How many outcomes were acknowledged, and how many were sent at all. Each is reported by one call
/// alone, and again when all is over.
pub(crate) fn outcomes(ops: &[Op]) -> (i64, i64) {
    let (mut acknowledged, mut sent) = (BTreeSet::new(), BTreeSet::new());
    for op in ops {
        let Call::Report(request) = &op.call else {
            continue;
        };
        let ids = request.outcomes.iter().map(|outcome| outcome.id.as_str());
        sent.extend(ids.clone());
        if let Answer::Done(Done::Reported(answer)) = &op.answer {
            let is_refused = |index: usize| {
                let mut refused = answer.refused.iter();
                refused.any(|refused| usize::try_from(refused.index) == Ok(index))
            };
            let taken = ids.enumerate().filter(|(index, _)| !is_refused(*index));
            acknowledged.extend(taken.map(|(_, id)| id));
        }
    }
    let count = |ids: BTreeSet<&str>| i64::try_from(ids.len()).unwrap_or(i64::MAX);
    (count(acknowledged), count(sent))
}

/// What was done, by the key that it was asked for under.
struct Effects<'a> {
    /// By action and key: the deployments it was done to.
    done: BTreeMap<(&'a str, &'a str), Vec<&'a Deployment>>,
    /// By the key in their metadata.
    created: BTreeMap<&'a str, Vec<&'a Deployment>>,
    by_id: BTreeMap<String, &'a Deployment>,
}

impl<'a> Effects<'a> {
    fn of(stored: &'a Stored) -> Self {
        let mut effects = Self {
            done: BTreeMap::new(),
            created: BTreeMap::new(),
            by_id: BTreeMap::new(),
        };
        for deployment in &stored.deployments {
            effects.by_id.insert(deployment.id.to_string(), deployment);
            if let Some(key) = &deployment.key {
                effects.created.entry(key).or_default().push(deployment);
            }
            for event in deployment.events.iter().filter(|event| !event.is_refusal()) {
                let what = (event.action.as_str(), event.request_id.as_str());
                effects.done.entry(what).or_default().push(deployment);
            }
        }
        effects
    }

    fn check(&self, op: &Op, action: &'static str) -> Option<Violation> {
        let key = op.call.key();
        let none = Vec::new();
        let done = if action == "create" {
            self.created.get(key)
        } else {
            self.done.get(&(action, key))
        };
        let done = done.unwrap_or(&none);
        let (promise, what) = match (&op.answer, done.as_slice()) {
            (_, [_, _, ..]) => ("I5", format!("was done {} times", done.len())),
            (Answer::Done(_), []) => ("I2", "was acknowledged, and is not there".to_owned()),
            (Answer::Refused(..), [deployment]) if has_come_late(op, deployment) => return None,
            (Answer::Refused(..), [_]) => ("I2", "was refused, and was done".to_owned()),
            (Answer::Done(Done::Deployment(told, back)), [deployment]) => {
                let is_there = deployment.id.to_string() == told.id
                    && deployment.to_version == told.to_version
                    && deployment.prompt_id == told.prompt_id;
                let missing = back
                    .as_ref()
                    .is_some_and(|back| !self.by_id.contains_key(&back.id));
                if is_there && !missing {
                    return None;
                }
                (
                    "I2",
                    format!("was answered {}, and is {}", told.id, deployment.id),
                )
            }
            (Answer::Done(Done::Gate(_) | Done::Reported(_)), [_])
            | (Answer::Refused(..), [])
            | (Answer::Wrong(_) | Answer::Unknown(_), [] | [_]) => return None,
        };
        let (sent, began, ended) = (op.sent, op.began, op.ended);
        let told = format!(
            "{} under {key} of client {} (sent {sent} times, {began:?} to {ended:?}) {what}; \
             it was answered {}",
            name(&op.call),
            op.client,
            short(&op.answer)
        );
        let about = done.first().map(|deployment| deployment.id.to_string());
        let violation = Violation::of(promise, told);
        Some(match about {
            Some(id) => violation.about(&id),
            None => violation,
        })
    }

    /// Every deployment was asked for by somebody, or was made by taking one back.
    fn nobody_asked_for(&self, ops: &[Op]) -> Vec<Violation> {
        let asked: BTreeSet<&str> = ops.iter().map(|op| op.call.key()).collect();
        let created = self.created.iter();
        let unasked = created.filter(|(key, _)| !asked.contains(*key));
        unasked
            .flat_map(|(_, deployments)| deployments)
            .map(|deployment| {
                let what = "nobody has asked for it".to_owned();
                Violation::of("I5", what).about(&deployment.id.to_string())
            })
            .collect()
    }
}

fn name(call: &Call) -> &'static str {
    match call {
        Call::Create(_) => "CreateDeployment",
        Call::CreateGate(_) => "CreateQualityGate",
        Call::Approve(_) => "ApproveDeployment",
        Call::RollBack(_) => "RollbackDeployment",
        Call::Cancel(_) => "CancelDeployment",
        Call::Report(_) => "ReportOutcomes",
    }
}

fn short(answer: &Answer) -> String {
    match answer {
        Answer::Done(Done::Deployment(told, _)) => format!("deployment {}", told.id),
        Answer::Done(_) => "that it was done".to_owned(),
        Answer::Refused(code, why) => format!("{code:?}: {why}", code = *code as Code),
        Answer::Wrong(why) | Answer::Unknown(why) => why.clone(),
    }
}
