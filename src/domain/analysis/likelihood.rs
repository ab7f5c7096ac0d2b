//! How much speaks against a level, or against a difference between two arms: the log of a
//! likelihood ratio.
//!
//! A unit that passes or fails follows a Bernoulli distribution. Scores between 0 and 1 scatter
//! less; how much less is estimated for each arm (its *dispersion*, 1 for pass or fail), and a
//! unit counts for 1/dispersion units. That is the quasi-likelihood of Wedderburn (Biometrika
//! 61(3), 1974) with the binomial variance function. It knows that a rate of 0.99 has little room
//! above and much below, which a mean with a standard error does not.

use super::{evidence::Stratum, moments::Moments};

/// Steps to find the level of the stable arm that fits best; Newton's take five or so.
const STEPS: u32 = 40;
/// How near a level has to be.
const TOLERANCE: f64 = 1e-10;
/// Halvings to find the difference that fits best, over several strata.
const HALVINGS: u32 = 40;

/// Something that was measured, and how much speaks against its being something else.
pub trait Measured {
    /// The least value that is possible; the greatest is 1.
    const LEAST: f64;

    /// The value that fits best.
    fn estimate(&self) -> f64;

    /// How many units it rests on: the variance of the estimate falls with them.
    fn units(&self) -> f64;

    /// How much speaks against a value, in nats: 0 at the estimate, more on either side.
    fn evidence_against(&self, value: f64) -> f64;
}

/// The units of an arm as if each passed or failed.
#[derive(Debug, Clone, Copy)]
struct Arm {
    /// How many, after dispersion.
    weight: f64,
    /// The share that passed.
    mean: f64,
}

/// The candidate beside the stable version, in one stratum.
#[derive(Debug, Clone, Copy)]
struct Pair {
    candidate: Arm,
    stable: Arm,
}

/// The candidate's difference from the stable version: −1 to 1, below 0 where it is worse. It rests
/// on `n_c·n_s/(n_c + n_s)` units in each stratum, however the traffic is split.
#[derive(Debug, Clone)]
pub struct Difference {
    pairs: Vec<Pair>,
    units: f64,
    estimate: f64,
    deviance: f64,
}

impl Difference {
    /// The difference over strata with possible moments; none where no stratum has units of both
    /// arms. Strata are compared each within itself, and weigh by what they tell.
    #[must_use]
    pub fn of(strata: &[Stratum]) -> Option<Self> {
        let both = || strata.iter().filter(|stratum| stratum.has_both());
        let candidate = dispersion(both().map(|stratum| &stratum.candidate));
        let stable = dispersion(both().map(|stratum| &stratum.stable));
        let pairs: Vec<_> = both()
            .map(|stratum| Pair {
                candidate: Arm::of(&stratum.candidate, candidate),
                stable: Arm::of(&stratum.stable, stable),
            })
            .collect();
        let estimate = best_difference(&pairs)?;
        let mut difference = Self {
            pairs,
            units: both().map(Stratum::units).sum(),
            estimate,
            deviance: 0.0,
        };
        difference.deviance = difference.deviance(estimate);
        Some(difference)
    }

    fn deviance(&self, difference: f64) -> f64 {
        let each = self.pairs.iter().map(|pair| {
            let stable = pair.best_stable(difference);
            pair.candidate.deviance(stable + difference) + pair.stable.deviance(stable)
        });
        each.sum()
    }
}

impl Measured for Difference {
    const LEAST: f64 = -1.0;

    fn estimate(&self) -> f64 {
        self.estimate
    }

    fn units(&self) -> f64 {
        self.units
    }

    fn evidence_against(&self, value: f64) -> f64 {
        (self.deviance(value) - self.deviance).max(0.0)
    }
}

/// The level of one arm, 0 to 1.
#[derive(Debug, Clone, Copy)]
pub struct Level {
    arm: Arm,
    units: f64,
}

