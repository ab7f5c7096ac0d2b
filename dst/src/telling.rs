//! What the record of all deployments tells, from its beginning: each of them goes one legal path
//! by its plan, and what is stored is what that comes to.
//!
//! The rules are written here once more, from the contract and not from `domain`, so that a slip
//! there shows.

use std::collections::BTreeMap;

use delos_deploy::domain::{
    Timestamp,
    audit::Event,
    deployment::ROLLBACK_FROM,
    state::Status,
    strategy::{StrategyRequest, StrategyType},
};
use uuid::Uuid;

use crate::{
    check::State,
    load::{Load, Wanted},
};

/// Which status may become which, by what is done.
const LEGAL: &[(&str, &str, &str)] = &[
    ("PENDING_APPROVAL", "approve", "PENDING_GATES"),
    ("PENDING_APPROVAL", "cancel", "CANCELLED"),
    ("PENDING_GATES", "measure", "PENDING_GATES"),
    ("PENDING_GATES", "pass_gates", "PENDING_GATES"),
    ("PENDING_GATES", "fail_gates", "GATES_FAILED"),
    ("PENDING_GATES", "start", "IN_PROGRESS"),
    ("PENDING_GATES", "cancel", "CANCELLED"),
    ("IN_PROGRESS", "step", "IN_PROGRESS"),
    ("IN_PROGRESS", "complete", "COMPLETED"),
    ("IN_PROGRESS", "roll_back", "ROLLED_BACK"),
    ("IN_PROGRESS", "cancel", "CANCELLED"),
    ("IN_PROGRESS", "fail", "FAILED"),
    ("COMPLETED", "roll_back", "ROLLED_BACK"),
];

/// A deployment, as its record tells it.
#[derive(Debug, Clone, Default)]
struct Told {
    prompt: String,
    status: String,
    sequence: i64,
    /// The share of each step, and which is next.
    shares: Vec<u8>,
    next: usize,
    share: u8,
    hold: chrono::TimeDelta,
    /// When its share changed, and when anything did.
    since: Option<Timestamp>,
    at: Option<Timestamp>,
    /// What was served when it started.
    former: i32,
    gates_passed: bool,
}

/// What is served of a prompt, as the record tells it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Serves {
    stable: Option<(i32, Uuid)>,
    candidate: Option<(i32, u8, Uuid)>,
}

/// The record, told from its beginning.
pub(crate) struct Telling<'a> {
    state: &'a State,
    load: &'a Load,
    told: BTreeMap<Uuid, Told>,
    serves: BTreeMap<String, Serves>,
    broken: Vec<String>,
}

impl<'a> Telling<'a> {
    /// Of a record of which nothing is told yet.
    pub(crate) fn of(state: &'a State, load: &'a Load) -> Self {
        Self {
            state,
            load,
            told: BTreeMap::new(),
            serves: BTreeMap::new(),
            broken: Vec::new(),
        }
    }

    /// Tells all of it, and says what does not hold.
    pub(crate) fn all(mut self) -> Vec<String> {
        for event in &self.state.events {
            if let Err(why) = self.tell(event) {
                let event = self.state.show(event);
                self.broken.push(format!("{why}: {event}"));
            }
        }
        self.compare();
        self.broken
    }

    fn tell(&mut self, event: &Event) -> Result<(), String> {
        let id = event.deployment_id;
        let told = self.told.entry(id).or_default();
        told.sequence += 1;
        require(event.sequence == told.sequence, "a gap or a double")?;
        require(told.at <= Some(event.at), "time runs backwards")?;
        told.at = Some(event.at);
        let from = event.from.map_or("", Status::as_str);
        require(from == told.status, "it was in another status before")?;
        if event.details.contains_key("refused") {
            return require(event.to.as_str() == from, "a refusal changed something");
        }
        let action = event.action.as_str();
        if action == "create" {
            return self.created(event);
        }
        let to = event.to.as_str();
        require(
            LEGAL.contains(&(from, action, to)),
            "not a step of the machine",
        )?;
        to.clone_into(&mut told.status);
        let told = told.clone();
        match action {
            "pass_gates" => {
                self.change(id, |told| told.gates_passed = true);
                require(!told.gates_passed, "its gates have passed twice")
            }
            "start" => self.started(event, &told),
            "step" => self.stepped(event, &told),
            "complete" => self.completed(event, &told),
            "roll_back" | "cancel" | "fail" => self.ended(event, from, &told),
            _ => Ok(()),
        }
    }

