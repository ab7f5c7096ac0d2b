//! The instruments. Their Prometheus names stand beside them; over OTLP the
//! same ones have dots, and no suffixes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{
    AsyncInstrument, Counter, Gauge, Histogram, Meter, MeterProvider as _, ObservableGauge,
};
use opentelemetry_sdk::metrics::SdkMeterProvider;

/// The value of a label. A `&'static str` and an `Arc<str>` become one without
/// an allocation, which matters on the path of a request.
pub use opentelemetry::StringValue as Label;

const REQUEST_BUCKETS_SECONDS: [f64; 17] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0,
    7.5, 10.0,
];
const LAG_BUCKETS_SECONDS: [f64; 13] = [
    0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0,
];

const GROUP_BUCKETS: [f64; 9] = [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0];

/// The wire a request came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// `grpc`
    Grpc,
    /// `grpc-web`
    GrpcWeb,
    /// `http`: JSON over REST.
    Http,
}

impl Protocol {
    fn as_str(self) -> &'static str {
        match self {
            Self::Grpc => "grpc",
            Self::GrpcWeb => "grpc-web",
            Self::Http => "http",
        }
    }
}

/// Who made a deployment move.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// `caller`: somebody asked for it.
    Caller,
    /// `system`: the service decided.
    System,
}

impl Cause {
    fn as_str(self) -> &'static str {
        match self {
            Self::Caller => "caller",
            Self::System => "system",
        }
    }
}

/// How a step of the reconciler ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepOutcome {
    /// `done`: decided and committed.
    Done,
    /// `fenced`: somebody else had moved the deployment, nothing was written.
    Fenced,
    /// `failed`: an error; it is tried again.
    Failed,
}

impl StepOutcome {
    const ALL: [Self; 3] = [Self::Done, Self::Fenced, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Fenced => "fenced",
            Self::Failed => "failed",
        }
    }
}

/// How a call of a webhook ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallOutcome {
    /// `decided`: it answered with a number or a verdict.
    Decided,
    /// `final`: it is not called again; its condition is to be reported.
    Final,
    /// `failed`: no evidence; it is called again.
    Failed,
}

impl CallOutcome {
    const ALL: [Self; 3] = [Self::Decided, Self::Final, Self::Failed];

    fn as_str(self) -> &'static str {
        match self {
            Self::Decided => "decided",
            Self::Final => "final",
            Self::Failed => "failed",
        }
    }
}

/// What the service counts and measures. Cheap to clone. The default one
/// records nowhere.
#[derive(Clone)]
pub struct Metrics(Arc<Instruments>);

struct Instruments {
    requests: Counter<u64>,
    request_duration: Histogram<f64>,
    transitions: Counter<u64>,
    refusals: Counter<u64>,
    reconciler_lag: Histogram<f64>,
    reconciler_steps: Counter<u64>,
    lease_takeovers: Counter<u64>,
    webhook_calls: Counter<u64>,
    build_info: Gauge<u64>,
    outcomes: Counter<u64>,
    outcome_group: Histogram<f64>,
    otlp_items: Counter<u64>,
    traffic_age: Gauge<f64>,
    traffic_watchers: Gauge<u64>,
    redis_up: Gauge<u64>,
    pools: Pools,
    set_aside: SetAside,
    /// Held, because their callbacks are what reads.
    _observed: [ObservableGauge<u64>; 2],
}

impl Metrics {
    pub(super) fn new(meter: &Meter) -> Self {
        let (pools, set_aside) = (Pools::default(), SetAside::default());
        let metrics = Self(Arc::new(Instruments {
            requests: counter(meter, "deploy.requests", "Requests answered."),
            request_duration: histogram(
                meter,
                "deploy.request.duration",
                "Time from a request's head to its answer's end.",
                &REQUEST_BUCKETS_SECONDS,
            ),
            transitions: counter(meter, "deploy.transitions", "Changes of status committed."),
            refusals: counter(meter, "deploy.refusals", "Commands refused by the rules."),
            reconciler_lag: histogram(
                meter,
                "deploy.reconciler.lag",
                "Time from when a deployment was due to when it was looked at.",
                &LAG_BUCKETS_SECONDS,
            ),
            reconciler_steps: counter(meter, "deploy.reconciler.steps", "Deployments looked at."),
            lease_takeovers: counter(
                meter,
                "deploy.lease.takeovers",
                "Leases taken from a replica that let them run out.",
            ),
            webhook_calls: counter(meter, "deploy.webhook.calls", "Webhooks called."),
            build_info: meter
                .u64_gauge("deploy.build.info")
                .with_description("Always 1; its label is the version that runs.")
                .build(),
            outcomes: counter(
                meter,
                "deploy.outcomes",
                "Outcomes and scores that were reported.",
            ),
            outcome_group: meter
                .f64_histogram("deploy.outcome.group.reports")
                .with_description("Reports that were stored in one transaction.")
                .with_boundaries(GROUP_BUCKETS.to_vec())
                .build(),
            otlp_items: counter(
                meter,
                "deploy.otlp.items",
                "Spans, their evaluations and log records that were received.",
            ),
            traffic_age: meter
                .f64_gauge("deploy.traffic.age")
                .with_unit("s")
                .with_description("Time since the traffic table was read from the storage.")
                .build(),
            traffic_watchers: meter
                .u64_gauge("deploy.traffic.watchers")
                .with_description("Streams that watch the traffic table.")
                .build(),
            redis_up: meter
                .u64_gauge("deploy.redis.up")
                .with_description("Whether Redis answers, where it is used.")
                .build(),
            _observed: [pools.gauge(meter), set_aside.gauge(meter)],
            pools,
            set_aside,
        }));
        metrics.start_at_zero();
        metrics
    }

