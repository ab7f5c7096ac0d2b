//! What is kept of each unit, and what all of them add up to.
//!
//! What is added up is sums, so that replicas add to the same rows without reading them, and so
//! that what a unit showed can be taken out again. The values are between 0 and 1, and a double
//! keeps their squares apart from their mean for any number of units that there can be.

use std::collections::HashMap;

use uuid::Uuid;

use super::{
    cohort::{Cohort, Side},
    report::Known,
};
use crate::domain::analysis::{Limits, Metric, Moments};

/// What is known of a unit within its scope.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Tally {
    /// The cohort in which it was seen first.
    pub cohort: Uuid,
    /// The side on which it was seen first.
    pub side: Side,
    /// Where it lies, in whole percent.
    pub band: u8,
    /// Whether it was seen on the other side since, so that it is no evidence for the first.
    pub has_moved: bool,
    /// Each metric, in the order of [`Metric::ALL`].
    pub metrics: [Total; 4],
}

/// Values and how many they were.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Total {
    /// How many.
    pub n: u32,
    /// Their sum.
    pub sum: f64,
}

/// The units of one side of a cohort that lie in one band.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group {
    /// The cohort.
    pub cohort: Uuid,
    /// The side.
    pub side: Side,
    /// The band, in whole percent; 0 where there is no unit.
    pub band: u8,
}

/// Sums over a group, or what is to be added to them.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Sums {
    /// Units that were seen first here.
    pub units: i64,
    /// Calls.
    pub calls: i64,
    /// Calls that failed.
    pub failures: i64,
    /// Latencies, in milliseconds.
    pub latency: Counted,
    /// Costs, in USD.
    pub cost: Counted,
    /// Quality scores.
    pub quality: Counted,
    /// Units by what they showed in each metric, in the order of [`Metric::ALL`].
    pub metrics: [UnitSums; 4],
}

/// A sum and of how many.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Counted {
    /// How many.
    pub n: i64,
    /// Their sum.
    pub sum: f64,
}

/// Units by what they showed in a metric.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct UnitSums {
    /// How many units.
    pub n: i64,
    /// The sum of their values.
    pub sum: f64,
    /// The sum of the squares.
    pub squares: f64,
}

/// The live metrics of a side.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Metrics {
    /// Calls.
    pub calls: i64,
    /// Units.
    pub units: i64,
    /// Failed calls as a share of all, 0 to 1.
    pub error_rate: f64,
    /// Mean latency in milliseconds; 0 where none is known.
    pub latency_ms: f64,
    /// Mean quality score, 0 to 1; 0 where none is known.
    pub quality: f64,
    /// Mean cost in USD; 0 where none is known.
    pub cost_usd: f64,
    /// How many scores the quality is the mean of.
    pub scores: i64,
}

/// Takes in outcomes, one after the other, and keeps what is to be stored.
#[derive(Debug, Default)]
pub struct Fold {
    tallies: HashMap<(Uuid, Uuid), Tally>,
    sums: HashMap<Group, Sums>,
}

impl Total {
    fn add(&mut self, value: f64) {
        self.n = self.n.saturating_add(1);
        self.sum += value;
    }

    /// The mean; none of nothing.
    #[must_use]
    pub fn mean(&self) -> Option<f64> {
        (self.n > 0).then(|| (self.sum / f64::from(self.n)).clamp(0.0, 1.0))
    }
}

impl Counted {
    fn add(&mut self, value: Option<f64>) {
        if let Some(value) = value {
            self.n += 1;
            self.sum += value;
        }
    }

    fn mean(&self) -> f64 {
        if self.n > 0 {
            self.sum / self.n as f64
        } else {
            0.0
        }
    }
}

impl UnitSums {
    fn change(&mut self, before: Option<f64>, after: Option<f64>) {
        let mut count = |value: Option<f64>, sign: f64, n: i64| {
            if let Some(value) = value {
                self.n += n;
                self.sum += sign * value;
                self.squares += sign * value * value;
            }
        };
        count(before, -1.0, -1);
        count(after, 1.0, 1);
    }

    /// The same as count, mean and squared deviations.
    #[must_use]
    pub fn moments(&self) -> Moments {
        let Some(n) = u64::try_from(self.n).ok().filter(|n| *n > 0) else {
            return Moments::default();
        };
        // Rounding may carry what is at an end beyond it.
        let mean = (self.sum / n as f64).clamp(0.0, 1.0);
        let most = n as f64 * mean * (1.0 - mean);
        let m2 = (self.squares - self.sum * mean).clamp(0.0, most);
        Moments { n, mean, m2 }
    }
}

