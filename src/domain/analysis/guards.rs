//! The checks beside the metrics: the circuit breaker, the provider, and who was assigned to what.

use super::{
    evidence::{Assigned, Calls, Evidence, MetricEvidence, Stratum},
    likelihood::{Difference, Level, Measured as _},
    moments::Moments,
    policy::{AnalysisPolicy, Breaker},
    verdict::{Check, Subject, Verdict},
    words::{percent, signed},
};

/// Whether the version before has itself fallen since the rollout began; none where nobody knows.
pub(super) fn provider(policy: &AnalysisPolicy, seen: &MetricEvidence) -> Option<Check> {
    let (now, before) = (seen.stable_now, seen.stable_before);
    let known = now.n.min(before.n) >= policy.units_rollback_min;
    if !known || !now.is_possible() || !before.is_possible() {
        return None;
    }
    let change = Difference::of(&[Stratum {
        candidate: now,
        stable: before,
    }])?;
    let (sequence, limit) = (policy.rollback_sequence(), -policy.provider_margin);
    let has_fallen = sequence.is_below(&change, limit);
    let why = format!(
        "the running version's {} is {} than before the rollout ({} units beside {})",
        seen.metric.in_words(),
        signed(change.estimate()),
        now.n,
        before.n
    );
    let subject = Subject::Provider(seen.metric);
    let numbers = |check: Check, bound| check.with(change.estimate(), bound, limit);
    Some(if has_fallen {
        let why = format!("{why}: it is the provider, or what users ask, and not the new version");
        let check = Check::new(subject, Verdict::NoEvidence, (0, now.n), why).blocking();
        numbers(check, sequence.upper(&change).min(limit))
    } else {
        let check = Check::new(subject, Verdict::Good, (0, now.n), why);
        numbers(check, sequence.lower(&change))
    })
}

/// Whether most of the candidate's last calls failed, while those of the version before did not.
pub(super) fn breaker(breaker: &Breaker, evidence: &Evidence) -> Check {
    let (candidate, stable) = (evidence.recent.candidate, evidence.recent.stable);
    if candidate.failed > candidate.all || stable.failed > stable.all {
        return Check::impossible(Subject::Breaker, "the last calls");
    }
    let why = format!(
        "{} of the last {} calls failed",
        candidate.failed, candidate.all
    );
    let check =
        |verdict, why| Check::new(Subject::Breaker, verdict, (candidate.all, stable.all), why);
    let tripped = candidate.failed_share();
    let Some(failed) = tripped.filter(|_| is_tripped(breaker, candidate)) else {
        return check(Verdict::Good, why);
    };
    let limit = breaker.failed as f64 / breaker.calls as f64;
    if evidence.is_first {
        let why = format!("{why}, and nothing was served before");
        return check(Verdict::Bad, why).with(failed, 0.0, limit);
    }
    let Some(running) = stable.failed_share() else {
        let why = format!("{why}, and the running version had none to compare with");
        return check(Verdict::NoEvidence, why).blocking();
    };
    let beside = percent(running);
    let check = if running <= breaker.stable_failed_share_max {
        let why = format!("{why}, and {beside} of the running version's over the same time");
        check(Verdict::Bad, why)
    } else {
        let why = format!("{why}, but so did {beside} of the running version's: the provider");
        check(Verdict::NoEvidence, why).blocking()
    };
    check.with(failed, running, limit)
}

fn is_tripped(breaker: &Breaker, calls: Calls) -> bool {
    let wanted = u128::from(breaker.failed) * u128::from(calls.all);
    breaker.calls > 0
        && calls.all >= breaker.calls
        && u128::from(calls.failed) * u128::from(breaker.calls) >= wanted
}

/// Whether the arms have as many units as they should.
pub(super) fn assignment(policy: &AnalysisPolicy, stages: &[Assigned]) -> Check {
    let (mut candidate, mut stable) = (0_u64, 0_u64);
    for stage in stages {
        candidate = candidate.saturating_add(stage.candidate);
        stable = stable.saturating_add(stage.stable);
    }
    let check = |verdict, why| Check::new(Subject::Assignment, verdict, (candidate, stable), why);
    let sequence = policy.assignment_sequence(stages.len());
    for stage in stages {
        if !(0.0..=1.0).contains(&stage.share) {
            return Check::impossible(Subject::Assignment, "assignments");
        }
        let level = share_of(stage).filter(|level| sequence.excludes(level, stage.share));
        if let Some(level) = level {
            let why = broken(stage, &level);
            let bound = if level.estimate() < stage.share {
                sequence.upper(&level)
            } else {
                sequence.lower(&level)
            };
            let check = check(Verdict::NoEvidence, why).blocking();
            return check.with(level.estimate(), bound, stage.share);
        }
    }
    if candidate == 0 && stable == 0 {
        let why = "no unit has been assigned to either arm".to_owned();
        return check(Verdict::NoEvidence, why);
    }
    let why = "the arms have as many units as they should".to_owned();
    check(Verdict::Good, why)
}

fn broken(stage: &Assigned, level: &Level) -> String {
    format!(
        "the new version has {} of the units ({} beside {}) where {} were meant; assignment or \
         telemetry is broken",
        percent(level.estimate()),
        stage.candidate,
        stage.stable,
        percent(stage.share)
    )
}

fn share_of(stage: &Assigned) -> Option<Level> {
    let n = stage.candidate.saturating_add(stage.stable);
    let mean = stage.candidate as f64 / n.max(1) as f64;
    Level::of(&Moments {
        n,
        mean,
        m2: n as f64 * mean * (1.0 - mean),
    })
}
