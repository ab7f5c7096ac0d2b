//! What a policy will be able to see, at the traffic that there is.

use super::{
    evidence::Stratum,
    likelihood::Difference,
    moments::Moments,
    policy::{AnalysisPolicy, Comparison},
};

/// Halvings to find the smallest drop: to within a ten-thousandth.
const HALVINGS: u32 = 14;

/// Units that a stage of a rollout will have, by the time it is judged.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Expected {
    /// Of the version that is rolled out.
    pub candidate: f64,
    /// Of the one that it replaces.
    pub stable: f64,
}

impl AnalysisPolicy {
    /// The smallest drop of a metric that is found in half of the cases, over stages with so many
    /// units each, where the running version does as `running` says; none where even the greatest
    /// drop is not found.
    #[must_use]
    pub fn smallest_drop(
        &self,
        asked: &Comparison,
        running: &Moments,
        stages: &[Expected],
    ) -> Option<f64> {
        let sequence = self.rollback_sequence();
        let candidates: f64 = stages.iter().map(|stage| stage.candidate).sum();
        let is_enough = candidates >= self.units_rollback_min as f64;
        let is_found = |drop: f64| {
            let strata: Vec<_> = stages
                .iter()
                .map(|stage| stage.as_if(running, drop))
                .collect();
            let difference = Difference::of(&strata);
            difference.is_some_and(|difference| sequence.is_below(&difference, -asked.tolerance))
        };
        if running.n == 0 || !is_enough || !is_found(running.mean) {
            return None;
        }
        let (mut hidden, mut found) = (asked.tolerance.min(running.mean), running.mean);
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(hidden, found);
            if is_found(middle) {
                found = middle;
            } else {
                hidden = middle;
            }
        }
        Some(found)
    }
}

impl Expected {
    /// What would be seen of it if the new version did worse by `drop`, with no luck in either
    /// direction.
    fn as_if(self, running: &Moments, drop: f64) -> Stratum {
        let most = running.binomial();
        let dispersion = if most > 0.0 { running.m2 / most } else { 1.0 };
        let moments = |units: f64, mean: f64| {
            let n = units.round().max(0.0) as u64;
            let m2 = dispersion * n as f64 * mean * (1.0 - mean);
            Moments { n, mean, m2 }
        };
        Stratum {
            candidate: moments(self.candidate, (running.mean - drop).max(0.0)),
            stable: moments(self.stable, running.mean),
        }
    }
}
