use std::collections::HashMap;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::domain::{
    Timestamp,
    analysis::{Limits, Metric, Moments},
    ids::{Environment, PromptId},
    traffic::{Candidate, Stable, Traffic},
};

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

fn now() -> Timestamp {
    at("2026-01-02T12:00:00Z")
}

fn report() -> OutcomeReport {
    OutcomeReport {
        id: "span-1".into(),
        prompt_id: "greeting".into(),
        environment: "production".into(),
        version: 2,
        unit: Some("user-1".into()),
        ..Default::default()
    }
}

fn traffic(stable: i32, candidate: Option<(i32, u8)>, revision: i64) -> Traffic {
    Traffic {
        prompt_id: PromptId::parse("greeting").unwrap(),
        environment: Environment::parse("production").unwrap(),
        stable: (stable > 0).then(|| Stable {
            version: stable,
            deployment_id: Uuid::from_u128(1),
        }),
        candidate: candidate.map(|(version, percentage)| Candidate {
            version,
            percentage,
            deployment_id: Uuid::from_u128(2),
        }),
        revision,
    }
}

fn outcome(version: i32, at: Timestamp) -> Outcome {
    let report = OutcomeReport {
        version,
        at: Some(Ok(at)),
        ..report()
    };
    report.check(now()).unwrap()
}

#[test]
fn what_cant_be_right_is_refused_with_its_reason() {
    type Spoil = fn(&mut OutcomeReport);
    let cases: [(Reason, Spoil); 16] = [
        (Reason::Id, |report| report.id.clear()),
        (Reason::Id, |report| report.id = "x".repeat(129)),
        (Reason::PromptId, |report| report.prompt_id = "a b".into()),
        (Reason::Environment, |report| report.environment.clear()),
        (Reason::Version, |report| report.version = 0),
        (Reason::Unit, |report| report.unit = Some(String::new())),
        (Reason::Unit, |report| report.unit = Some("x".repeat(1025))),
        (Reason::At, |report| {
            report.at = Some(Err("is no moment".into()))
        }),
        (Reason::InFuture, |report| {
            report.at = Some(Ok(at("2026-01-02T12:01:01Z")));
        }),
        (Reason::TooOld, |report| {
            report.at = Some(Ok(at("2026-01-01T11:59:59Z")));
        }),
        (Reason::Latency, |report| report.latency_ms = Some(-1.0)),
        (Reason::Latency, |report| {
            report.latency_ms = Some(f64::INFINITY)
        }),
        (Reason::Score, |report| report.quality_score = Some(1.01)),
        (Reason::Score, |report| {
            report.quality_score = Some(f64::NAN)
        }),
        (Reason::Cost, |report| report.cost_usd = Some(-0.01)),
        (Reason::Cost, |report| report.cost_usd = Some(f64::NAN)),
    ];
    for (reason, spoil) in cases {
        let mut report = report();
        spoil(&mut report);
        let refused = report.clone().check(now()).unwrap_err();
        assert_eq!(refused.reason, reason, "{report:?}: {refused:?}");
    }
    assert!(report().check(now()).is_ok());
}

#[test]
fn a_clock_that_is_a_little_ahead_is_set_right() {
    let ahead = OutcomeReport {
        at: Some(Ok(at("2026-01-02T12:00:59Z"))),
        ..report()
    };
    assert_eq!(ahead.check(now()).unwrap().at, now());
}

#[test]
fn digests_of_several_texts_depend_on_where_they_end() {
    assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
    assert_eq!(digest(&["ab", "c"]), digest(&["ab", "c"]));
}

#[test]
fn an_outcome_belongs_to_the_split_that_served_it() {
    let (began, stepped) = (at("2026-01-02T10:00:00Z"), at("2026-01-02T11:00:00Z"));
    let first = Cohort::of(
        &traffic(1, Some((2, 10)), 5),
        began,
        began,
        Limits::default(),
    );
    let before = Cohort::of(
        &traffic(1, None, 4),
        at("2026-01-02T00:00:00Z"),
        began,
        Limits::default(),
    );
    let split = Split {
        traffic: traffic(1, Some((2, 50)), 6),
        since: stepped,
        past: vec![first.clone(), before.clone()],
    };
    let of = |version, time| split.cohort_of(&outcome(version, at(time)));
    assert_eq!(of(2, "2026-01-02T11:30:00Z").unwrap().share, 50);
    assert_eq!(of(2, "2026-01-02T10:30:00Z").unwrap().id, first.id);
    assert_eq!(of(1, "2026-01-02T09:30:00Z").unwrap().id, before.id);
    // It was not served then; the clock of who reports it is behind.
    assert_eq!(of(2, "2026-01-02T09:30:00Z").unwrap().share, 50);
    assert_eq!(
        of(3, "2026-01-02T11:30:00Z").unwrap_err().reason,
        Reason::VersionNotServed
    );
    assert!(split.is_open(&first) && split.is_open(&before));
}

