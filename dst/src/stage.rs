//! What runs are played on, one after the other: a storage, and what a service needs beside it.

use std::{collections::BTreeMap, error::Error, time::Duration};

use delos_deploy::{
    clock::{Clock, ManualClock},
    config::Config,
    domain::Timestamp,
    evidence::{Eval, webhook::Webhooks},
    faults::Faults,
    service::{Collector, Service, Sources},
    store::{Backend, PoolGauge, Store},
    telemetry::{Metrics, Telemetry},
};

use crate::errors::Errors;

/// How long gates may take to be judged.
const GATE_TIMEOUT: Duration = Duration::from_secs(60);

/// One storage in memory, and what is logged over it.
pub struct Stage {
    store: Store,
    metrics: Metrics,
    sources: Sources,
    gauge: PoolGauge,
    /// What the service logs as errors on this thread.
    pub errors: Errors,
}

impl Stage {
    /// An empty storage. `errors` is what gathers the errors of this thread.
    ///
    /// # Errors
    /// It can't be opened.
    pub async fn open(errors: Errors) -> Result<Self, Box<dyn Error>> {
        let config = Config::from_map(BTreeMap::new());
        let config = config.map_err(|bad| format!("{bad:?}"))?;
        let telemetry = Telemetry::start(&config.telemetry)?;
        let store = Store::open(&Backend::Memory, Clock::Manual(clock())).await?;
        let gauge = store.pools().remove(0);
        let sources = Sources {
            eval: Eval::new(&config.eval_endpoint)?,
            prompts: None,
            webhooks: Webhooks::new(&config.webhooks)?,
        };
        Ok(Self {
            store,
            metrics: telemetry.metrics().clone(),
            sources,
            gauge,
            errors,
        })
    }

    /// The storage, without faults, with the time of a clock.
    #[must_use]
    pub fn store(&self, clock: &ManualClock) -> Store {
        self.store.clone().with_clock(Clock::Manual(clock.clone()))
    }

    /// A service that comes to the places of a plan.
    #[must_use]
    pub fn service(&self, clock: &ManualClock, faults: Faults) -> (Service, Collector) {
        let store = self.store(clock).with_faults(faults);
        let (metrics, sources) = (self.metrics.clone(), self.sources.clone());
        Service::new(store, metrics, GATE_TIMEOUT, sources)
    }

    /// How many connections are in use, of the one that there is.
    #[must_use]
    pub fn in_use(&self) -> u64 {
        (self.gauge.read)().0
    }
}

/// When every run begins.
#[must_use]
pub fn beginning() -> Timestamp {
    Timestamp::UNIX_EPOCH + chrono::TimeDelta::days(20_000)
}

/// A clock at the beginning.
#[must_use]
pub fn clock() -> ManualClock {
    ManualClock::new(beginning())
}
