//! What is served in the end: what the events of all deployments of a prompt come to.

use std::collections::BTreeMap;

use super::{
    Violation,
    stored::{Deployment, Event, Stored},
};

/// What is wrong with the traffic table.
pub(crate) fn check(stored: &Stored) -> Vec<Violation> {
    let mut by_prompt: BTreeMap<&str, Vec<(&Event, &Deployment)>> = BTreeMap::new();
    for deployment in &stored.deployments {
        let of_prompt = by_prompt.entry(&deployment.prompt_id).or_default();
        of_prompt.extend(deployment.events.iter().map(|event| (event, deployment)));
    }
    let mut wrong = Vec::new();
    for traffic in &stored.traffic {
        let mut events = by_prompt
            .remove(traffic.prompt_id.as_str())
            .unwrap_or_default();
        events.sort_by_key(|(event, _)| event.at);
        let mut told = Told::default();
        for (event, deployment) in events {
            told.take(event, deployment, &mut wrong);
        }
        let (prompt, stable) = (&traffic.prompt_id, traffic.stable);
        if told.stable != stable.unwrap_or_default() {
            let by_events = told.stable;
            let what = format!("{prompt} serves {stable:?}, by the events it is {by_events}");
            wrong.push(Violation::of("I3", what));
        }
        if let Some(candidate) = traffic.candidate {
            let what = format!("{prompt} still shifts traffic, and nothing is on its way");
            wrong.push(Violation::of("I3", what).about(&candidate.to_string()));
        }
    }
    wrong
}

/// What the events say so far.
#[derive(Debug, Default)]
struct Told {
    /// The version that is served; 0 for none.
    stable: i32,
    /// How many rollouts are on their way.
    rolling: usize,
}

impl Told {
    fn take(&mut self, event: &Event, deployment: &Deployment, wrong: &mut Vec<Violation>) {
        if event.is_refusal() {
            return;
        }
        let id = deployment.id.to_string();
        let was_rolling = event.from.as_deref() == Some("IN_PROGRESS");
        match event.action.as_str() {
            "start" => {
                let from = event.number("from_version");
                if from != Some(self.stable) {
                    let stable = self.stable;
                    let what = format!("it replaces {from:?}, and {stable} was served");
                    wrong.push(Violation::of("I3", what).about(&id));
                }
                if self.rolling > 0 {
                    let what = "it started while another one was on its way".to_owned();
                    wrong.push(Violation::of("I3", what).about(&id));
                }
                self.rolling += 1;
            }
            "complete" => {
                self.stable = deployment.to_version;
                self.rolling = self.rolling.saturating_sub(1);
            }
            "roll_back" => {
                if let Some(restored) = event.number("restored_version") {
                    self.stable = restored;
                }
                if was_rolling {
                    self.rolling = self.rolling.saturating_sub(1);
                }
            }
            "cancel" | "fail" if was_rolling => self.rolling = self.rolling.saturating_sub(1),
            _ => {}
        }
    }
}
