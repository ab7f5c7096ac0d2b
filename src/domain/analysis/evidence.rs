//! What has been seen of a rollout: aggregates, never single calls.

use super::{moments::Moments, policy::Metric};
use crate::domain::Timestamp;

/// What has been seen of a rollout up to now.
#[derive(Debug, Clone, PartialEq)]
pub struct Evidence {
    /// Each metric that anything was reported for.
    pub metrics: Vec<MetricEvidence>,
    /// Who was assigned to which arm, in each stage.
    pub assignments: Vec<Assigned>,
    /// The last calls, for the circuit breaker.
    pub recent: Recent,
    /// Since when the rollout has been waiting for evidence: when its stage could have ended.
    pub waiting_since: Timestamp,
    /// Whether it is the first version: nothing was served before, so that there is nothing to
    /// compare it with.
    pub is_first: bool,
}

/// What has been seen of a metric.
#[derive(Debug, Clone, PartialEq)]
pub struct MetricEvidence {
    /// Which.
    pub metric: Metric,
    /// One for each stage of the rollout.
    pub strata: Vec<Stratum>,
    /// The stable version's units before the rollout began; none where nobody knows.
    pub stable_before: Moments,
    /// The stable version's units of late.
    pub stable_now: Moments,
}

/// Units that can be compared: seen first in the same stage of a rollout, each of which counts
/// once. A unit is what is assigned to an arm, such as a user or a session.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stratum {
    /// Those of the version that is being rolled out.
    pub candidate: Moments,
    /// Those of the version that is being replaced, over the same time.
    pub stable: Moments,
}

/// Who was assigned to which arm in a stage.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Assigned {
    /// Units that the candidate saw first.
    pub candidate: u64,
    /// Units that the stable version saw first.
    pub stable: u64,
    /// The candidate's share of them as it was meant, 0 to 1.
    pub share: f64,
}

/// Calls and how many of them failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Calls {
    /// All.
    pub all: u64,
    /// Those that failed, of `all`.
    pub failed: u64,
}

/// The last calls of the candidate, and those of the stable version over the same time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Recent {
    /// The candidate's last calls, as many as the breaker looks at.
    pub candidate: Calls,
    /// The stable version's calls since the first of them.
    pub stable: Calls,
}

impl Evidence {
    /// What has been seen of a metric, where anything has.
    #[must_use]
    pub fn of(&self, metric: Metric) -> Option<&MetricEvidence> {
        self.metrics.iter().find(|seen| seen.metric == metric)
    }
}

impl MetricEvidence {
    /// Whether numbers between 0 and 1 can have come to this.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        self.stable_before.is_possible()
            && self.stable_now.is_possible()
            && self
                .strata
                .iter()
                .all(|stratum| stratum.candidate.is_possible() && stratum.stable.is_possible())
    }

    /// Units that are compared: the candidate's and the stable version's. A stratum with one arm
    /// only has nothing to compare.
    #[must_use]
    pub fn compared(&self) -> (u64, u64) {
        let both = self.strata.iter().filter(|stratum| stratum.has_both());
        both.fold((0_u64, 0_u64), |(candidate, stable), stratum| {
            (
                candidate.saturating_add(stratum.candidate.n),
                stable.saturating_add(stratum.stable.n),
            )
        })
    }

    /// All the units of the candidate, and all of the stable version.
    #[must_use]
    pub fn pooled(&self) -> Stratum {
        let strata = self.strata.iter();
        strata.fold(Stratum::default(), |all, stratum| Stratum {
            candidate: all.candidate.merge(stratum.candidate),
            stable: all.stable.merge(stratum.stable),
        })
    }
}

impl Stratum {
    /// Whether there is anything to compare.
    #[must_use]
    pub fn has_both(&self) -> bool {
        self.candidate.n > 0 && self.stable.n > 0
    }

    /// How many units a comparison within it rests on; see `Difference::units`.
    #[must_use]
    pub fn units(&self) -> f64 {
        let (candidate, stable) = (self.candidate.count(), self.stable.count());
        candidate * stable / (candidate + stable)
    }
}

impl Calls {
    /// The share that failed, 0 to 1; none where there were no calls.
    #[must_use]
    pub fn failed_share(&self) -> Option<f64> {
        (self.all > 0).then(|| self.failed as f64 / self.all as f64)
    }
}
