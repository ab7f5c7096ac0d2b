//! Findings in words.

use super::{policy::Metric, sequence::Sequence};

/// A share as percent: "97.5 %".
pub(super) fn percent(share: f64) -> String {
    format!("{:.1} %", 100.0 * share)
}

/// A difference of shares in points: "2.5 points".
pub(super) fn points(difference: f64) -> String {
    format!("{:.1} points", 100.0 * difference.abs())
}

/// A difference and which way it goes: "2.5 points lower".
pub(super) fn signed(difference: f64) -> String {
    let way = if difference < 0.0 { "lower" } else { "higher" };
    format!("{} {way}", points(difference))
}

/// Too few units for anything.
pub(super) fn too_few(metric: Metric, units: (u64, u64), needed: (u64, u64)) -> String {
    format!(
        "{} is known of {} units of the new version and {} of the running one; it takes {} of each \
         to find it worse and {} to find it good",
        metric.in_words(),
        units.0,
        units.1,
        needed.0,
        needed.1
    )
}

/// How sure a sequence is: "with 99.5 % confidence".
pub(super) fn with_confidence(sequence: &Sequence) -> String {
    let percent = format!("{:.2}", 100.0 * sequence.confidence());
    let percent = percent.trim_end_matches('0').trim_end_matches('.');
    format!("with {percent} % confidence")
}