impl Sums {
    /// The live metrics that they are.
    #[must_use]
    pub fn metrics(&self) -> Metrics {
        Metrics {
            calls: self.calls,
            units: self.units,
            error_rate: if self.calls > 0 {
                self.failures as f64 / self.calls as f64
            } else {
                0.0
            },
            latency_ms: self.latency.mean(),
            quality: self.quality.mean(),
            cost_usd: self.cost.mean(),
            scores: self.quality.n,
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        let counted = |one: Counted, other: Counted| Counted {
            n: one.n + other.n,
            sum: one.sum + other.sum,
        };
        let mut metrics = self.metrics;
        for (sums, other) in metrics.iter_mut().zip(&other.metrics) {
            sums.n += other.n;
            sums.sum += other.sum;
            sums.squares += other.squares;
        }
        Self {
            units: self.units + other.units,
            calls: self.calls + other.calls,
            failures: self.failures + other.failures,
            latency: counted(self.latency, other.latency),
            cost: counted(self.cost, other.cost),
            quality: counted(self.quality, other.quality),
            metrics,
        }
    }

    fn count(&mut self, known: &Known) {
        self.calls += 1;
        self.failures += i64::from(known.error);
        self.latency.add(known.latency_ms);
        self.cost.add(known.cost_usd);
        self.quality.add(known.quality_score);
    }
}

impl Fold {
    /// Over units of which something is known already, by scope and key.
    #[must_use]
    pub fn over(tallies: HashMap<(Uuid, Uuid), Tally>) -> Self {
        Self {
            tallies,
            sums: HashMap::new(),
        }
    }

    /// Takes in a call.
    pub fn call(&mut self, cohort: &Cohort, side: Side, unit: Option<(Uuid, u8)>, known: &Known) {
        let band = unit.map_or(0, |(_, band)| band);
        let group = Group {
            cohort: cohort.id,
            side,
            band,
        };
        self.sums.entry(group).or_default().count(known);
        let Some((key, band)) = unit else { return };
        let scope = (cohort.scope(), key);
        let mut tally = self.tallies.get(&scope).copied().unwrap_or_else(|| {
            self.sums.entry(group).or_default().units += 1;
            Tally {
                cohort: cohort.id,
                side,
                band,
                has_moved: false,
                metrics: Default::default(),
            }
        });
        if tally.side == side && !tally.has_moved {
            let before = tally.metrics;
            tally.add(known, &cohort.limits);
            self.shift(&tally, &before, &tally.metrics);
        } else if tally.side == Side::Stable && !tally.has_moved {
            // It gets the new version now. What it showed before says nothing about those who
            // still get the old one, and with what it brings along it can't be compared either.
            tally.has_moved = true;
            self.shift(&tally, &tally.metrics, &Default::default());
        }
        self.tallies.insert(scope, tally);
    }

    /// Takes in the score of a call that was taken in before.
    pub fn score(&mut self, cohort: &Cohort, side: Side, unit: Option<(Uuid, u8)>, quality: f64) {
        let group = Group {
            cohort: cohort.id,
            side,
            band: unit.map_or(0, |(_, band)| band),
        };
        self.sums
            .entry(group)
            .or_default()
            .quality
            .add(Some(quality));
        let Some((key, _)) = unit else { return };
        let scope = (cohort.scope(), key);
        let Some(mut tally) = self.tallies.get(&scope).copied() else {
            return;
        };
        if tally.side == side && !tally.has_moved {
            let before = tally.metrics;
            tally.metrics[Metric::Quality.index()].add(quality);
            self.shift(&tally, &before, &tally.metrics);
            self.tallies.insert(scope, tally);
        }
    }

    /// What is known of each unit that came up, and what is to be added to each group.
    #[must_use]
    pub fn finish(self) -> (HashMap<(Uuid, Uuid), Tally>, HashMap<Group, Sums>) {
        (self.tallies, self.sums)
    }

    fn shift(&mut self, tally: &Tally, before: &[Total; 4], after: &[Total; 4]) {
        let group = Group {
            cohort: tally.cohort,
            side: tally.side,
            band: tally.band,
        };
        let sums = self.sums.entry(group).or_default();
        for (sums, (before, after)) in sums.metrics.iter_mut().zip(before.iter().zip(after)) {
            if before != after {
                sums.change(before.mean(), after.mean());
            }
        }
    }
}

impl Tally {
    fn add(&mut self, known: &Known, limits: &Limits) {
        let within = |value: Option<f64>, limit: Option<f64>| {
            let is_within = value.zip(limit).map(|(value, limit)| value <= limit);
            is_within.map(|is_within| f64::from(u8::from(is_within)))
        };
        for metric in Metric::ALL {
            let value = match metric {
                Metric::Quality => known.quality_score,
                Metric::Success => Some(f64::from(u8::from(!known.error))),
                Metric::Latency => within(known.latency_ms, limits.latency_ms),
                Metric::Cost => within(known.cost_usd, limits.cost_usd),
            };
            if let Some(value) = value {
                self.metrics[metric.index()].add(value);
            }
        }
    }
}
