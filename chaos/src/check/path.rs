//! The events of one deployment: one legal path. The rules are the contract's, spelled here once
//! more, so that a mistake of the service's own table shows.

use super::{
    Violation,
    stored::{Deployment, Event},
};
use crate::clients::passes_gates;

/// How long each step is held, in microseconds: every rollout of the run has one second.
const HELD: i64 = 1_000_000;

/// What may happen in which status, and what status follows.
const LEGAL: [(&str, &str, &str); 13] = [
    ("approve", "PENDING_APPROVAL", "PENDING_GATES"),
    ("measure", "PENDING_GATES", "PENDING_GATES"),
    ("pass_gates", "PENDING_GATES", "PENDING_GATES"),
    ("fail_gates", "PENDING_GATES", "GATES_FAILED"),
    ("start", "PENDING_GATES", "IN_PROGRESS"),
    ("step", "IN_PROGRESS", "IN_PROGRESS"),
    ("complete", "IN_PROGRESS", "COMPLETED"),
    ("fail", "IN_PROGRESS", "FAILED"),
    ("roll_back", "IN_PROGRESS", "ROLLED_BACK"),
    ("roll_back", "COMPLETED", "ROLLED_BACK"),
    ("cancel", "PENDING_APPROVAL", "CANCELLED"),
    ("cancel", "PENDING_GATES", "CANCELLED"),
    ("cancel", "IN_PROGRESS", "CANCELLED"),
];

/// In which status a deployment may come into being: one that the service makes to take another one
/// back has happened already.
const FIRST: [&str; 3] = ["PENDING_APPROVAL", "PENDING_GATES", "COMPLETED"];

/// What is wrong with the path of a deployment.
pub(crate) fn check(deployment: &Deployment) -> Vec<Violation> {
    let mut path = Path {
        status: None,
        share: None,
        held_since: None,
        has_passed: false,
        is_approved: false,
        wrong: Vec::new(),
    };
    for (event, number) in deployment.events.iter().zip(1..) {
        if event.sequence != number {
            let found = event.sequence;
            path.wrong
                .push(("I1", format!("event {number} is numbered {found}")));
            break;
        }
        path.take(event, deployment);
    }
    let count = i64::try_from(deployment.events.len()).unwrap_or(i64::MAX);
    if count != deployment.event_count {
        let counted = deployment.event_count;
        path.wrong.push((
            "I1",
            format!("{count} events are stored, {counted} are counted"),
        ));
    }
    if path.status != Some(&deployment.status) {
        let (status, last) = (&deployment.status, path.status);
        path.wrong.push((
            "I1",
            format!("it is {status}, and its events end in {last:?}"),
        ));
    }
    let id = deployment.id.to_string();
    let of_this = |(promise, what)| Violation::of(promise, what).about(&id);
    path.wrong.into_iter().map(of_this).collect()
}

struct Path<'a> {
    status: Option<&'a String>,
    /// The share of traffic, once it has started.
    share: Option<i32>,
    held_since: Option<i64>,
    has_passed: bool,
    is_approved: bool,
    wrong: Vec<(&'static str, String)>,
}

impl<'a> Path<'a> {
    fn take(&mut self, event: &'a Event, deployment: &Deployment) {
        let Event {
            sequence,
            action,
            from,
            to,
            ..
        } = event;
        if from.as_ref() != self.status {
            let at = self.status;
            self.wrong.push((
                "I1",
                format!("event {sequence} goes on from {from:?}, it was {at:?}"),
            ));
        }
        self.status = Some(to);
        if event.is_refusal() {
            if from.as_ref() != Some(to) {
                self.wrong.push((
                    "I1",
                    format!("event {sequence} was refused and changed something"),
                ));
            }
            return;
        }
        let is_legal = match from {
            None => action == "create" && FIRST.contains(&to.as_str()),
            Some(from) => LEGAL.contains(&(action.as_str(), from.as_str(), to.as_str())),
        };
        if !is_legal {
            self.wrong.push((
                "I1",
                format!("event {sequence}: {action} from {from:?} to {to}"),
            ));
        }
        match action.as_str() {
            "create" => self.is_approved = to != "PENDING_APPROVAL",
            "approve" => self.is_approved = true,
            "pass_gates" => self.pass(event, deployment),
            "start" | "step" | "complete" => self.shift(event, deployment),
            "roll_back" | "cancel" | "fail" => self.go_back(event),
            _ => {}
        }
    }

    fn pass(&mut self, event: &Event, deployment: &Deployment) {
        self.has_passed = true;
        let is_gated = event.number("gates").is_some_and(|gates| gates > 0);
        if is_gated && !passes_gates(deployment.to_version) {
            let version = deployment.to_version;
            self.wrong.push((
                "I4",
                format!("version {version} passed a gate that it fails"),
            ));
        }
    }

    /// The share grows to the next one of the plan, no earlier than the one before was held.
    fn shift(&mut self, event: &Event, deployment: &Deployment) {
        if !self.has_passed || !self.is_approved {
            self.wrong
                .push(("I4", "it started past its gates or its approval".to_owned()));
        }
        let shares = deployment.strategy.shares();
        let next = match self.share {
            None => shares.first(),
            Some(share) => shares.iter().find(|next| **next > share),
        };
        let to = event.number("to_percentage");
        let from = event.number("from_percentage");
        let is_next = to.as_ref() == next && (self.share.is_none() || from == self.share);
        if !is_next {
            let (sequence, share) = (event.sequence, self.share);
            self.wrong.push((
                "I1",
                format!("event {sequence} goes from {from:?} to {to:?} %, it was {share:?} of {shares:?}"),
            ));
        }
        let held = self.held_since.map(|since| event.at - since);
        if held.is_some_and(|held| held < HELD) && deployment.strategy.kind != "IMMEDIATE" {
            let sequence = event.sequence;
            self.wrong.push((
                "I1",
                format!("event {sequence} came after {held:?} µs, too early"),
            ));
        }
        self.share = to;
        self.held_since = Some(event.at);
    }

    /// All traffic goes back from where it was.
    fn go_back(&mut self, event: &Event) {
        let Some(share) = self.share else { return };
        let (from, to) = (
            event.number("from_percentage"),
            event.number("to_percentage"),
        );
        if (from, to) != (Some(share), Some(0)) {
            let sequence = event.sequence;
            self.wrong.push((
                "I3",
                format!("event {sequence} takes back from {from:?} to {to:?} %, it was {share}"),
            ));
        }
    }
}
