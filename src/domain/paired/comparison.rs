//! How two versions compare, and how that is told.

use super::{
    CONFIDENCE,
    pairs::{Both, Evaluation},
};
use crate::domain::gate::ConditionType;

/// How a version compares with another one on the same examples. Differences are the candidate's
/// measure less the other one's, in its unit: a score, milliseconds, or USD a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// What was compared.
    pub kind: ConditionType,
    /// How many examples.
    pub pairs: usize,
    /// The mean difference.
    pub mean: f64,
    /// What the true difference is no worse than, with [`CONFIDENCE`]: the least that a score may
    /// be, the most that a latency or cost may be.
    pub bound: f64,
    /// The smallest detectable drop (or rise): the smallest margin within which a version that is
    /// exactly as good is found in 8 of 10 times. Above 0.
    pub detectable: f64,
    /// About how many examples it takes for the margin to be detectable, where the bound does not
    /// meet it; none where these are enough, or where no number is (a margin of 0).
    pub needed: Option<u64>,
}

/// Most examples that are worth telling somebody to collect.
const NEEDED_MAX: f64 = 1e9;

/// Compares what two evaluations say of an `eval_score`, `latency` or `cost`, where the candidate may
/// be worse by `margin` (at least 0, in the measure's unit).
///
/// # Errors
/// They can't be compared, and why.
pub fn compare(kind: ConditionType, both: &Both, margin: f64) -> Result<Comparison, String> {
    let sample = both.differences(kind)?;
    let (lower, detectable) = (sample.lower_bound(resolution(kind)), sample.detectable());
    let is_too_few = lower < -margin && 0.0 < margin && margin < detectable;
    let needed = is_too_few.then(|| sample.pairs_for(margin));
    let sign = match kind {
        ConditionType::EvalScore | ConditionType::Custom => 1.0,
        ConditionType::Latency | ConditionType::Cost => -1.0,
    };
    Ok(Comparison {
        kind,
        pairs: sample.pairs(),
        // Not −0.
        mean: sign * sample.mean() + 0.0,
        bound: sign * lower + 0.0,
        detectable,
        needed: needed
            .filter(|needed| *needed <= NEEDED_MAX)
            .map(|needed| needed as u64),
    })
}

/// To how much a bound is told: always on the side that is worse.
fn resolution(kind: ConditionType) -> f64 {
    match kind {
        ConditionType::EvalScore | ConditionType::Custom => 1e-6,
        ConditionType::Latency => 1e-3,
        ConditionType::Cost => 1e-9,
    }
}

impl Comparison {
    /// The comparison in words: how many pairs, the difference, how sure it is, what could have been
    /// seen with so many, how many it would take where they are too few, and of what.
    #[must_use]
    pub fn describe(&self, both: &Both) -> String {
        let (unit, change) = match self.kind {
            ConditionType::EvalScore | ConditionType::Custom => ("", "drop"),
            ConditionType::Latency => (" ms", "rise"),
            ConditionType::Cost => (" USD", "rise"),
        };
        let mut text = format!(
            "{} pairs: mean difference {}{unit}, with {} % confidence no worse than {}{unit}; smallest detectable {change} {}{unit}",
            self.pairs,
            short(self.mean),
            100.0 * CONFIDENCE,
            self.bound,
            short(self.detectable),
        );
        if let Some(needed) = self.needed {
            text += &format!(", about {needed} examples are needed for this margin");
        }
        let in_words = |of: &Evaluation| format!("version {} in run {}", of.version, of.run_id);
        let (candidate, baseline) = (in_words(&both.candidate), in_words(&both.baseline));
        format!("{text}; {candidate} beside {baseline}")
    }
}

/// A number to four significant digits.
fn short(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return value.to_string();
    }
    let magnitude = value.abs().log10().floor() as i32;
    let places = usize::try_from(3 - magnitude).unwrap_or(0);
    let text = format!("{value:.places$}");
    if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    } else {
        text
    }
}
