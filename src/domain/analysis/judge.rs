//! What follows from the checks.

use super::{
    checks,
    evidence::{Evidence, MetricEvidence},
    guards,
    policy::{AnalysisPolicy, WithoutEvidence},
    verdict::{Analysis, Check, Overall, Verdict},
};
use crate::domain::Timestamp;

/// What is asked of a rollout before it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// To a larger share: that nothing is bad, and that it would be seen if it were.
    Step,
    /// To all traffic from a share that does not grow by itself: that it is shown to be good.
    Promotion,
}

/// Judges a rollout by what has been seen of it up to `now`, where it is `asked` to go on.
///
/// What protects comes first: whatever is BAD rolls back, at any time. Then what makes the figures
/// worthless or the candidate innocent (a broken assignment, a provider that fails both arms)
/// holds. Then what is not shown yet holds until its deadline.
#[must_use]
pub fn judge(
    policy: &AnalysisPolicy,
    evidence: &Evidence,
    asked: Asked,
    now: Timestamp,
) -> Analysis {
    if !policy.is_possible() {
        let why = "the analysis policy is impossible".to_owned();
        return Analysis {
            checks: Vec::new(),
            overall: hold_or_fail(policy, evidence, now, why),
        };
    }
    let checks = checks(policy, evidence);
    let overall = overall(policy, evidence, &checks, asked, now);
    Analysis { checks, overall }
}

fn checks(policy: &AnalysisPolicy, evidence: &Evidence) -> Vec<Check> {
    let breaker = (policy.breaker.calls > 0).then(|| guards::breaker(&policy.breaker, evidence));
    // The first version has none beside it.
    let comparisons = policy.comparisons.iter().filter(|_| !evidence.is_first);
    let comparisons = comparisons.map(|asked| checks::comparison(policy, asked, evidence));
    let floor = policy.floor.iter();
    let floor = floor.map(|floor| checks::floor(policy, floor, evidence));
    let asked = |seen: &&MetricEvidence| policy.asks_for(seen.metric);
    let providers = evidence.metrics.iter().filter(asked);
    let providers = providers.filter_map(|seen| guards::provider(policy, seen));
    let assignment = || guards::assignment(policy, &evidence.assignments);
    breaker
        .into_iter()
        .chain(comparisons)
        .chain(floor)
        .chain(providers)
        // Where nobody was split there is nothing to be wrong.
        .chain((!evidence.assignments.is_empty()).then(assignment))
        .collect()
}

fn overall(
    policy: &AnalysisPolicy,
    evidence: &Evidence,
    checks: &[Check],
    asked: Asked,
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
    if policy.asks_for_nothing() && !evidence.is_first {
        let why = "the analysis policy asks for nothing that could be shown".to_owned();
        return hold_or_fail(policy, evidence, now, why);
    }
    let Some(open) = checks.iter().find(|check| is_open(check, asked)) else {
        return Overall::Good;
    };
    let is_due = now >= deadline(policy, evidence);
    match policy.without_evidence {
        WithoutEvidence::Advance => Overall::Unproven {
            why: open.why.clone(),
        },
        WithoutEvidence::RollBack if is_due => Overall::RollBack {
            why: format!("nothing was shown in time: {}", open.why),
        },
        WithoutEvidence::Hold | WithoutEvidence::RollBack => {
            hold_or_fail(policy, evidence, now, open.why.clone())
        }
    }
}

/// Whether a check still has to find something before the rollout goes on.
fn is_open(check: &Check, asked: Asked) -> bool {
    let is_unknown = check.verdict == Verdict::NoEvidence;
    match asked {
        Asked::Promotion => is_unknown,
        // With its numbers it would have found what is bad.
        Asked::Step => is_unknown && check.numbers.is_none(),
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
