//! The checks of metrics: beside the version before, and beside a floor.

use super::{
    evidence::{Evidence, Stratum},
    likelihood::{Difference, Level, Measured as _},
    policy::{AnalysisPolicy, Comparison, Floor, Metric},
    verdict::{Check, Subject, Verdict},
    words::{percent, points, signed, too_few, with_confidence},
};

/// A metric of the candidate beside that of the version before.
pub(super) fn comparison(
    policy: &AnalysisPolicy,
    asked: &Comparison,
    evidence: &Evidence,
) -> Check {
    let Comparison { metric, .. } = *asked;
    let subject = Subject::Comparison(metric);
    let Some(seen) = evidence.of(metric) else {
        return lacking(policy, subject, metric, (0, 0));
    };
    if !seen.is_possible() {
        return Check::impossible(subject, metric.in_words());
    }
    let units = seen.compared();
    let least = units.0.min(units.1);
    match Difference::of(&seen.strata) {
        Some(difference) if least >= policy.units_rollback_min => {
            compared(policy, asked, &difference, units)
        }
        Some(_) | None => lacking(policy, subject, metric, units),
    }
}

fn compared(
    policy: &AnalysisPolicy,
    asked: &Comparison,
    difference: &Difference,
    units: (u64, u64),
) -> Check {
    let (metric, estimate) = (asked.metric, difference.estimate());
    let (what, way) = (metric.in_words(), signed(estimate));
    let found = format!("{what} is {way} ({} units beside {})", units.0, units.1);
    let rollback = policy.rollback_sequence();
    // Not −0.
    let worst = 0.0 - asked.tolerance;
    let (verdict, bound, threshold, why) = if rollback.is_below(difference, worst) {
        let bound = rollback.upper(difference).min(worst);
        let (sure, least) = (with_confidence(&rollback), points(bound));
        let limit = points(asked.tolerance);
        let why = format!("{sure} at least {least} lower, and the tolerance is {limit}");
        (Verdict::Bad, bound, worst, why)
    } else {
        let advance = policy.advance_sequence();
        let bound = advance.lower(difference);
        let is_good = advance.is_above(difference, -asked.margin);
        let (verdict, why) = no_worse(policy, asked, units, bound, is_good);
        (verdict, bound, -asked.margin, why)
    };
    let subject = Subject::Comparison(metric);
    Check::new(subject, verdict, units, format!("{found}; {why}")).with(estimate, bound, threshold)
}

/// Whether a candidate that is not BAD is GOOD, and why.
fn no_worse(
    policy: &AnalysisPolicy,
    asked: &Comparison,
    units: (u64, u64),
    bound: f64,
    is_above: bool,
) -> (Verdict, String) {
    let (most, margin) = (signed(bound), points(asked.margin));
    let min = policy.units_advance_min;
    if units.0.min(units.1) < min {
        let why = format!("it takes {min} units of each to find it good");
        (Verdict::NoEvidence, why)
    } else if is_above {
        let sure = with_confidence(&policy.advance_sequence());
        let why = format!("{sure} no worse than {most}, within the margin of {margin}");
        (Verdict::Good, why)
    } else {
        let why = format!("it may be {most}, and the margin is {margin}");
        (Verdict::NoEvidence, why)
    }
}

fn lacking(policy: &AnalysisPolicy, subject: Subject, metric: Metric, units: (u64, u64)) -> Check {
    let needed = (policy.units_rollback_min, policy.units_advance_min);
    let why = too_few(metric, units, needed);
    Check::new(subject, Verdict::NoEvidence, units, why)
}

/// Quality beside its floor. Where the version before is below it too, a rollback would not help.
pub(super) fn floor(policy: &AnalysisPolicy, floor: &Floor, evidence: &Evidence) -> Check {
    let Some(seen) = evidence.of(Metric::Quality) else {
        return lacking(policy, Subject::Floor, Metric::Quality, (0, 0));
    };
    if !seen.is_possible() {
        return Check::impossible(Subject::Floor, Metric::Quality.in_words());
    }
    let arms = seen.pooled();
    match Level::of(&arms.candidate) {
        Some(level) if arms.candidate.n >= policy.units_rollback_min => {
            held_to_floor(policy, floor, &level, &arms)
        }
        Some(_) | None => {
            let units = (arms.candidate.n, arms.stable.n);
            lacking(policy, Subject::Floor, Metric::Quality, units)
        }
    }
}

fn held_to_floor(policy: &AnalysisPolicy, floor: &Floor, level: &Level, arms: &Stratum) -> Check {
    let rollback = policy.rollback_sequence();
    let (estimate, units) = (level.estimate(), (arms.candidate.n, arms.stable.n));
    let found = format!("quality is {} over {} units", percent(estimate), units.0);
    if rollback.is_below(level, floor.threshold) {
        let bound = rollback.upper(level).min(floor.threshold);
        let (sure, most) = (with_confidence(&rollback), percent(bound));
        let threshold = percent(floor.threshold);
        let why = format!("{found}; {sure} at most {most}, below the threshold of {threshold}");
        let check = below_floor(policy, floor, arms, why);
        return check.with(estimate, bound, floor.threshold);
    }
    let advance = policy.advance_sequence();
    let (bound, limit) = (advance.lower(level), floor.threshold - floor.margin);
    let is_enough = units.0 >= policy.units_advance_min;
    let verdict = if is_enough && advance.is_above(level, limit) {
        Verdict::Good
    } else {
        Verdict::NoEvidence
    };
    let (sure, least, wanted) = (with_confidence(&advance), percent(bound), percent(limit));
    let min = policy.units_advance_min;
    let why = format!("{found}; {sure} at least {least}; it takes {wanted}, and {min} units");
    Check::new(Subject::Floor, verdict, units, why).with(estimate, bound, limit)
}

fn below_floor(policy: &AnalysisPolicy, floor: &Floor, arms: &Stratum, why: String) -> Check {
    let units = (arms.candidate.n, arms.stable.n);
    let is_known = arms.stable.n >= policy.units_rollback_min;
    if is_known && arms.stable.mean < floor.threshold {
        let running = percent(arms.stable.mean);
        let why = format!("{why}; the running version has {running}, so a rollback would not help");
        Check::new(Subject::Floor, Verdict::NoEvidence, units, why).blocking()
    } else {
        Check::new(Subject::Floor, Verdict::Bad, units, why)
    }
}