    /// A series that first appears with its first event hides that event from
    /// `rate()`. Done where the labels are known beforehand.
    fn start_at_zero(&self) {
        self.0.lease_takeovers.add(0, &[]);
        for outcome in StepOutcome::ALL {
            let outcome = KeyValue::new("outcome", outcome.as_str());
            self.0.reconciler_steps.add(0, &[outcome]);
        }
        for outcome in CallOutcome::ALL {
            let outcome = KeyValue::new("outcome", outcome.as_str());
            self.0.webhook_calls.add(0, &[outcome]);
        }
    }

    pub(super) fn build_info(&self, version: &str) {
        let version = KeyValue::new("version", version.to_owned());
        self.0.build_info.record(1, &[version]);
    }

    /// A request was answered: `deploy_requests_total{protocol, method, code}`
    /// and `deploy_request_duration_seconds{protocol, method}`.
    ///
    /// `method` and `code` must come from a bounded set: a request for an
    /// unknown one is `_OTHER`.
    pub fn request(
        &self,
        protocol: Protocol,
        method: impl Into<Label>,
        code: impl Into<Label>,
        elapsed: Duration,
    ) {
        let labels = [
            KeyValue::new("protocol", protocol.as_str()),
            KeyValue::new("method", method.into()),
            KeyValue::new("code", code.into()),
        ];
        self.0.requests.add(1, &labels);
        self.0
            .request_duration
            .record(elapsed.as_secs_f64(), &labels[..2]);
    }

    /// A change of status was committed:
    /// `deploy_transitions_total{action, from, to, cause}`.
    pub fn transition(
        &self,
        action: &'static str,
        from: &'static str,
        to: &'static str,
        cause: Cause,
    ) {
        let labels = [
            KeyValue::new("action", action),
            KeyValue::new("from", from),
            KeyValue::new("to", to),
            KeyValue::new("cause", cause.as_str()),
        ];
        self.0.transitions.add(1, &labels);
    }

    /// A command was refused: `deploy_refusals_total{reason}`.
    pub fn refusal(&self, reason: &'static str) {
        self.0.refusals.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// Outcomes were reported: `deploy_outcomes_total{result}`, where the result is `accepted`,
    /// `duplicate` or the reason of a refusal.
    pub fn outcomes(
        &self,
        accepted: usize,
        duplicates: usize,
        refused: impl Iterator<Item = &'static str>,
    ) {
        let count = |result: &'static str, count: usize| {
            if count > 0 {
                let count = u64::try_from(count).unwrap_or(u64::MAX);
                self.0
                    .outcomes
                    .add(count, &[KeyValue::new("result", result)]);
            }
        };
        count("accepted", accepted);
        count("duplicate", duplicates);
        for reason in refused {
            count(reason, 1);
        }
    }

    /// So many reports were stored in one transaction: `deploy_outcome_group_reports`.
    pub fn outcome_group(&self, reports: usize) {
        self.0.outcome_group.record(reports as f64, &[]);
    }

    /// Spans, their evaluations or log records were received over OTLP:
    /// `deploy_otlp_items_total{signal, result}`, where the signal is `traces` or `logs` and the
    /// result is `outcome`, `score`, `dropped` or `refused`.
    pub fn otlp_items(&self, signal: &'static str, result: &'static str, count: u64) {
        let labels = [
            KeyValue::new("signal", signal),
            KeyValue::new("result", result),
        ];
        self.0.otlp_items.add(count, &labels);
    }

    /// A deployment was looked at `lag` after it was due:
    /// `deploy_reconciler_lag_seconds`.
    pub fn reconciler_lag(&self, lag: Duration) {
        self.0.reconciler_lag.record(lag.as_secs_f64(), &[]);
    }

