//! Whether a version is worse than another one by more than a margin, on the same examples.
//!
//! `pairs` makes one difference for each example that both versions were evaluated on, `bound` says
//! how far below its mean the true one may be, `comparison` tells it in words.
//! `docs/deployments.md` has what that comes to in simulations.

mod bound;
mod comparison;
mod pairs;

#[cfg(test)]
mod tests;

pub use comparison::{Comparison, compare};
pub use pairs::{Both, Evaluation, Outcome};

/// How sure a bound is: at most 5 of 100 versions that are worse by the margin pass.
pub const CONFIDENCE: f64 = 0.95;
/// Fewest pairs that are judged: what the simulations begin with.
pub const PAIRS_MIN: usize = 30;
/// Least share of the examples of the larger run that must be paired, in percent. What is left out
/// may be what the new version is worse at.
pub const PAIRED_PERCENT_MIN: usize = 90;