    fn change(&mut self, id: Uuid, change: impl FnOnce(&mut Told)) {
        change(self.told.entry(id).or_default());
    }

    fn serves(&mut self, told: &Told) -> &mut Serves {
        self.serves.entry(told.prompt.clone()).or_default()
    }

    fn wanted(&self, version: &str) -> Option<Wanted> {
        let number = version.parse().ok();
        let wanted = self.load.wanted.iter();
        wanted
            .into_iter()
            .find(|it| Some(it.version) == number)
            .cloned()
    }

    fn created(&mut self, event: &Event) -> Result<(), String> {
        let wanted = self.wanted(detail(event, "to_version")?);
        let wanted = wanted.ok_or("nobody wanted it")?;
        let is_reverse = event.details.contains_key(ROLLBACK_FROM);
        let begins_in = match (is_reverse, wanted.skip_approval) {
            (true, _) => "COMPLETED",
            (false, true) => "PENDING_GATES",
            (false, false) => "PENDING_APPROVAL",
        };
        require(event.to.as_str() == begins_in, "it begins elsewhere")?;
        let (stable, former) = (
            self.told_stable(&wanted.prompt),
            detail(event, "from_version")?,
        );
        let told = self.told.entry(event.deployment_id).or_default();
        begins_in.clone_into(&mut told.status);
        told.prompt = wanted.prompt;
        if is_reverse {
            told.share = 100;
            told.former = former.parse().unwrap_or_default();
            return Ok(());
        }
        told.shares = shares(&wanted.strategy);
        told.hold = chrono::TimeDelta::seconds(wanted.strategy.interval_seconds.into());
        require(
            former == stable.to_string(),
            "it is not over what was served",
        )
    }

    fn told_stable(&self, prompt: &str) -> i32 {
        let serves = self.serves.get(prompt);
        let stable = serves.and_then(|serves| serves.stable);
        stable.map_or(0, |(version, _)| version)
    }

    fn started(&mut self, event: &Event, told: &Told) -> Result<(), String> {
        require(told.gates_passed, "it started before its gates had passed")?;
        let stable = self.told_stable(&told.prompt);
        require(
            detail(event, "from_version")? == stable.to_string(),
            "it is not over what was served",
        )?;
        let others = self.told.iter().filter(|(id, other)| {
            **id != event.deployment_id
                && other.prompt == told.prompt
                && other.status == "IN_PROGRESS"
        });
        require(others.count() == 0, "another one is under way")?;
        self.change(event.deployment_id, |told| {
            told.former = stable;
            told.since = Some(event.at);
        });
        if told.shares.first() == Some(&100) {
            return require(
                detail(event, "to_percentage")? == "0",
                "it has a share before it has all",
            );
        }
        self.shifted(event, told)
    }

    fn stepped(&mut self, event: &Event, told: &Told) -> Result<(), String> {
        require(
            detail(event, "from_percentage")? == told.share.to_string(),
            "it had another share",
        )?;
        held(event, told)?;
        self.shifted(event, told)
    }

    /// It has the next share of its plan, which is not all.
    fn shifted(&mut self, event: &Event, told: &Told) -> Result<(), String> {
        let next = told.shares.get(told.next).copied().unwrap_or(100);
        let version = self.version(event.deployment_id);
        self.serves(told).candidate = Some((version, next, event.deployment_id));
        self.change(event.deployment_id, |told| {
            told.share = next;
            told.next += 1;
            told.since = Some(event.at);
        });
        let is_right = next < 100 && detail(event, "to_percentage")? == next.to_string();
        require(is_right, "its plan says another share")
    }

    fn completed(&mut self, event: &Event, told: &Told) -> Result<(), String> {
        let version = self.version(event.deployment_id);
        *self.serves(told) = Serves {
            stable: Some((version, event.deployment_id)),
            candidate: None,
        };
        self.change(event.deployment_id, |told| told.share = 100);
        require(
            told.shares.get(told.next) == Some(&100),
            "its plan has another step",
        )?;
        require(
            detail(event, "from_percentage")? == told.share.to_string(),
            "it had another share",
        )?;
        held(event, told)
    }

