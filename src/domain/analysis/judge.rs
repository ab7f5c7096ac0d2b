//! What follows from the checks.

use super::{
    checks,
    evidence::{Evidence, MetricEvidence},
    guards,
    policy::{AnalysisPolicy, WithoutEvidence},
    verdict::{Analysis, Check, Overall, Verdict},
};
use crate::domain::Timestamp;

/// Judges a rollout by what has been seen of it up to `now`.
///
/// What protects comes first: whatever is BAD rolls back, at any time. Then what makes the figures
/// worthless or the candidate innocent (a broken assignment, a provider that fails both arms)
/// holds. Then what is not shown yet holds until its deadline.
#[must_use]
pub fn judge(policy: &AnalysisPolicy, evidence: &Evidence, now: Timestamp) -> Analysis {
    if !policy.is_possible() {
        let why = "the analysis policy is impossible".to_owned();
        return Analysis {
            checks: Vec::new(),
            overall: hold_or_fail(policy, evidence, now, why),
        };
    }
    let checks = checks(policy, evidence);
    let overall = overall(policy, evidence, &checks, now);
    Analysis { checks, overall }
}

fn checks(policy: &AnalysisPolicy, evidence: &Evidence) -> Vec<Check> {
    let breaker = (policy.breaker.calls > 0).then(|| guards::breaker(&policy.breaker, evidence));
    let comparisons = policy.comparisons.iter();
    let comparisons = comparisons.map(|asked| checks::comparison(policy, asked, evidence));
    let floor = policy.floor.iter();
    let floor = floor.map(|floor| checks::floor(policy, floor, evidence));
    let asked = |seen: &&MetricEvidence| policy.asks_for(seen.metric);
    let providers = evidence.metrics.iter().filter(asked);
    let providers = providers.filter_map(|seen| guards::provider(policy, seen));
    breaker
        .into_iter()
        .chain(comparisons)
        .chain(floor)
        .chain(providers)
        .chain([guards::assignment(policy, &evidence.assignments)])
        .collect()
}

fn overall(
    policy: &AnalysisPolicy,
    evidence: &Evidence,
    checks: &[Check],
    now: Timestamp,
) -> Overall {
    if let Some(bad) = checks.iter().find(|check| check.verdict == Verdict::Bad) {
        return Overall::RollBack {
            why: bad.why.clone(),
        };
    }
    if let Some(check) = checks.iter().find(|check| check.blocks) {
        return hold_or_fail(policy, evidence, now, check.why.clone());
    }
    if policy.asks_for_nothing() {
        let why = "the analysis policy asks for nothing that could be shown".to_owned();
        return hold_or_fail(policy, evidence, now, why);
    }
    let Some(open) = checks
        .iter()
        .find(|check| check.verdict == Verdict::NoEvidence)
    else {
        return Overall::Good;
    };
    let is_due = now >= deadline(policy, evidence);
    match policy.without_evidence {
        WithoutEvidence::Advance if is_due => Overall::Good,
        WithoutEvidence::RollBack if is_due => Overall::RollBack {
            why: format!("nothing was shown in time: {}", open.why),
        },
        WithoutEvidence::Hold | WithoutEvidence::Advance | WithoutEvidence::RollBack => {
            hold_or_fail(policy, evidence, now, open.why.clone())
        }
    }
}

fn hold_or_fail(
    policy: &AnalysisPolicy,
    evidence: &Evidence,
    now: Timestamp,
    why: String,
) -> Overall {
    let until = deadline(policy, evidence);
    if now < until {
        Overall::Hold { why, until }
    } else {
        Overall::Fail { why }
    }
}

fn deadline(policy: &AnalysisPolicy, evidence: &Evidence) -> Timestamp {
    let hold_max = chrono::TimeDelta::from_std(policy.hold_max);
    hold_max
        .ok()
        .and_then(|hold_max| evidence.waiting_since.checked_add_signed(hold_max))
        .unwrap_or(Timestamp::MAX_UTC)
}
