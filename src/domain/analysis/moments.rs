//! What is kept of an arm's units: how many, their mean, and how far they scatter.

/// Count, mean and sum of squared deviations of the units of an arm; each unit is a number between
/// 0 and 1, the mean of what was measured on it.
///
/// Updated as by Welford (Technometrics 4(3), 1962) and merged as by Chan, Golub and LeVeque
/// (1979), so that replicas can count apart, in any order.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Moments {
    /// How many units.
    pub n: u64,
    /// Their mean, 0 to 1; 0 where there are none.
    pub mean: f64,
    /// The sum of their squared deviations from the mean; at most `n·mean·(1 − mean)`, which units
    /// that are 0 or 1 reach.
    pub m2: f64,
}

/// How far rounding may carry `m2` beyond what is possible, for each unit.
const ROUNDING: f64 = 1e-9;

impl Moments {
    /// Adds a unit.
    pub fn push(&mut self, value: f64) {
        self.n += 1;
        let before = value - self.mean;
        self.mean += before / self.count();
        self.m2 += before * (value - self.mean);
    }

    /// A unit that is counted has changed, since more was measured on it.
    pub fn replace(&mut self, from: f64, to: f64) {
        if self.n == 0 {
            return;
        }
        let before = self.mean;
        self.mean += (to - from) / self.count();
        self.m2 += (to - from) * (to - self.mean + from - before);
        self.m2 = self.m2.max(0.0);
    }

    /// Takes a unit out that is counted, since it has changed arms.
    pub fn remove(&mut self, value: f64) {
        if self.n <= 1 {
            *self = Self::default();
            return;
        }
        let before = self.mean;
        self.n -= 1;
        self.mean += (self.mean - value) / self.count();
        self.m2 = (self.m2 - (value - before) * (value - self.mean)).max(0.0);
    }

    /// Both together.
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        if self.n == 0 {
            return other;
        }
        let n = self.n.saturating_add(other.n);
        let difference = other.mean - self.mean;
        let share = other.count() / n as f64;
        Self {
            n,
            mean: self.mean + difference * share,
            m2: self.m2 + other.m2 + difference * difference * self.count() * share,
        }
    }

    /// How many units, as a number to calculate with.
    #[must_use]
    pub fn count(&self) -> f64 {
        self.n as f64
    }

    /// Whether numbers between 0 and 1 can have these moments.
    #[must_use]
    pub fn is_possible(&self) -> bool {
        (0.0..=1.0).contains(&self.mean)
            && self.m2 >= 0.0
            && self.m2 <= self.binomial() + ROUNDING * (1.0 + self.count())
    }

    /// What `m2` would be if every unit were 0 or 1.
    pub(super) fn binomial(&self) -> f64 {
        self.count() * self.mean * (1.0 - self.mean)
    }

    /// What a 0 and a 1 would add to `m2`.
    pub(super) fn padding(&self) -> f64 {
        let off_centre = self.mean - 0.5;
        0.5 + off_centre * off_centre * 2.0 * self.count() / (self.count() + 2.0)
    }
}
