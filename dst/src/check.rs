//! What must hold of what is stored, whatever has happened.

use std::collections::BTreeSet;

use delos_deploy::{
    domain::{
        audit::Event,
        deployment::{Deployment, ROLLBACK_FROM},
        state::Status,
        traffic::Traffic,
    },
    store::{self, DeploymentFilter, EventFilter, Store},
};
use uuid::Uuid;

use crate::{
    load::{Ask, Call, ENVIRONMENT, Load, OUTCOMES},
    stage,
    telling::{Telling, require},
};

/// More than a run can leave.
const ROWS_MAX: u64 = 10_000;

/// All that is stored.
#[derive(Debug, Clone)]
pub struct State {
    /// The deployments.
    pub deployments: Vec<Deployment>,
    /// What is on record, in the order in which it was put there.
    pub events: Vec<Event>,
    /// What is served.
    pub traffic: Vec<Traffic>,
}

impl State {
    /// Reads it.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn read(store: &Store) -> Result<Self, store::Error> {
        let (deployments, _) = store
            .deployments(&DeploymentFilter::default(), ROWS_MAX, 0)
            .await?;
        let (mut events, _) = store
            .events(&EventFilter::default(), None, ROWS_MAX)
            .await?;
        events.reverse();
        let traffic = store.traffic_after(ENVIRONMENT, 0).await?.traffic;
        Ok(Self {
            deployments,
            events,
            traffic,
        })
    }

    /// What does not hold of it.
    #[must_use]
    pub fn check(&self, load: &Load) -> Vec<String> {
        let mut broken = Telling::of(self, load).all();
        for call in &load.calls {
            broken.extend(self.check_call(call, load).err());
        }
        broken
    }

    /// Which deployments neither have ended nor wait for somebody, where nothing is left to do.
    pub fn unsettled(&self) -> impl Iterator<Item = String> {
        let waits = |it: &&Deployment| it.status == Status::PendingApproval;
        let mut unsettled: Vec<_> = self.deployments.iter().collect();
        unsettled.retain(|it| !it.status.is_settled() && !waits(it));
        let name = |it: &Deployment| format!("{} is left {}", self.name(it.id), it.status);
        unsettled.into_iter().map(name)
    }

    /// A deployment's name: the same in every run of a seed.
    pub(crate) fn name(&self, id: Uuid) -> String {
        let mut ids: Vec<_> = self.deployments.iter().map(|it| it.id).collect();
        ids.sort();
        match ids.iter().position(|known| *known == id) {
            Some(place) => format!("#{}", place + 1),
            None => "nowhere".into(),
        }
    }

    /// What is on record, in words.
    #[must_use]
    pub fn record(&self) -> Vec<String> {
        self.events.iter().map(|event| self.show(event)).collect()
    }

    pub(crate) fn show(&self, event: &Event) -> String {
        let share = |name: &str| event.details.get(name).map_or("", String::as_str);
        let from = event.from.map_or("nothing", Status::as_str);
        let after = event.at - stage::beginning();
        format!(
            "{} {:2} {:10} {from} -> {} {}->{} by {:?} after {:.1} s{}",
            self.name(event.deployment_id),
            event.sequence,
            event.action.as_str(),
            event.to,
            share("from_percentage"),
            share("to_percentage"),
            event.request_id,
            after.as_seconds_f64(),
            event
                .details
                .get("refused")
                .map_or(String::new(), |why| format!(" ({why})")),
        )
    }

    /// Whether a request has had its effect once, where it was answered so, and was answered the
    /// same each time.
    fn check_call(&self, call: &Call, load: &Load) -> Result<(), String> {
        let answers: BTreeSet<_> = call.done().collect();
        let action = match call.ask {
            Ask::Create => "create",
            Ask::Approve => "approve",
            Ask::Report { .. } => "measure",
            Ask::Cancel => "cancel",
            Ask::RollBack => "roll_back",
            Ask::Outcomes => return check_outcomes(call),
        };
        let key = &call.key;
        if answers.len() > 1 {
            return Err(format!("'{key}' was answered differently: {answers:?}"));
        }
        let is_effect = |event: &&Event| {
            event.request_id == *key
                && event.action.as_str() == action
                && !event.details.contains_key("refused")
                && !event.details.contains_key(ROLLBACK_FROM)
        };
        let effects = self.events.iter().filter(is_effect).count();
        if effects > 1 {
            return Err(format!("'{key}' had its effect {effects} times"));
        }
        // What is reported may have been known.
        let must = call.done().next().is_some() && !matches!(call.ask, Ask::Report { .. });
        if must && effects == 0 {
            return Err(format!("'{key}' was acknowledged, and had no effect"));
        }
        let ends_in = match call.ask {
            Ask::Cancel => Some(Status::Cancelled),
            Ask::RollBack => Some(Status::RolledBack),
            Ask::Create | Ask::Approve | Ask::Report { .. } | Ask::Outcomes => None,
        };
        let id = load.wanted[call.of].id;
        let deployment = self.deployments.iter().find(|it| Some(it.id) == id);
        match (deployment, ends_in) {
            (None, _) if must => Err(format!("'{key}' was acknowledged, and there is none")),
            (Some(it), Some(end)) if must && it.status != end => {
                Err(format!("'{key}' was acknowledged, and it is {}", it.status))
            }
            _ => Ok(()),
        }
    }
}

/// Whether no outcome was counted twice: they have ids of their own.
fn check_outcomes(call: &Call) -> Result<(), String> {
    let taken_in: Vec<_> = call.taken_in().collect();
    let accepted: usize = taken_in.iter().map(|(accepted, _)| accepted).sum();
    let there_are = OUTCOMES * (call.of + 1).max(2);
    let is_right = accepted <= there_are && taken_in.iter().all(|(_, known)| *known <= there_are);
    require(
        is_right,
        &format!("'{}' was counted twice: {taken_in:?}", call.key),
    )
}
