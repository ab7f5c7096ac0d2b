//! Reads the audit trail.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use uuid::Uuid;

use super::{
    Error, Service, deployment_id,
    error::of_store,
    not_found,
    read::{environment_filter, page_size, prompt_filter},
};
use crate::{
    domain::{
        audit::{Action, Event},
        violation::Violations,
    },
    store::{EventCursor, EventFilter},
};

/// Which events to list; what is empty matches all.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct EventQuery {
    /// Only of this deployment: then the oldest first, otherwise the newest.
    pub deployment_id: String,
    /// Only of deployments of this prompt.
    pub prompt_id: String,
    /// Only of deployments to this environment.
    pub environment: String,
    /// Only by this actor.
    pub actor: String,
    /// Only with this action.
    pub action: String,
}

/// A page of events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventPage {
    /// The events.
    pub events: Vec<Event>,
    /// Where the next page begins; empty on the last.
    pub next_page_token: String,
}

impl Service {
    /// A page of the audit trail.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every field that is wrong, that there is no such deployment, or that
    /// the storage failed.
    pub async fn events(
        &self,
        query: &EventQuery,
        size: i32,
        token: &str,
    ) -> Result<EventPage, Error> {
        let mut violations = Violations::default();
        let filter = filter(query, &mut violations)?;
        let size = page_size("page_size", size, &mut violations);
        let after = violations.take("page_token", read_token(query, token));
        let checked = size.zip(after);
        let (size, after) = violations.finish(checked).map_err(Error::Invalid)?;
        let failed = |error| of_store(&error, "deployment", &query.deployment_id);
        let page = self.store.events(&filter, after, size).await;
        let (events, next) = page.map_err(failed)?;
        // Every deployment has events; where none are found there may be no such deployment.
        if let Some(id) = filter
            .deployment_id
            .filter(|_| events.is_empty() && next.is_none())
            && self.store.deployment(id).await.map_err(failed)?.is_none()
        {
            return Err(not_found(&query.deployment_id));
        }
        let next_page_token = next.map_or_else(String::new, |next| write_token(query, next));
        Ok(EventPage {
            events,
            next_page_token,
        })
    }
}

fn filter(query: &EventQuery, violations: &mut Violations) -> Result<EventFilter, Error> {
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let action = given(&query.action).and_then(|name| {
        let known = || {
            Action::all()
                .map(Action::as_str)
                .collect::<Vec<_>>()
                .join(", ")
        };
        let action =
            Action::parse(&name).ok_or_else(|| format!("is '{name}'; must be one of {}", known()));
        violations.take("action", action)
    });
    violations.check_length("actor", &query.actor, crate::domain::ids::Actor::MAX);
    Ok(EventFilter {
        deployment_id: given(&query.deployment_id)
            .map(|id| deployment_id(&id))
            .transpose()?,
        prompt_id: prompt_filter(&query.prompt_id, violations),
        environment: environment_filter(&query.environment, violations),
        actor: given(&query.actor),
        action,
    })
}

/// A page token is the place where the page before ended and a checksum over the filters, so that a token
/// is not mistaken for one of another query. It gives no access that the query would not.
fn write_token(query: &EventQuery, next: EventCursor) -> String {
    let place = match next {
        EventCursor::Id(id) => format!("i{}", id.simple()),
        EventCursor::Sequence(sequence) => format!("s{sequence}"),
    };
    format!("{place}.{:016x}", checksum(query, &place))
}

fn read_token(query: &EventQuery, token: &str) -> Result<Option<EventCursor>, String> {
    if token.is_empty() {
        return Ok(None);
    }
    let refused = || "is not a token that this query has returned; start without one".to_owned();
    let (place, sum) = token.split_once('.').ok_or_else(refused)?;
    if sum != format!("{:016x}", checksum(query, place)) {
        return Err(refused());
    }
    let sequence = place
        .strip_prefix('s')
        .and_then(|number| number.parse().ok());
    let id = place
        .strip_prefix('i')
        .and_then(|id| Uuid::try_parse(id).ok());
    sequence
        .map(EventCursor::Sequence)
        .or(id.map(EventCursor::Id))
        .map(Some)
        .ok_or_else(refused)
}

fn checksum(query: &EventQuery, place: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    query.hash(&mut hasher);
    place.hash(&mut hasher);
    hasher.finish()
}
