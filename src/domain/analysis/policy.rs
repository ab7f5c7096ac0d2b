//! What a rollout has to show, and what happens when it does not.

use std::time::Duration;

use super::sequence::Sequence;

/// What is measured on a unit, as a number between 0 and 1, more of which is better.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Metric {
    /// The mean of its quality scores.
    Quality,
    /// The share of its calls that did not fail.
    Success,
    /// The share of its calls that took no longer than the limit.
    Latency,
    /// The share of its calls that cost no more than the budget.
    Cost,
}

impl Metric {
    /// Every metric, in the order in which they are declared.
    pub const ALL: [Self; 4] = [Self::Quality, Self::Success, Self::Latency, Self::Cost];

    /// Where it stands in [`Metric::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Quality => "quality",
            Self::Success => "success",
            Self::Latency => "latency",
            Self::Cost => "cost",
        }
    }

    /// What the number is, for people.
    #[must_use]
    pub fn in_words(self) -> &'static str {
        match self {
            Self::Quality => "quality score",
            Self::Success => "share of calls without an error",
            Self::Latency => "share of calls within the latency limit",
            Self::Cost => "share of calls within the budget",
        }
    }
}

/// How a metric of the candidate may differ from that of the version it replaces.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// Which.
    pub metric: Metric,
    /// BAD where it is shown to be worse by more than this, 0 to 1.
    pub tolerance: f64,
    /// GOOD where it is shown not to be worse by this, above 0, at most 1.
    pub margin: f64,
}

impl Comparison {
    /// The defaults: any harm that is shown is too much, and what is not shown may be 5 points, or
    /// 2 of success.
    #[must_use]
    pub fn of(metric: Metric) -> Self {
        let margin = match metric {
            Metric::Success => 0.02,
            Metric::Quality | Metric::Latency | Metric::Cost => 0.05,
        };
        Self {
            metric,
            tolerance: 0.0,
            margin,
        }
    }
}

/// The least quality that is acceptable, whatever the version before had.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Floor {
    /// BAD where quality is shown to be below this, 0 to 1.
    pub threshold: f64,
    /// GOOD where quality is shown to be above the threshold less this, above 0, at most 1.
    pub margin: f64,
}

impl Floor {
    /// A floor with the default margin.
    #[must_use]
    pub fn at(threshold: f64) -> Self {
        Self {
            threshold,
            margin: 0.05,
        }
    }
}

/// When the obvious needs no statistics.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Breaker {
    /// How many calls it looks at; 0 turns it off.
    pub calls: u64,
    /// How many of them have to fail.
    pub failed: u64,
    /// The stable version is fine where at most this share of its calls failed, 0 to 1.
    pub stable_failed_share_max: f64,
}

/// What becomes of a rollout whose step is due, and that has shown neither good nor bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WithoutEvidence {
    /// It stays where it is until its deadline, and fails then.
    Hold,
    /// It goes on.
    Advance,
    /// It stays where it is until its deadline, and is rolled back then.
    RollBack,
}

/// What a call may take, where a policy says so.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    /// In milliseconds.
    pub latency_ms: Option<f64>,
    /// In USD.
    pub cost_usd: Option<f64>,
}

/// What a rollout has to show.
#[derive(Debug, Clone, PartialEq)]
pub struct AnalysisPolicy {
    /// Probability that a version that is no worse is ever rolled back by its metrics, in a whole
    /// rollout; above 0, below 0.5. It is split over the checks.
    pub alpha_rollback: f64,
    /// Probability that a version that is worse by a margin ever passes; above 0, below 0.5. It is
    /// not split, since every check has to pass.
    pub alpha_advance: f64,
    /// Units of each arm before a metric can be BAD.
    pub units_rollback_min: u64,
    /// Units of each arm before a metric can be GOOD.
    pub units_advance_min: u64,
    /// How many units the bands are sharpest at, above 0.
    pub sharpest_at_units: f64,
    /// Which metrics are compared with the version before; at most one entry for each.
    pub comparisons: Vec<Comparison>,
    /// What a call may take, for latency and cost, each of which is compared only with a limit.
    pub limits: Limits,
    /// The least quality, where there is one.
    pub floor: Option<Floor>,
    /// The circuit breaker.
    pub breaker: Breaker,
    /// How far the stable version itself has to have fallen for it to be the provider, 0 to 1.
    pub provider_margin: f64,
    /// Probability that sound assignments are ever taken for broken; above 0, below 0.5.
    pub alpha_assignment: f64,
    /// What becomes of it without evidence.
    pub without_evidence: WithoutEvidence,
    /// How long evidence is waited for, from when a stage could have ended.
    pub hold_max: Duration,
}

