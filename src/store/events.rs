//! The audit trail: only ever added to, in the transaction of what it records.

use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, EntityTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _, Select,
};
use uuid::Uuid;

use super::{
    Store, Tx,
    aside::Each,
    deployments::status,
    entity::event,
    error::{Corrupt, Error},
};
use crate::{
    domain::{
        audit::{Action, Caller, Event, Record},
        deployment::Deployment,
        state::Verb,
    },
    faults::{Bug, Point},
};

const EVENTS: Each = Each {
    table: "deployment_events",
    key: &["id"],
};

/// Which events to list.
#[derive(Debug, Clone, Default)]
pub struct EventFilter {
    /// Only of this deployment: then the oldest first, otherwise the newest.
    pub deployment_id: Option<Uuid>,
    /// Only of deployments of this prompt.
    pub prompt_id: Option<String>,
    /// Only of deployments to this environment.
    pub environment: Option<String>,
    /// Only by this actor.
    pub actor: Option<String>,
    /// Only with this action.
    pub action: Option<Action>,
}

/// Where a page of events begins: after this one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventCursor {
    /// In the order of one deployment.
    Sequence(i64),
    /// In the order of all.
    Id(Uuid),
}

impl Store {
    /// Up to `limit` events after `after`, and where the next page begins; none where there is no
    /// more. Those that can't be read are left out, so that a page may be short of them.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn events(
        &self,
        filter: &EventFilter,
        after: Option<EventCursor>,
        limit: u64,
    ) -> Result<(Vec<Event>, Option<EventCursor>), Error> {
        // One more than asked for tells whether there is a next page.
        let query = filter.apply(event::Entity::find().limit(limit + 1));
        let query = match after {
            Some(EventCursor::Sequence(sequence)) => {
                query.filter(event::Column::Sequence.gt(sequence))
            }
            Some(EventCursor::Id(id)) => query.filter(event::Column::Id.lt(id)),
            None => query,
        };
        // What a row says may be of no meaning, and it still has its place.
        let placed = |row: event::Model| {
            let place = match filter.deployment_id {
                Some(_) => EventCursor::Sequence(row.sequence),
                None => EventCursor::Id(row.id),
            };
            Ok((place, read(row)))
        };
        let mut rows = EVENTS.read(self.reader()?, query, placed).await?;
        let more = u64::try_from(rows.len()).unwrap_or(u64::MAX) > limit;
        if more {
            rows.pop();
        }
        let last = rows.iter().rev().flatten().next();
        let next = last.map(|(place, _)| *place).filter(|_| more);
        let events = rows.into_iter().map(|row| row?.1).collect();
        let events = self
            .aside
            .leave_out(EVENTS.table, events, |event| event.id.to_string());
        Ok((events, next))
    }
}

impl EventFilter {
    fn apply(&self, query: Select<event::Entity>) -> Select<event::Entity> {
        let mut query = match self.deployment_id {
            Some(id) => query
                .filter(event::Column::DeploymentId.eq(id))
                .order_by_asc(event::Column::Sequence),
            None => query.order_by_desc(event::Column::Id),
        };
        let texts = [
            (event::Column::PromptId, self.prompt_id.as_deref()),
            (event::Column::Environment, self.environment.as_deref()),
            (event::Column::Actor, self.actor.as_deref()),
            (event::Column::Action, self.action.map(Action::as_str)),
        ];
        for (column, value) in texts {
            if let Some(value) = value {
                query = query.filter(column.eq(value));
            }
        }
        query
    }
}

impl Tx {
    /// The number of the last event of a deployment: where [`Bug::SkipsFence`] goes on.
    async fn last_event(&self, deployment_id: Uuid) -> Result<i64, Error> {
        let last: Option<Option<i64>> = event::Entity::find()
            .select_only()
            .column_as(event::Column::Sequence.max(), "last")
            .filter(event::Column::DeploymentId.eq(deployment_id))
            .into_tuple()
            .one(&self.db)
            .await?;
        Ok(last.flatten().unwrap_or_default())
    }

    /// Puts events of a deployment on record, numbered from `first`. The deployment's own count is
    /// stored with it.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn append(
        &self,
        deployment: &Deployment,
        first: i64,
        records: Vec<Record>,
        caller: &Caller,
    ) -> Result<(), Error> {
        self.faults.at(Point::EventBefore).await?;
        let first = if self.faults.has(Bug::SkipsFence) {
            self.last_event(deployment.id).await? + 1
        } else {
            first
        };
        let loses_steps = self.faults.has(Bug::LosesEvent);
        let rows = (first..)
            .zip(records)
            .filter(|(_, record)| !(loses_steps && record.action == Action::Verb(Verb::Step)))
            .map(|(sequence, record)| row(deployment, sequence, record, caller))
            .collect::<Result<Vec<_>, _>>()?;
        if !rows.is_empty() {
            event::Entity::insert_many(rows)
                .exec_without_returning(&self.db)
                .await?;
        }
        Ok(self.faults.at(Point::EventAfter).await?)
    }
}

fn row(
    deployment: &Deployment,
    sequence: i64,
    record: Record,
    caller: &Caller,
) -> Result<event::ActiveModel, Error> {
    let details = serde_json::to_value(record.details)
        .map_err(|error| Error::Impossible(error.to_string()))?;
    let system = Caller::system();
    let actor = if record.by_system {
        &system.actor
    } else {
        &caller.actor
    };
    Ok(event::ActiveModel {
        id: Set(Uuid::now_v7()),
        deployment_id: Set(deployment.id),
        sequence: Set(sequence),
        prompt_id: Set(deployment.prompt_id.to_string()),
        environment: Set(deployment.environment.to_string()),
        at: Set(record.at),
        actor: Set(actor.as_str().to_owned()),
        action: Set(record.action.as_str().to_owned()),
        from_status: Set(record.from.map(|status| status.as_str().to_owned())),
        to_status: Set(record.to.as_str().to_owned()),
        reason: Set(record.reason),
        request_id: Set(caller.request_id.clone()),
        details: Set(details),
    })
}

fn read(row: event::Model) -> Result<Event, Corrupt> {
    let id = row.id;
    let corrupt = |what: String| Corrupt {
        table: EVENTS.table,
        key: id.to_string(),
        what,
    };
    let action = Action::parse(&row.action);
    let from = row.from_status.as_deref().map(status).transpose();
    Ok(Event {
        id,
        deployment_id: row.deployment_id,
        sequence: row.sequence,
        at: row.at,
        actor: row.actor,
        action: action.ok_or_else(|| corrupt(format!("action '{}'", row.action)))?,
        from: from.map_err(corrupt)?,
        to: status(&row.to_status).map_err(corrupt)?,
        reason: row.reason,
        request_id: row.request_id,
        details: serde_json::from_value(row.details).map_err(|error| corrupt(error.to_string()))?,
    })
}
