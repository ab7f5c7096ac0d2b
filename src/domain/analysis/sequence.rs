//! Confidence sequences: what has been shown, however often one looks.
//!
//! The evidence against a value is the log of a likelihood ratio (`likelihood`), which behaves as
//! half the square of a normal process over its variance. A sequence says how much of it excludes
//! a value: the boundary of a normal mixture, which such a process crosses with probability α at
//! most, over all time. It is the one-sided boundary of Waudby-Smith, Arbour, Sinha, Kennedy and
//! Ramdas (Annals of Statistics 52(6), 2024, arXiv 2103.06476).

use super::likelihood::Measured;

/// Halvings to find a bound: to within two millionths.
const HALVINGS: u32 = 20;

/// A one-sided confidence sequence.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sequence {
    /// Probability that a true value is ever excluded; above 0, below 0.5.
    alpha: f64,
    /// The variance of the mixture, for each unit.
    rho_squared: f64,
}

impl Sequence {
    /// One that excludes a true value with probability `alpha` at most (above 0, below 0.5; one
    /// that is not excludes nothing), and that is sharpest at `sharpest_at` units.
    #[must_use]
    pub fn new(alpha: f64, sharpest_at: f64) -> Self {
        let log = -2.0 * (2.0 * alpha).ln();
        Self {
            alpha,
            rho_squared: (log + log.ln() + 1.0) / sharpest_at,
        }
    }

    /// How often a true value is not excluded: 1 − α.
    #[must_use]
    pub fn confidence(&self) -> f64 {
        1.0 - self.alpha
    }

    /// The evidence that excludes a value after so many units, in nats.
    #[must_use]
    pub fn evidence_needed(&self, units: f64) -> f64 {
        let time = units * self.rho_squared;
        (1.0 + 1.0 / time) * ((time + 1.0).sqrt() / (2.0 * self.alpha)).ln_1p()
    }

    /// Whether what was measured is shown to be below `limit`.
    #[must_use]
    pub fn is_below(&self, measured: &impl Measured, limit: f64) -> bool {
        measured.estimate() < limit && self.excludes(measured, limit)
    }

    /// Whether what was measured is shown to be above `limit`.
    #[must_use]
    pub fn is_above(&self, measured: &impl Measured, limit: f64) -> bool {
        measured.estimate() > limit && self.excludes(measured, limit)
    }

    /// The highest value that is not excluded, to two millionths and never too low.
    #[must_use]
    pub fn upper(&self, measured: &impl Measured) -> f64 {
        self.outermost(measured, 1.0)
    }

    /// The lowest value that is not excluded, to two millionths and never too high.
    #[must_use]
    pub fn lower<M: Measured>(&self, measured: &M) -> f64 {
        self.outermost(measured, M::LEAST)
    }

    /// Whether there is enough evidence against a value.
    #[must_use]
    pub fn excludes(&self, measured: &impl Measured, value: f64) -> bool {
        measured.evidence_against(value) > self.evidence_needed(measured.units())
    }

    /// The value nearest to the estimate on the way to `end` that is excluded; `end` where none
    /// is. Evidence grows on that way.
    fn outermost(&self, measured: &impl Measured, end: f64) -> f64 {
        let (mut inner, mut outer) = (measured.estimate(), end);
        for _ in 0..HALVINGS {
            let middle = f64::midpoint(inner, outer);
            if self.excludes(measured, middle) {
                outer = middle;
            } else {
                inner = middle;
            }
        }
        outer
    }
}