#[test]
fn what_was_under_way_when_a_rollout_ended_belongs_to_it_and_changes_nothing() {
    let (began, ended) = (at("2026-01-02T10:00:00Z"), at("2026-01-02T11:00:00Z"));
    let rollout = Cohort::of(
        &traffic(1, Some((2, 10)), 5),
        began,
        began,
        Limits::default(),
    );
    let split = Split {
        traffic: traffic(1, None, 6),
        since: ended,
        past: vec![rollout.clone()],
    };
    let late = outcome(2, at("2026-01-02T11:00:01Z"));
    assert!(split.needs_past(&late));
    assert_eq!(split.cohort_of(&late).unwrap().id, rollout.id);
    assert!(!split.is_open(&rollout));
}

#[test]
fn days_without_a_rollout_are_cohorts_and_a_stage_is_one_over_midnight() {
    let since = at("2026-01-01T15:00:00Z");
    let id =
        |traffic: &Traffic, time: &str| Cohort::of(traffic, since, at(time), Limits::default()).id;
    let steady = traffic(1, None, 4);
    assert_eq!(
        id(&steady, "2026-01-01T16:00:00Z"),
        id(&steady, "2026-01-01T23:00:00Z")
    );
    assert_ne!(
        id(&steady, "2026-01-01T16:00:00Z"),
        id(&steady, "2026-01-02T01:00:00Z")
    );
    let rollout = traffic(1, Some((2, 10)), 4);
    assert_eq!(
        id(&rollout, "2026-01-01T16:00:00Z"),
        id(&rollout, "2026-01-02T01:00:00Z")
    );
}

#[test]
fn the_same_version_again_is_told_apart_by_where_its_users_lie() {
    let again = Cohort::of(
        &traffic(2, Some((2, 10)), 4),
        now(),
        now(),
        Limits::default(),
    );
    assert_eq!(again.side(2, 9), Some(Side::Candidate));
    assert_eq!(again.side(2, 10), Some(Side::Stable));
    assert_eq!(again.side(1, 0), None);
}

const UNIT: Uuid = Uuid::from_u128(7);

/// A stage of the rollout of version 2, at a share.
fn stage(share: u8, revision: i64) -> Cohort {
    let traffic = traffic(1, Some((2, share)), revision);
    Cohort::of(&traffic, now(), now(), Limits::default())
}

fn known(error: bool, quality: Option<f64>) -> Known {
    Known {
        error,
        quality_score: quality,
        ..Default::default()
    }
}

fn of(sums: &HashMap<Group, Sums>, cohort: &Cohort, side: Side) -> Sums {
    let group = Group {
        cohort: cohort.id,
        side,
        band: 20,
    };
    sums.get(&group).copied().unwrap_or_default()
}

#[test]
fn a_unit_that_changes_sides_is_taken_out_and_not_counted_again() {
    let first = stage(10, 5);
    let second = stage(50, 6);
    let mut fold = Fold::default();
    fold.call(
        &first,
        Side::Stable,
        Some((UNIT, 20)),
        &known(false, Some(0.5)),
    );
    fold.call(
        &second,
        Side::Candidate,
        Some((UNIT, 20)),
        &known(true, Some(0.1)),
    );
    fold.call(
        &second,
        Side::Candidate,
        Some((UNIT, 20)),
        &known(true, None),
    );
    let (tallies, sums) = fold.finish();
    assert!(tallies[&(first.scope(), UNIT)].has_moved);
    let (stable, candidate) = (
        of(&sums, &first, Side::Stable),
        of(&sums, &second, Side::Candidate),
    );
    assert_eq!((stable.units, stable.calls), (1, 1));
    assert_eq!(stable.metrics, [UnitSums::default(); 4]);
    assert_eq!(
        (candidate.units, candidate.calls, candidate.failures),
        (0, 2, 2)
    );
    assert_eq!(candidate.metrics, [UnitSums::default(); 4]);
    assert_eq!(candidate.metrics().quality, 0.1);
}

