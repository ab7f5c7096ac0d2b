//! Rules that decide: the service's own, and those of others.

use delos_deploy::domain::analysis::{AnalysisPolicy, Difference, Moments, Sequence, Stratum};

/// The square of what a standard normal variable exceeds in 5 % of samples.
const T_SQUARED: f64 = 1.6449 * 1.6449;

/// A rule that finds a candidate worse, or no worse than a margin.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Rule {
    /// The candidate's mean is more than 0.05 below the stable version's, from so many units.
    Mean { units_min: u64 },
    /// A one-sided t-test at 5 %, as if one looked once, from so many units.
    TTest { units_min: u64 },
    /// The asymptotic confidence sequence of a difference of means, with padded variances, over
    /// all units and sharpest at 5,000.
    Asymptotic { alpha: f64, units_min: u64 },
    /// The service's.
    Delos { sequence: Sequence, units_min: u64 },
}

impl Rule {
    /// The service's, where it rolls back by default, with all of the error on one check.
    pub(crate) fn rollback() -> Self {
        Self::rollback_at(AnalysisPolicy::default().alpha_rollback)
    }

    /// The same, with so much of the error.
    pub(crate) fn rollback_at(alpha: f64) -> Self {
        let policy = AnalysisPolicy::default();
        Self::Delos {
            sequence: Sequence::new(alpha, policy.sharpest_at_units),
            units_min: policy.units_rollback_min,
        }
    }

    /// The service's, where it advances by default.
    pub(crate) fn advance() -> Self {
        let policy = AnalysisPolicy::default();
        Self::Delos {
            sequence: policy.advance_sequence(),
            units_min: policy.units_advance_min,
        }
    }

    /// Whether it rolls back.
    pub(crate) fn finds_worse(self, arms: &Stratum) -> bool {
        if arms.candidate.mean >= arms.stable.mean || !self.has_enough(arms) {
            return false;
        }
        match self {
            Self::Mean { .. } => arms.candidate.mean < arms.stable.mean - 0.05,
            Self::TTest { .. } => t_squared(arms) > T_SQUARED,
            Self::Asymptotic { alpha, .. } => asymptotic_excludes(arms, 0.0, alpha),
            Self::Delos { sequence, .. } => Difference::of(std::slice::from_ref(arms))
                .is_some_and(|difference| sequence.is_below(&difference, 0.0)),
        }
    }

    /// Whether it finds the candidate no worse than `margin`.
    pub(crate) fn finds_no_worse(self, arms: &Stratum, margin: f64) -> bool {
        if arms.candidate.mean <= arms.stable.mean - margin || !self.has_enough(arms) {
            return false;
        }
        match self {
            Self::Mean { .. } | Self::TTest { .. } => true,
            Self::Asymptotic { alpha, .. } => asymptotic_excludes(arms, -margin, alpha),
            Self::Delos { sequence, .. } => Difference::of(std::slice::from_ref(arms))
                .is_some_and(|difference| sequence.is_above(&difference, -margin)),
        }
    }

    fn has_enough(self, arms: &Stratum) -> bool {
        let units_min = match self {
            Self::Mean { units_min }
            | Self::TTest { units_min }
            | Self::Asymptotic { units_min, .. }
            | Self::Delos { units_min, .. } => units_min,
        };
        arms.candidate.n.min(arms.stable.n) >= units_min
    }
}

fn t_squared(arms: &Stratum) -> f64 {
    let squared_error = |arm: &Moments| arm.m2 / (arm.count() - 1.0) / arm.count();
    let difference = arms.candidate.mean - arms.stable.mean;
    difference * difference / (squared_error(&arms.candidate) + squared_error(&arms.stable))
}

/// The band that was recommended first: the same boundary, around a difference of means with a
/// padded standard error, over time in units of both arms.
fn asymptotic_excludes(arms: &Stratum, limit: f64, alpha: f64) -> bool {
    let squared_error = |arm: &Moments| {
        let zero_and_one = Moments {
            n: 2,
            mean: 0.5,
            m2: 0.5,
        };
        let padded = arm.merge(zero_and_one);
        padded.m2 / (padded.count() - 1.0) / arm.count()
    };
    let distance = arms.candidate.mean - arms.stable.mean - limit;
    let variance = squared_error(&arms.candidate) + squared_error(&arms.stable);
    let evidence = distance * distance / variance / 2.0;
    evidence
        > Sequence::new(alpha, 5000.0).evidence_needed(arms.candidate.count() + arms.stable.count())
}