    /// It was taken back, or withdrawn.
    fn ended(&mut self, event: &Event, from: &str, told: &Told) -> Result<(), String> {
        let id = event.deployment_id;
        self.change(id, |told| told.share = 0);
        if from == "PENDING_APPROVAL" || from == "PENDING_GATES" {
            return Ok(());
        }
        require(
            detail(event, "from_percentage")? == told.share.to_string(),
            "it had another share",
        )?;
        let serves = self.serves(told);
        let before = serves.clone();
        serves.candidate = None;
        if event.action.as_str() != "roll_back" {
            return Ok(());
        }
        let former = told.former;
        serves.stable = event
            .details
            .get("rollback_deployment")
            .and_then(|id| id.parse().ok())
            .map(|id| (former, id));
        require(
            detail(event, "restored_version")? == former.to_string(),
            "another version came back",
        )?;
        require(
            (former == 0) == self.serves(told).stable.is_none(),
            "nothing came back",
        )?;
        let was_served = before.stable.is_some_and(|(_, served)| served == id);
        let is_alone = was_served && before.candidate.is_none();
        require(
            from == "IN_PROGRESS" || is_alone,
            "it was not what is served",
        )
    }

    fn version(&self, id: Uuid) -> i32 {
        let deployments = self.state.deployments.iter();
        let found = deployments.into_iter().find(|it| it.id == id);
        found.map_or(-1, |it| it.to_version)
    }

    /// Holds what is stored against what the record tells.
    fn compare(&mut self) {
        for it in &self.state.deployments {
            let name = self.state.name(it.id);
            let told = self.told.remove(&it.id).unwrap_or_default();
            let is_same =
                (it.status.as_str(), it.event_count) == (told.status.as_str(), told.sequence);
            if !is_same {
                let (status, count) = (it.status, it.event_count);
                self.broken.push(format!(
                    "{name} is {status} after {count} events; its record says {told:?}"
                ));
            }
            let share = it
                .rollout
                .as_ref()
                .map_or(0, |rollout| rollout.current_percentage);
            if share != told.share {
                self.broken.push(format!(
                    "{name} has {share} %; its record says {} %",
                    told.share
                ));
            }
        }
        if !self.told.is_empty() {
            self.broken.push(format!(
                "there is a record of what is not there: {:?}",
                self.told
            ));
        }
        for row in &self.state.traffic {
            let stored = Serves {
                stable: row.stable.as_ref().map(|it| (it.version, it.deployment_id)),
                candidate: row
                    .candidate
                    .as_ref()
                    .map(|it| (it.version, it.percentage, it.deployment_id)),
            };
            let told = self
                .serves
                .remove(row.prompt_id.as_str())
                .unwrap_or_default();
            if stored != told {
                self.broken.push(format!(
                    "{} is served as {stored:?}; the record says {told:?}",
                    row.prompt_id
                ));
            }
        }
        self.serves.retain(|_, serves| *serves != Serves::default());
        if !self.serves.is_empty() {
            self.broken.push(format!(
                "nothing is stored of what is served: {:?}",
                self.serves
            ));
        }
    }
}

/// The share of each step.
fn shares(strategy: &StrategyRequest) -> Vec<u8> {
    let first = strategy.initial_percentage;
    let mut shares: Vec<i32> = match strategy.kind {
        Ok(Some(StrategyType::BlueGreen)) => vec![0],
        Ok(Some(StrategyType::Canary)) => vec![first],
        Ok(Some(StrategyType::Gradual)) => {
            let each = |steps: i32| first + steps * strategy.increment;
            (0..).map(each).take_while(|share| *share < 100).collect()
        }
        Ok(Some(StrategyType::Immediate) | None) | Err(_) => Vec::new(),
    };
    shares.push(100);
    shares
        .into_iter()
        .filter_map(|share| u8::try_from(share).ok())
        .collect()
}

/// Whether its share was held as long as its plan says.
fn held(event: &Event, told: &Told) -> Result<(), String> {
    let is_held = told.shares.len() > 1;
    let since = told.since.ok_or("it has not started")?;
    let is_over = !is_held || event.at - since >= told.hold;
    require(is_over, "its share was not held as long as its plan says")
}

fn detail<'e>(event: &'e Event, name: &str) -> Result<&'e str, String> {
    let found = event.details.get(name);
    found
        .map(String::as_str)
        .ok_or_else(|| format!("it does not say '{name}'"))
}

pub(crate) fn require(holds: bool, why: &str) -> Result<(), String> {
    if holds { Ok(()) } else { Err(why.to_owned()) }
}