#[test]
fn a_late_score_counts_where_its_unit_does() {
    let first = stage(10, 5);
    let second = stage(50, 6);
    let mut fold = Fold::default();
    fold.call(
        &first,
        Side::Candidate,
        Some((UNIT, 20)),
        &known(false, Some(1.0)),
    );
    fold.call(
        &second,
        Side::Candidate,
        Some((UNIT, 20)),
        &known(false, None),
    );
    fold.score(&second, Side::Candidate, Some((UNIT, 20)), 0.5);
    let (_, sums) = fold.finish();
    let (counted, called) = (
        of(&sums, &first, Side::Candidate),
        of(&sums, &second, Side::Candidate),
    );
    assert_eq!(
        counted.metrics[0].moments(),
        Moments {
            n: 1,
            mean: 0.75,
            m2: 0.0
        }
    );
    assert_eq!((called.units, called.quality.n), (0, 1));
}

#[test]
fn latency_and_cost_count_where_there_is_a_limit() {
    let limits = Limits {
        latency_ms: Some(100.0),
        cost_usd: None,
    };
    let cohort = Cohort::of(&traffic(1, Some((2, 10)), 5), now(), now(), limits);
    let mut fold = Fold::default();
    for latency in [99.0, 100.0, 101.0, 500.0] {
        let known = Known {
            latency_ms: Some(latency),
            cost_usd: Some(0.1),
            ..Default::default()
        };
        fold.call(&cohort, Side::Candidate, Some((UNIT, 20)), &known);
    }
    let (_, sums) = fold.finish();
    let sums = of(&sums, &cohort, Side::Candidate);
    assert_eq!(
        sums.metrics[2].moments(),
        Moments {
            n: 1,
            mean: 0.5,
            m2: 0.0
        }
    );
    assert_eq!(sums.metrics[3], UnitSums::default());
    assert_eq!(
        (sums.metrics().latency_ms, sums.metrics().cost_usd),
        (200.0, 0.1)
    );
}

proptest! {
    /// Whatever the batches, the sums are those of the units' means.
    #[test]
    fn sums_are_those_of_the_units(
        calls in prop::collection::vec((0..20_u128, any::<bool>(), prop::option::of(0.0..=1.0_f64)), 1..200),
        cut in 0..200_usize,
    ) {
        let cohort = stage(10, 5);
        let (mut tallies, mut all) = (HashMap::new(), [UnitSums::default(); 4]);
        let (first, second) = calls.split_at(cut.min(calls.len()));
        for batch in [first, second] {
            let mut fold = Fold::over(tallies);
            for (unit, error, quality) in batch {
                let unit = Some((Uuid::from_u128(*unit), 20));
                fold.call(&cohort, Side::Candidate, unit, &known(*error, *quality));
            }
            let (known, sums) = fold.finish();
            tallies = known;
            for (all, sums) in all.iter_mut().zip(of(&sums, &cohort, Side::Candidate).metrics) {
                all.n += sums.n;
                all.sum += sums.sum;
                all.squares += sums.squares;
            }
        }
        for (metric, all) in Metric::ALL.iter().zip(all) {
            let mut direct = Moments::default();
            for unit in 0..20_u128 {
                let values: Vec<f64> = calls.iter().filter(|(of, ..)| *of == unit)
                    .filter_map(|(_, error, quality)| match metric {
                        Metric::Quality => *quality,
                        Metric::Success => Some(if *error { 0.0 } else { 1.0 }),
                        Metric::Latency | Metric::Cost => None,
                    })
                    .collect();
                if !values.is_empty() {
                    direct.push(values.iter().sum::<f64>() / values.len() as f64);
                }
            }
            let moments = all.moments();
            prop_assert_eq!(moments.n, direct.n);
            prop_assert!((moments.mean - direct.mean).abs() < 1e-9);
            prop_assert!((moments.m2 - direct.m2).abs() < 1e-9);
            prop_assert!(moments.is_possible());
        }
    }
}