    /// A step of the reconciler ended: `deploy_reconciler_steps_total{outcome}`.
    pub fn reconciler_step(&self, outcome: StepOutcome) {
        let outcome = KeyValue::new("outcome", outcome.as_str());
        self.0.reconciler_steps.add(1, &[outcome]);
    }

    /// A lease was taken over from another replica: `deploy_lease_takeovers_total`.
    pub fn lease_takeover(&self) {
        self.0.lease_takeovers.add(1, &[]);
    }

    /// A webhook was called: `deploy_webhook_calls_total{outcome}`.
    pub fn webhook_call(&self, outcome: CallOutcome) {
        let outcome = KeyValue::new("outcome", outcome.as_str());
        self.0.webhook_calls.add(1, &[outcome]);
    }

    /// How long ago the traffic table was read from the storage, and how many watch it:
    /// `deploy_traffic_age_seconds` and `deploy_traffic_watchers`.
    pub fn traffic(&self, age: Duration, watchers: u64) {
        self.0.traffic_age.record(age.as_secs_f64(), &[]);
        self.0.traffic_watchers.record(watchers, &[]);
    }

    /// Whether Redis answers: `deploy_redis_up`.
    pub fn redis(&self, answers: bool) {
        self.0.redis_up.record(answers.into(), &[]);
    }

    /// Reads a pool at every scrape: `deploy_pool_connections{pool, state}`.
    ///
    /// `read` gives the connections in use and idle; it must not block, and it
    /// lives as long as the metrics do. A second one of the same `name` takes
    /// the place of the first.
    pub fn observe_pool(
        &self,
        name: impl Into<Label>,
        read: impl Fn() -> (u64, u64) + Send + Sync + 'static,
    ) {
        self.0.pools.add(name.into(), Box::new(read));
    }

    /// Reads at every scrape how many rows can't be read and are set aside, by table:
    /// `deploy_rows_set_aside{table}`.
    pub fn observe_set_aside(
        &self,
        read: impl Fn() -> BTreeMap<&'static str, u64> + Send + Sync + 'static,
    ) {
        // Where there is one already, it is of the same storage.
        let _ = self.0.set_aside.0.set(Box::new(read));
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new(&SdkMeterProvider::default().meter("delos-deploy"))
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Metrics")
    }
}

fn counter(meter: &Meter, name: &'static str, description: &'static str) -> Counter<u64> {
    meter
        .u64_counter(name)
        .with_description(description)
        .build()
}

fn histogram(
    meter: &Meter,
    name: &'static str,
    description: &'static str,
    buckets_seconds: &[f64],
) -> Histogram<f64> {
    meter
        .f64_histogram(name)
        .with_description(description)
        .with_unit("s")
        .with_boundaries(buckets_seconds.to_vec())
        .build()
}

type ReadSetAside = Box<dyn Fn() -> BTreeMap<&'static str, u64> + Send + Sync>;

/// What counts the rows that are set aside.
#[derive(Clone, Default)]
struct SetAside(Arc<OnceLock<ReadSetAside>>);

impl SetAside {
    fn gauge(&self, meter: &Meter) -> ObservableGauge<u64> {
        let reading = Arc::clone(&self.0);
        meter
            .u64_observable_gauge("deploy.rows.set_aside")
            .with_description("Rows that can't be read, as this process has met them.")
            .with_callback(move |gauge| {
                let counts = reading.get().map(|read| read()).unwrap_or_default();
                for (table, rows) in counts {
                    gauge.observe(rows, &[KeyValue::new("table", table)]);
                }
            })
            .build()
    }
}

type ReadPool = Box<dyn Fn() -> (u64, u64) + Send + Sync>;

/// The pools that one gauge reads.
#[derive(Clone, Default)]
struct Pools(Arc<RwLock<Vec<(Label, ReadPool)>>>);

impl Pools {
    fn add(&self, name: Label, read: ReadPool) {
        let mut pools = self.0.write().unwrap_or_else(PoisonError::into_inner);
        pools.retain(|(known, _)| *known != name);
        pools.push((name, read));
    }

    fn gauge(&self, meter: &Meter) -> ObservableGauge<u64> {
        let pools = self.clone();
        meter
            .u64_observable_gauge("deploy.pool.connections")
            .with_description("Connections of a pool, in use and idle.")
            .with_callback(move |gauge| pools.observe(gauge))
            .build()
    }

    fn observe(&self, gauge: &dyn AsyncInstrument<u64>) {
        let pools = self.0.read().unwrap_or_else(PoisonError::into_inner);
        for (name, read) in pools.iter() {
            let (in_use, idle) = read();
            for (state, connections) in [("in_use", in_use), ("idle", idle)] {
                let pool = KeyValue::new("pool", name.clone());
                gauge.observe(connections, &[pool, KeyValue::new("state", state)]);
            }
        }
    }
}
