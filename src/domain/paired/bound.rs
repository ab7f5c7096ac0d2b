//! How low the mean of differences may be: a bound that holds with few of them, and where they
//! are lopsided or all equal.
//!
//! `mean − t·SE` breaks its promise where it matters most. Of versions that fail 5 of 100 examples
//! which the other one passes, one in five shows no failure on 30 examples: no scatter, a bound of
//! 0, and a pass. Two things mend that:
//!
//! - **One more pair that is as bad as can be** is counted among the differences. It stands for
//!   what so few examples can't have shown, and weighs less the more there are.
//! - **The likelihood ratio** of the empirical distribution (Owen, Biometrika 75(2), 1988) takes the
//!   place of the standard error. It knows on which side the differences are lopsided.
//!
//! What is excluded is measured by the quantile of the t distribution, as for `mean − t·SE`, with
//! which it agrees where the differences are many and even.

use statrs::distribution::{ContinuousCDF as _, StudentsT};

use super::CONFIDENCE;

/// Steps to find the likeliest weights; Newton's take ten or so.
const STEPS: u32 = 60;
/// How near they have to be.
const TOLERANCE: f64 = 1e-12;
/// Halvings to find the bound.
const HALVINGS: u32 = 60;
/// How often the smallest detectable drop is told from none.
const POWER: f64 = 0.8;

/// Differences, of which higher is better, and one more that is as bad as can be.
#[derive(Debug, Clone)]
pub(super) struct Sample {
    /// The differences, each within ± `worst`.
    values: Vec<f64>,
    /// How bad a difference can be: at least 0.
    worst: f64,
}

impl Sample {
    pub(super) fn new(values: Vec<f64>, worst: f64) -> Self {
        Self { values, worst }
    }

    /// The mean of the differences.
    pub(super) fn mean(&self) -> f64 {
        self.values.iter().sum::<f64>() / self.values.len() as f64
    }

    /// The differences and the worst.
    fn all(&self) -> impl Iterator<Item = f64> {
        self.values.iter().copied().chain([-self.worst])
    }

    fn count(&self) -> f64 {
        self.values.len() as f64 + 1.0
    }

    fn mean_of_all(&self) -> f64 {
        self.all().sum::<f64>() / self.count()
    }

    /// Whether the true mean is shown to be above `limit`.
    pub(super) fn is_above(&self, limit: f64) -> bool {
        let needed = self.quantile(CONFIDENCE);
        self.mean_of_all() > limit && self.evidence_against(limit) >= needed * needed
    }

    /// The highest multiple of `unit` that the true mean is shown to be above, or the worst that
    /// can be.
    pub(super) fn lower_bound(&self, unit: f64) -> f64 {
        let (mut low, mut high) = (-self.worst, self.mean_of_all());
        for _ in 0..HALVINGS {
            if high - low < unit / 8.0 {
                break;
            }
            let middle = f64::midpoint(low, high);
            if self.is_above(middle) {
                low = middle;
            } else {
                high = middle;
            }
        }
        // Divided, so that it reads as a decimal of as many places.
        let units = unit.recip().round();
        ((low * units).floor() / units).max(-self.worst)
    }

    /// How many.
    pub(super) fn pairs(&self) -> usize {
        self.values.len()
    }

    /// The smallest margin within which a version that is exactly as good is shown to be, in 8 of
    /// 10 times: what the worst pair takes off the mean, and the scatter of all of them.
    pub(super) fn detectable(&self) -> f64 {
        let share = 1.0 / self.count();
        let variance = self.variance() + self.worst * self.worst * share;
        self.worst * share + self.reach() * (variance * share).sqrt()
    }

    /// How many pairs that scatter as these do make a margin above 0 detectable: `detectable`,
    /// solved for their number.
    pub(super) fn pairs_for(&self, margin: f64) -> f64 {
        let reach = self.reach() * self.reach();
        let square = self.worst * self.worst * (1.0 - reach);
        let linear = 2.0 * margin * self.worst + reach * self.variance();
        let root = (linear * linear - 4.0 * square * margin * margin).sqrt();
        // The same as (linear − root)/2·square, which loses its digits.
        let share = 2.0 * margin * margin / (linear + root);
        (1.0 / share - 1.0).ceil()
    }

    /// The variance of the differences.
    fn variance(&self) -> f64 {
        let mean = self.mean();
        let scatter: f64 = self.values.iter().map(|value| (value - mean).powi(2)).sum();
        scatter / (self.count() - 2.0)
    }

    /// How many standard errors there are between a version that is as good and a margin that it is
    /// shown to be within.
    fn reach(&self) -> f64 {
        self.quantile(CONFIDENCE) + self.quantile(POWER)
    }

    /// Where a t distribution of as many degrees of freedom as there are pairs, less one, has
    /// `probability` below it; infinite, which excludes nothing, where there are none.
    fn quantile(&self, probability: f64) -> f64 {
        let freedom = self.values.len().saturating_sub(1) as f64;
        StudentsT::new(0.0, 1.0, freedom).map_or(f64::INFINITY, |t| t.inverse_cdf(probability))
    }

    /// How much less likely the differences are where their mean is `limit`, which is below that of
    /// all: twice the log of the likelihood ratio.
    fn evidence_against(&self, limit: f64) -> f64 {
        let lowest = self.all().fold(f64::INFINITY, f64::min) - limit;
        if lowest >= 0.0 {
            return f64::INFINITY;
        }
        // In units of the lowest, so that what is small and what is large is found alike.
        let scaled = || self.all().map(|value| (value - limit) / -lowest);
        let (mut low, mut high) = (0.0, 1.0 - 1.0 / self.count());
        let mut tilt = 0.0;
        for _ in 0..STEPS {
            let (mut pull, mut curvature) = (0.0, 0.0);
            for value in scaled() {
                let weighed = value / (1.0 + tilt * value);
                pull += weighed;
                curvature += weighed * weighed;
            }
            if pull > 0.0 {
                low = tilt;
            } else {
                high = tilt;
            }
            let step = pull / curvature;
            if step.abs() < TOLERANCE || high - low < TOLERANCE {
                break;
            }
            tilt += step;
            if tilt <= low || tilt >= high {
                tilt = f64::midpoint(low, high);
            }
        }
        2.0 * scaled().map(|value| (tilt * value).ln_1p()).sum::<f64>()
    }
}

#[cfg(test)]
mod tests;
