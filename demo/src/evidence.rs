//! What the service says of a rollout's live evidence, in words.

use delos_deploy::wire::pb::{AnalysisCheck, CheckKind, CheckVerdict, Metric};

/// The comparisons with the version that is replaced, in a line; none before there are users of both.
pub(crate) fn line(checks: &[AnalysisCheck]) -> Option<String> {
    let compared = checks
        .iter()
        .filter(|check| check.kind() == CheckKind::Comparison);
    let of_each: Vec<String> = compared.clone().filter_map(difference).collect();
    let counts = compared.map(|check| (check.candidate_count, check.stable_count));
    let (candidate, stable) = counts.max()?;
    (!of_each.is_empty()).then(|| {
        let of_each = of_each.join("; ");
        format!("{candidate} users beside {stable}: {of_each}")
    })
}

/// Each check in a sentence, with its verdict before it.
pub(crate) fn sentences(checks: &[AnalysisCheck]) -> impl Iterator<Item = String> {
    let checks = checks
        .iter()
        .filter(|check| check.kind() != CheckKind::Unspecified);
    checks.map(|check| format!("{:<11} {}", verdict(check), check.message))
}

/// How a metric of the new version differs from that of the other, and how far that can be off.
fn difference(check: &AnalysisCheck) -> Option<String> {
    let (estimate, bound) = (check.estimate?, check.bound?);
    let bounded = match check.verdict() {
        CheckVerdict::Bad => "at most",
        CheckVerdict::Good | CheckVerdict::NoEvidence | CheckVerdict::Unspecified => "at least",
    };
    let metric = match check.metric() {
        Metric::Quality => "quality",
        Metric::Success => "success",
        Metric::Latency => "latency",
        Metric::Cost => "cost",
        Metric::Unspecified => return None,
    };
    let verdict = verdict(check);
    Some(format!(
        "{metric} {estimate:+.3}, {bounded} {bound:+.3}, {verdict}"
    ))
}

fn verdict(check: &AnalysisCheck) -> &'static str {
    match check.verdict() {
        CheckVerdict::Good => "GOOD",
        CheckVerdict::Bad => "BAD",
        CheckVerdict::NoEvidence | CheckVerdict::Unspecified => "NO EVIDENCE",
    }
}