impl Level {
    /// The level of units with possible moments; none where there are none.
    #[must_use]
    pub fn of(moments: &Moments) -> Option<Self> {
        let dispersion = dispersion(std::iter::once(moments));
        (moments.n > 0).then(|| Self {
            arm: Arm::of(moments, dispersion),
            units: moments.count(),
        })
    }
}

impl Measured for Level {
    const LEAST: f64 = 0.0;

    fn estimate(&self) -> f64 {
        self.arm.mean
    }

    fn units(&self) -> f64 {
        self.units
    }

    fn evidence_against(&self, value: f64) -> f64 {
        self.arm.deviance(value)
    }
}

impl Arm {
    fn of(moments: &Moments, dispersion: f64) -> Self {
        Self {
            weight: moments.count() / dispersion,
            // Rounding may carry a mean over the edge.
            mean: moments.mean.clamp(0.0, 1.0),
        }
    }

    /// How much less likely the units are at `level` than at their own mean, in nats.
    fn deviance(&self, level: f64) -> f64 {
        let part = |mean: f64, level: f64| {
            if mean > 0.0 {
                mean * (mean / level.max(0.0)).ln()
            } else {
                0.0
            }
        };
        self.weight * (part(self.mean, level) + part(1.0 - self.mean, 1.0 - level))
    }

    /// The slope of the log-likelihood at `level`, within 0 and 1.
    fn slope(&self, level: f64) -> f64 {
        self.weight * (self.mean / level - (1.0 - self.mean) / (1.0 - level))
    }

    /// How fast that slope falls.
    fn curvature(&self, level: f64) -> f64 {
        let (below, above) = (level * level, (1.0 - level) * (1.0 - level));
        self.weight * (self.mean / below + (1.0 - self.mean) / above)
    }
}

impl Pair {
    /// The stable arm's level that fits best where the candidate's is `difference` above it.
    fn best_stable(&self, difference: f64) -> f64 {
        let (mut low, mut high) = ((-difference).max(0.0), (1.0 - difference).min(1.0));
        let pooled = (self.candidate.weight * (self.candidate.mean - difference)
            + self.stable.weight * self.stable.mean)
            / (self.candidate.weight + self.stable.weight);
        let mut level = pooled.clamp(low, high.max(low));
        for _ in 0..STEPS {
            if level <= low || level >= high {
                level = f64::midpoint(low, high);
            }
            let slope = self.candidate.slope(level + difference) + self.stable.slope(level);
            if slope > 0.0 {
                low = level;
            } else {
                high = level;
            }
            let curvature =
                self.candidate.curvature(level + difference) + self.stable.curvature(level);
            let step = slope / curvature;
            if step.abs() < TOLERANCE || high - low < TOLERANCE {
                break;
            }
            level += step;
        }
        level
    }
}

/// The difference that fits best: that of the only stratum, or the one between the strata's own
/// at which their pulls cancel.
fn best_difference(pairs: &[Pair]) -> Option<f64> {
    let each = || {
        pairs
            .iter()
            .map(|pair| pair.candidate.mean - pair.stable.mean)
    };
    let mut low = each().reduce(f64::min)?;
    let mut high = each().reduce(f64::max)?;
    for _ in 0..HALVINGS {
        if high - low < TOLERANCE {
            break;
        }
        let middle = f64::midpoint(low, high);
        let pull: f64 = pairs
            .iter()
            .map(|pair| {
                let candidate = pair.best_stable(middle) + middle;
                pair.candidate.slope(candidate)
            })
            .sum();
        if pull > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    Some(f64::midpoint(low, high))
}

/// How much the units of an arm scatter within its strata, beside units that pass or fail: above
/// 0, at most 1. A 0 and a 1 are added on both sides, so that a few units that happen to be equal
/// do not pass for units that never differ.
fn dispersion<'a>(strata: impl Iterator<Item = &'a Moments>) -> f64 {
    let (mut all, mut scatter, mut binomial) = (Moments::default(), 0.0, 0.0);
    for moments in strata {
        all = all.merge(*moments);
        scatter += moments.m2;
        binomial += moments.binomial();
    }
    let padding = all.padding();
    ((scatter + padding) / (binomial + padding)).min(1.0)
}
