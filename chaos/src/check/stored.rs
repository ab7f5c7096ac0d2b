//! What the tables hold, read with SQL and types of our own: not by the code that wrote it.

use std::{collections::BTreeMap, fmt::Write as _};

use serde_json::Value;
use sqlx::{PgConnection, Row as _, postgres::PgRow};
use uuid::Uuid;

use super::Violation;
use crate::clients::KEY;

/// Everything.
#[derive(Debug)]
pub(crate) struct Stored {
    pub(crate) deployments: Vec<Deployment>,
    pub(crate) traffic: Vec<Traffic>,
    pub(crate) outcomes: Outcomes,
}

/// A deployment with its events in order.
#[derive(Debug)]
pub(crate) struct Deployment {
    pub(crate) id: Uuid,
    pub(crate) prompt_id: String,
    pub(crate) to_version: i32,
    pub(crate) status: String,
    pub(crate) event_count: i64,
    pub(crate) strategy: Strategy,
    /// The key of the request that created it; none where the service made it.
    pub(crate) key: Option<String>,
    pub(crate) events: Vec<Event>,
}

/// An event.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) sequence: i64,
    /// Microseconds since 1970, by the database's clock.
    pub(crate) at: i64,
    pub(crate) action: String,
    pub(crate) from: Option<String>,
    pub(crate) to: String,
    pub(crate) request_id: String,
    details: Value,
}

/// How traffic shifts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Strategy {
    pub(crate) kind: String,
    initial: i32,
    increment: i32,
}

/// What is served of a prompt.
#[derive(Debug)]
pub(crate) struct Traffic {
    pub(crate) prompt_id: String,
    pub(crate) stable: Option<i32>,
    pub(crate) candidate: Option<Uuid>,
}

/// How many outcomes are kept one by one, and how many were counted.
#[derive(Debug)]
pub(crate) struct Outcomes {
    pub(crate) kept: i64,
    counted: i64,
}

impl Stored {
    pub(crate) async fn read(session: &mut PgConnection) -> Result<Self, sqlx::Error> {
        let mut events: BTreeMap<Uuid, Vec<Event>> = BTreeMap::new();
        let all = "SELECT deployment_id, sequence, action, from_status, to_status, request_id, \
            details, (extract(epoch FROM at) * 1000000)::bigint AS at \
            FROM deployment_events ORDER BY deployment_id, sequence";
        for row in sqlx::query(all).fetch_all(&mut *session).await? {
            let event = Event::read(&row)?;
            events
                .entry(row.try_get("deployment_id")?)
                .or_default()
                .push(event);
        }
        let all = "SELECT d.id, d.prompt_id, d.to_version, d.status, d.event_count, \
            s.type AS kind, s.initial_percentage, s.increment, m.value AS key \
            FROM deployments d JOIN deployment_strategies s ON s.deployment_id = d.id \
            LEFT JOIN deployment_metadata m ON m.deployment_id = d.id AND m.key = $1";
        let rows = sqlx::query(all).bind(KEY).fetch_all(&mut *session).await?;
        let deployments = rows.iter().map(|row| {
            let id = row.try_get("id")?;
            Ok(Deployment {
                id,
                prompt_id: row.try_get("prompt_id")?,
                to_version: row.try_get("to_version")?,
                status: row.try_get("status")?,
                event_count: row.try_get("event_count")?,
                strategy: Strategy::read(row)?,
                key: row.try_get("key")?,
                events: events.remove(&id).unwrap_or_default(),
            })
        });
        let deployments = deployments.collect::<Result<_, sqlx::Error>>()?;
        let all = "SELECT prompt_id, stable_version, candidate_deployment_id FROM traffic";
        let traffic = sqlx::query(all).fetch_all(&mut *session).await?;
        let traffic = traffic.iter().map(|row| {
            Ok(Traffic {
                prompt_id: row.try_get(0)?,
                stable: row.try_get(1)?,
                candidate: row.try_get(2)?,
            })
        });
        let traffic = traffic.collect::<Result<_, sqlx::Error>>()?;
        let kept = sqlx::query_scalar("SELECT count(*) FROM outcomes");
        let counted = sqlx::query_scalar("SELECT coalesce(sum(calls), 0)::bigint FROM cohort_sums");
        Ok(Self {
            deployments,
            traffic,
            outcomes: Outcomes {
                kept: kept.fetch_one(&mut *session).await?,
                counted: counted.fetch_one(&mut *session).await?,
            },
        })
    }
}

impl Deployment {
    /// What happened to it, for people.
    pub(crate) fn tell(&self) -> String {
        let mut text = format!(
            "{} version {} by {:?}: {}, {} events\n",
            self.prompt_id, self.to_version, self.strategy, self.status, self.event_count
        );
        for event in &self.events {
            let Event {
                sequence,
                at,
                action,
                from,
                to,
                request_id,
                details,
            } = event;
            let from = from.as_deref().unwrap_or("-");
            // A text can be written to without fail.
            let _ = writeln!(
                text,
                "  {sequence:>3} {at} {action} {from} -> {to} {details} ({request_id})"
            );
        }
        text
    }
}

impl Event {
    fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        Ok(Self {
            sequence: row.try_get("sequence")?,
            at: row.try_get("at")?,
            action: row.try_get("action")?,
            from: row.try_get("from_status")?,
            to: row.try_get("to_status")?,
            request_id: row.try_get("request_id")?,
            details: row.try_get("details")?,
        })
    }

    /// A detail, as text.
    pub(crate) fn detail(&self, name: &str) -> Option<&str> {
        self.details.get(name)?.as_str()
    }

    /// A detail, as a number.
    pub(crate) fn number(&self, name: &str) -> Option<i32> {
        self.detail(name)?.parse().ok()
    }

    /// Whether it says that somebody was refused.
    pub(crate) fn is_refusal(&self) -> bool {
        self.details.get("refused").is_some()
    }
}

impl Strategy {
    /// Reads the columns `kind`, `initial_percentage` and `increment`.
    pub(crate) fn read(row: &PgRow) -> Result<Self, sqlx::Error> {
        let number = |name| -> Result<i32, sqlx::Error> {
            let number: Option<i16> = row.try_get(name)?;
            Ok(number.unwrap_or_default().into())
        };
        Ok(Self {
            kind: row
                .try_get::<Option<String>, _>("kind")?
                .unwrap_or_default(),
            initial: number("initial_percentage")?,
            increment: number("increment")?,
        })
    }

    /// The shares of traffic that it goes through, in order.
    pub(crate) fn shares(&self) -> Vec<i32> {
        match self.kind.as_str() {
            "GRADUAL" => {
                let increment = usize::try_from(self.increment).unwrap_or(1).max(1);
                let steps = (self.initial..100).step_by(increment);
                steps.chain([100]).collect()
            }
            "CANARY" => vec![self.initial, 100],
            _ => vec![0, 100],
        }
    }
}

impl Outcomes {
    /// What was acknowledged is kept, once; what came for a split that was over is not counted.
    pub(crate) fn check(&self, acknowledged: i64, sent: i64) -> Option<Violation> {
        let Self { kept, counted } = self;
        let is_right = counted <= kept && (acknowledged..=sent).contains(kept);
        (!is_right).then(|| {
            let what = format!(
                "{kept} outcomes are kept and {counted} are counted, of {acknowledged} that were \
                 acknowledged and {sent} that were sent"
            );
            Violation::of("I2", what)
        })
    }
}