impl Default for AnalysisPolicy {
    fn default() -> Self {
        Self {
            alpha_rollback: 0.01,
            alpha_advance: 0.05,
            units_rollback_min: 30,
            units_advance_min: 100,
            sharpest_at_units: 100.0,
            comparisons: [Metric::Quality, Metric::Success]
                .map(Comparison::of)
                .to_vec(),
            limits: Limits::default(),
            floor: None,
            breaker: Breaker {
                calls: 10,
                failed: 8,
                stable_failed_share_max: 0.1,
            },
            provider_margin: 0.05,
            alpha_assignment: 0.001,
            without_evidence: WithoutEvidence::Hold,
            hold_max: Duration::from_hours(24),
        }
    }
}

/// Assignments are counted over all units, of which there are many more than of the candidate's.
const ASSIGNMENTS_SHARPEST_AT: f64 = 1000.0;

impl AnalysisPolicy {
    /// What shows that a metric is worse.
    #[must_use]
    pub fn rollback_sequence(&self) -> Sequence {
        let checks = self.comparisons.len() + usize::from(self.floor.is_some());
        Sequence::new(
            self.alpha_rollback / checks.max(1) as f64,
            self.sharpest_at_units,
        )
    }

    /// What shows that a metric is no worse than its margin.
    #[must_use]
    pub fn advance_sequence(&self) -> Sequence {
        Sequence::new(self.alpha_advance, self.sharpest_at_units)
    }

    /// What shows that assignments are broken, in any of so many stages, on either side.
    #[must_use]
    pub fn assignment_sequence(&self, stages: usize) -> Sequence {
        let sides = 2.0 * stages.max(1) as f64;
        Sequence::new(self.alpha_assignment / sides, ASSIGNMENTS_SHARPEST_AT)
    }

    /// Whether every number is in its range, and no metric is asked for twice.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        let is_alpha = |alpha: f64| alpha > 0.0 && alpha < 0.5;
        let is_share = |share: f64| (0.0..=1.0).contains(&share);
        let once = |metric| {
            let asked = self.comparisons.iter();
            asked.filter(|asked| asked.metric == metric).count() <= 1
        };
        [
            self.alpha_rollback,
            self.alpha_advance,
            self.alpha_assignment,
        ]
        .into_iter()
        .all(is_alpha)
            && self.sharpest_at_units.is_finite()
            && self.sharpest_at_units > 0.0
            && is_share(self.provider_margin)
            && is_share(self.breaker.stable_failed_share_max)
            && self.breaker.failed <= self.breaker.calls
            && (self.breaker.failed > 0 || self.breaker.calls == 0)
            && Metric::ALL.into_iter().all(once)
            && self
                .comparisons
                .iter()
                .all(|asked| is_share(asked.tolerance) && is_share(asked.margin))
            && self
                .floor
                .is_none_or(|floor| is_share(floor.threshold) && is_share(floor.margin))
    }

    /// Whether any check needs a metric.
    pub(super) fn asks_for(&self, metric: Metric) -> bool {
        let compares = self.comparisons.iter().any(|asked| asked.metric == metric);
        compares || (metric == Metric::Quality && self.floor.is_some())
    }

    /// Whether no metric has to show anything.
    pub(super) fn asks_for_nothing(&self) -> bool {
        self.comparisons.is_empty() && self.floor.is_none()
    }
}
