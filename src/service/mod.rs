//! The use cases: a command comes in, a value of the domain goes out. Here are transactions, ids,
//! time and the audit trail; the rules are in `domain`, the tables in `store`.

use std::{ops::Deref, sync::Arc, time::Duration};

use tokio::sync::Notify;
use uuid::Uuid;

use crate::{
    domain::{state::Status, violation::Violations},
    evidence::{Eval, Prompts, webhook::Webhooks},
    store::Store,
    telemetry::{Cause, Metrics},
    traffic::Table,
};

mod advance;
mod ask;
mod change;
mod create;
mod error;
mod events;
mod explain;
mod forecast;
mod gates;
mod measure;
mod once;
mod outcomes;
mod read;
mod traffic;
mod upkeep;
mod verbs;

pub use advance::Advanced;
pub use error::Error;
pub use events::{EventPage, EventQuery};
pub use explain::{Explained, NextAction};
pub use measure::ConditionReport;
pub use once::{Once, Reply};
pub use outcomes::{Collector, REPORT_MAX, Reported};
pub use read::{DeploymentPage, DeploymentQuery, Progress};
pub use traffic::{AllServed, Served, Split};
pub use upkeep::upkeep;
pub use verbs::RolledBack;

use change::Stored;
use outcomes::Inbox;

/// The services that know what is decided by.
#[derive(Debug, Clone)]
pub struct Sources {
    /// Knows how a version does on examples.
    pub eval: Eval,
    /// Knows which versions there are; where it is asked at all.
    pub prompts: Option<Prompts>,
    /// Ask who decides outside.
    pub webhooks: Webhooks,
}

/// The use cases. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service(Arc<Inner>);

/// What the use cases work with; one allocation, since every request holds a clone or more.
#[derive(Debug, Clone)]
pub struct Inner {
    store: Store,
    wake: Arc<Notify>,
    metrics: Metrics,
    gate_timeout: Duration,
    sources: Sources,
    traffic: Table,
    /// This process; another one after each start.
    replica: Uuid,
    /// Where reports of outcomes wait to be stored.
    inbox: Inbox,
}

impl Deref for Service {
    type Target = Inner;

    fn deref(&self) -> &Inner {
        &self.0
    }
}

impl Service {
    /// The use cases over a storage. Gates that have not been measured `gate_timeout` after they
    /// began to be judged have failed. The collector stores what is reported, while it runs.
    #[must_use]
    pub fn new(
        store: Store,
        metrics: Metrics,
        gate_timeout: Duration,
        sources: Sources,
    ) -> (Self, Collector) {
        let (inbox, waiting) = outcomes::inbox();
        metrics.observe_set_aside(store.set_aside());
        let service = Self(Arc::new(Inner {
            store,
            wake: Arc::new(Notify::new()),
            metrics,
            gate_timeout,
            sources,
            traffic: Table::default(),
            replica: Uuid::now_v7(),
            inbox,
        }));
        let collector = Collector::new(&service, waiting);
        (service, collector)
    }

    /// The same through the connections that are kept for the reconciler.
    #[must_use]
    pub fn in_background(&self) -> Self {
        Self(Arc::new(Inner {
            store: self.store.in_background(),
            ..Inner::clone(self)
        }))
    }

    /// The storage.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// The traffic table in memory.
    #[must_use]
    pub fn traffic(&self) -> &Table {
        &self.traffic
    }

    /// Which replica this is; another one after each start, so that a process never takes itself
    /// for the one before.
    #[must_use]
    pub fn replica(&self) -> Uuid {
        self.replica
    }

    /// The counters.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Waits until something was written that the reconciler may have to act on.
    pub async fn written(&self) {
        self.wake.notified().await;
    }

    /// Counts what was done, serves what has changed, and wakes the reconciler.
    fn done(&self, stored: &Stored) {
        if let Some(traffic) = &stored.traffic {
            self.traffic.apply_own(traffic.clone());
            self.store.hint_traffic();
        }
        for record in &stored.records {
            let from = record.from.map_or("NONE", Status::as_str);
            let cause = if record.by_system {
                Cause::System
            } else {
                Cause::Caller
            };
            self.metrics
                .transition(record.action.as_str(), from, record.to.as_str(), cause);
        }
        if !stored.records.is_empty() {
            self.wake.notify_one();
        }
    }

    /// Counts what was refused.
    fn refused(&self, error: &Error) {
        self.metrics.refusal(error.reason());
    }
}

/// Longest free text, checked.
fn check_text(field: &str, text: &str) -> Result<(), Error> {
    let mut violations = Violations::default();
    violations.check_length(field, text, crate::domain::ids::TEXT_MAX);
    violations.finish(Some(())).map_err(Error::Invalid)
}

/// The id of a deployment; what is no UUID is the id of no deployment.
fn deployment_id(text: &str) -> Result<Uuid, Error> {
    if text.is_empty() {
        let mut violations = Violations::default();
        violations.add("id", "is required");
        return violations.finish(None).map_err(Error::Invalid);
    }
    Uuid::try_parse(text).map_err(|_| not_found(text))
}

fn not_found(id: impl Into<String>) -> Error {
    let id: String = id.into();
    Error::NotFound {
        what: "deployment",
        // An id that is not ours may be of any length.
        id: id.chars().take(64).collect(),
    }
}
