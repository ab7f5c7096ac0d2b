use chrono::TimeDelta;
use proptest::{
    collection::vec, prop_assert, prop_assert_eq, prop_assume, proptest, sample::select,
    strategy::Strategy as Generator,
};
use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};

use super::*;
use crate::domain::Timestamp;

/// How far rounding may carry what is updated from what is counted anew, for each unit.
const DRIFT: f64 = 1e-9;

fn moments(values: impl IntoIterator<Item = f64>) -> Moments {
    let mut moments = Moments::default();
    values.into_iter().for_each(|value| moments.push(value));
    moments
}

/// `passed` of `n` units are 1, the others 0.
fn passed(passed: u64, n: u64) -> Moments {
    moments((0..n).map(|unit| if unit < passed { 1.0 } else { 0.0 }))
}

fn stratum(candidate: Moments, stable: Moments) -> Stratum {
    Stratum { candidate, stable }
}

fn is_close(one: Moments, other: Moments) -> bool {
    let drift = DRIFT * (1.0 + one.count());
    one.n == other.n && (one.mean - other.mean).abs() <= drift && (one.m2 - other.m2).abs() <= drift
}

fn units() -> impl Generator<Value = Vec<f64>> {
    let levels = select(vec![0.0, 0.25, 0.5, 0.75, 1.0]);
    vec(proptest::prop_oneof![levels, 0.0..=1.0], 0..60)
}

proptest! {
    #[test]
    fn merged_moments_are_those_of_all_units(one in units(), other in units()) {
        let merged = moments(one.clone()).merge(moments(other.clone()));
        prop_assert!(is_close(merged, moments(one.into_iter().chain(other))));
        prop_assert!(merged.is_possible());
    }

    #[test]
    fn a_unit_that_changes_or_leaves_is_as_if_it_had_always_been_so(
        mut all in units(),
        at in 0_usize..60,
        to in 0.0_f64..=1.0,
    ) {
        prop_assume!(at < all.len());
        let mut changed = moments(all.clone());
        changed.replace(all[at], to);
        all[at] = to;
        prop_assert!(is_close(changed, moments(all.clone())));
        changed.remove(to);
        all.remove(at);
        prop_assert!(is_close(changed, moments(all)));
        prop_assert!(changed.is_possible());
    }

    #[test]
    fn a_verdict_and_its_band_agree(
        strata in vec((units(), units()), 1..4),
        limit in -0.99_f64..0.99,
        alpha in 0.001_f64..0.2,
    ) {
        let strata: Vec<_> = strata
            .into_iter()
            .map(|(candidate, stable)| stratum(moments(candidate), moments(stable)))
            .collect();
        let Some(difference) = Difference::of(&strata) else {
            prop_assert!(strata.iter().all(|stratum| !stratum.has_both()));
            return Ok(());
        };
        let sequence = Sequence::new(alpha, 100.0);
        let (lower, upper) = (sequence.lower(&difference), sequence.upper(&difference));
        prop_assert!(lower <= difference.estimate() && difference.estimate() <= upper);
        prop_assert!((-1.0..=1.0).contains(&lower) && (-1.0..=1.0).contains(&upper));
        if (limit - upper).abs() > 1e-5 {
            prop_assert_eq!(sequence.is_below(&difference, limit), limit > upper);
        }
        if (limit - lower).abs() > 1e-5 {
            prop_assert_eq!(sequence.is_above(&difference, limit), limit < lower);
        }
    }

    #[test]
    fn whatever_is_reported_a_judgement_comes_of_it(
        numbers in vec(proptest::num::f64::ANY, 4),
        n in 0_u64..1000,
    ) {
        let wild = Moments { n, mean: numbers[0], m2: numbers[1] };
        let mut evidence = evidence(vec![stratum(wild, passed(900, 1000))]);
        evidence.assignments[0].share = numbers[2];
        let analysis = judge(&policy(), &evidence, Asked::Promotion, at(0));
        if !wild.is_possible() || !(0.0..=1.0).contains(&numbers[2]) {
            prop_assert!(analysis.overall != Overall::Good);
        }
    }
}

#[test]
fn impossible_moments_are_told_from_possible_ones() {
    let of = |n, mean, m2| Moments { n, mean, m2 }.is_possible();
    assert!(of(0, 0.0, 0.0) && of(4, 0.5, 1.0) && of(4, 1.0, 0.0));
    assert!(!of(4, 0.5, 1.1) && !of(4, -0.1, 0.0) && !of(4, 1.1, 0.0) && !of(4, 0.5, -0.1));
    assert!(!of(4, f64::NAN, 0.0) && !of(4, 0.5, f64::NAN) && !of(4, 0.5, f64::INFINITY));
    assert!(!of(0, 0.5, 1.0));
}

/// Worked by hand: 7 of 10 beside 18 of 20, against no difference: at 25 of 30 both.
#[test]
fn the_evidence_is_the_log_of_a_likelihood_ratio() {
    let difference = Difference::of(&[stratum(passed(7, 10), passed(18, 20))]).unwrap();
    let log = |share: f64, of: f64| share * (share / of).ln();
    let both = 25.0 / 30.0;
    let candidate = 10.0 * (log(0.7, both) + log(0.3, 1.0 - both));
    let stable = 20.0 * (log(0.9, both) + log(0.1, 1.0 - both));
    assert!((difference.evidence_against(0.0) - candidate - stable).abs() < 1e-9);
    assert!((difference.estimate() + 0.2).abs() < 1e-9);
    assert!((difference.units() - 200.0 / 30.0).abs() < 1e-9);
    assert_eq!(difference.evidence_against(-1.0), f64::INFINITY);
}

#[test]
fn a_score_that_scatters_less_tells_more() {
    let (high, low) = ([0.75, 1.0], [0.5, 0.75]);
    let of = |levels: [f64; 2]| moments((0..100).map(|unit| levels[unit % 2]));
    let scores = Difference::of(&[stratum(of(low), of(high))]).unwrap();
    let passes = Difference::of(&[stratum(passed(625, 1000), passed(875, 1000))]).unwrap();
    let hundred = Difference::of(&[stratum(passed(63, 100), passed(88, 100))]).unwrap();
    assert!(scores.evidence_against(0.0) > 5.0 * hundred.evidence_against(0.0));
    assert!(passes.evidence_against(0.0) > 5.0 * hundred.evidence_against(0.0));
}

/// What a stage's traffic was like does not matter, only what differs within it.
#[test]
fn strata_are_compared_each_within_itself() {
    let strata = [
        stratum(passed(95, 100), passed(855, 900)),
        stratum(passed(60, 100), passed(60, 100)),
    ];
    let difference = Difference::of(&strata).unwrap();
    assert!(difference.estimate().abs() < 1e-6);
    assert!(difference.evidence_against(0.0) < 1e-6);
    assert_eq!(difference.units(), 90.0 + 50.0);
    let alone = stratum(passed(1, 100), Moments::default());
    assert!(Difference::of(&[alone]).is_none() && Difference::of(&[]).is_none());
}

#[test]
fn a_sequence_without_an_error_probability_excludes_nothing() {
    let difference = Difference::of(&[stratum(passed(0, 500), passed(500, 500))]).unwrap();
    for alpha in [0.0, 0.5, 1.0, -1.0, f64::NAN] {
        let sequence = Sequence::new(alpha, 100.0);
        assert!(!sequence.is_below(&difference, 0.0), "{alpha}");
        assert_eq!(sequence.upper(&difference), 1.0);
    }
}

fn at(hours: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + TimeDelta::hours(hours)
}

/// Quality alone.
fn policy() -> AnalysisPolicy {
    AnalysisPolicy {
        comparisons: vec![Comparison::of(Metric::Quality)],
        ..AnalysisPolicy::default()
    }
}

fn evidence(strata: Vec<Stratum>) -> Evidence {
    let count = |of: fn(&Stratum) -> u64| strata.iter().map(of).sum::<u64>();
    let (candidate, stable) = (
        count(|stratum| stratum.candidate.n),
        count(|stratum| stratum.stable.n),
    );
    Evidence {
        metrics: vec![MetricEvidence {
            metric: Metric::Quality,
            strata,
            stable_before: Moments::default(),
            stable_now: Moments::default(),
        }],
        assignments: vec![Assigned {
            candidate,
            stable,
            share: candidate as f64 / (candidate + stable).max(1) as f64,
        }],
        recent: Recent::default(),
        waiting_since: at(0),
        is_first: false,
    }
}

/// One word for what it comes to, and the verdict on the subject.
fn judged(
    policy: &AnalysisPolicy,
    evidence: &Evidence,
    subject: Subject,
) -> (&'static str, Verdict) {
    let analysis = judge(policy, evidence, Asked::Promotion, at(1));
    let check = analysis
        .checks
        .iter()
        .find(|check| check.subject == subject);
    let word = match &analysis.overall {
        Overall::RollBack { .. } => "roll back",
        Overall::Fail { .. } => "fail",
        Overall::Hold { .. } => "hold",
        Overall::Unproven { .. } => "unproven",
        Overall::Good => "good",
    };
    (word, check.unwrap().verdict)
}

const QUALITY: Subject = Subject::Comparison(Metric::Quality);

#[test]
fn a_version_is_bad_good_or_neither() {
    let of = |candidate, stable| {
        judged(
            &policy(),
            &evidence(vec![stratum(candidate, stable)]),
            QUALITY,
        )
    };
    assert_eq!(
        of(passed(18, 30), passed(270, 300)),
        ("roll back", Verdict::Bad)
    );
    assert_eq!(
        of(passed(17, 29), passed(270, 300)),
        ("hold", Verdict::NoEvidence)
    );
    assert_eq!(
        of(passed(54, 60), passed(540, 600)),
        ("hold", Verdict::NoEvidence)
    );
    assert_eq!(
        of(passed(99, 99), passed(900, 1000)),
        ("hold", Verdict::NoEvidence)
    );
    assert_eq!(
        of(passed(100, 100), passed(900, 1000)),
        ("good", Verdict::Good)
    );
    assert_eq!(
        of(passed(450, 500), passed(4500, 5000)),
        ("good", Verdict::Good)
    );
    assert_eq!(
        of(Moments::default(), passed(90, 100)),
        ("hold", Verdict::NoEvidence)
    );
}

#[test]
fn a_check_has_its_numbers_and_says_why() {
    let seen = evidence(vec![stratum(passed(21, 35), passed(270, 300))]);
    let analysis = judge(&policy(), &seen, Asked::Promotion, at(1));
    let check = analysis
        .checks
        .iter()
        .find(|check| check.subject == QUALITY);
    let check = check.unwrap();
    let numbers = check.numbers.unwrap();
    assert_eq!((check.n_candidate, check.n_stable), (35, 300));
    assert!((numbers.estimate + 0.3).abs() < 1e-9);
    assert!(numbers.bound < numbers.threshold && numbers.threshold == 0.0);
    assert_eq!(
        check.why,
        "quality score is 30.0 points lower (35 units beside 300); with 99 % confidence at least \
         4.5 points lower, and the tolerance is 0.0 points"
    );
    let why = check.why.clone();
    assert_eq!(analysis.overall, Overall::RollBack { why });
}

#[test]
fn every_metric_that_is_asked_for_has_to_be_good() {
    let good = evidence(vec![stratum(passed(450, 500), passed(4500, 5000))]);
    assert_eq!(
        judged(
            &AnalysisPolicy::default(),
            &good,
            Subject::Comparison(Metric::Success)
        ),
        ("hold", Verdict::NoEvidence)
    );
    let nothing = AnalysisPolicy {
        comparisons: Vec::new(),
        ..policy()
    };
    assert_eq!(judged(&nothing, &good, Subject::Assignment).0, "hold");
}

#[test]
fn without_evidence_it_holds_until_its_deadline_and_then_does_what_the_policy_says() {
    let open = evidence(vec![stratum(passed(54, 60), passed(540, 600))]);
    for (without_evidence, early, late) in [
        (WithoutEvidence::Hold, "hold", "fail"),
        (WithoutEvidence::Advance, "unproven", "unproven"),
        (WithoutEvidence::RollBack, "hold", "roll back"),
    ] {
        let policy = AnalysisPolicy {
            without_evidence,
            ..policy()
        };
        assert_eq!(judged(&policy, &open, QUALITY).0, early);
        let waited = Evidence {
            waiting_since: at(-23),
            ..open.clone()
        };
        assert_eq!(judged(&policy, &waited, QUALITY).0, late);
    }
    let held = judge(&policy(), &open, Asked::Promotion, at(23)).overall;
    assert!(matches!(held, Overall::Hold { until, .. } if until == at(24)));
}

#[test]
fn a_step_asks_for_less_than_a_promotion() {
    let asked = |units: u64, asked| {
        let seen = evidence(vec![stratum(
            passed(9 * units / 10, units),
            passed(540, 600),
        )]);
        matches!(judge(&policy(), &seen, asked, at(1)).overall, Overall::Good)
    };
    assert!(
        !asked(20, Asked::Step),
        "it would not be seen if it were bad"
    );
    assert!(asked(60, Asked::Step));
    assert!(!asked(60, Asked::Promotion));
}

#[test]
fn the_first_version_is_compared_with_nothing() {
    let first = |failed| Evidence {
        metrics: Vec::new(),
        assignments: Vec::new(),
        recent: Recent {
            candidate: Calls { all: 10, failed },
            stable: Calls::default(),
        },
        waiting_since: at(0),
        is_first: true,
    };
    let overall = |failed| judge(&policy(), &first(failed), Asked::Promotion, at(1)).overall;
    assert_eq!(overall(7), Overall::Good);
    assert!(matches!(overall(8), Overall::RollBack { .. }));
    let floor = AnalysisPolicy {
        floor: Some(Floor::at(0.8)),
        ..policy()
    };
    let overall = judge(&floor, &first(0), Asked::Promotion, at(1)).overall;
    assert!(matches!(overall, Overall::Hold { .. }));
}

#[test]
fn quality_below_its_floor_rolls_back_unless_the_running_version_is_below_too() {
    let policy = AnalysisPolicy {
        comparisons: Vec::new(),
        floor: Some(Floor::at(0.8)),
        ..policy()
    };
    let of = |candidate, stable| {
        judged(
            &policy,
            &evidence(vec![stratum(candidate, stable)]),
            Subject::Floor,
        )
    };
    assert_eq!(
        of(passed(120, 200), passed(900, 1000)),
        ("roll back", Verdict::Bad)
    );
    assert_eq!(
        of(passed(120, 200), Moments::default()),
        ("roll back", Verdict::Bad)
    );
    assert_eq!(
        of(passed(120, 200), passed(600, 1000)),
        ("hold", Verdict::NoEvidence)
    );
    assert_eq!(
        of(passed(160, 200), passed(800, 1000)),
        ("hold", Verdict::NoEvidence)
    );
    assert_eq!(
        of(passed(180, 200), passed(900, 1000)),
        ("good", Verdict::Good)
    );
    assert_eq!(
        of(passed(12, 20), passed(900, 1000)),
        ("hold", Verdict::NoEvidence)
    );
}

#[test]
fn the_breaker_needs_no_statistics_and_blames_no_version_for_the_provider() {
    let of = |candidate: (u64, u64), stable: (u64, u64)| {
        let mut seen = evidence(vec![stratum(passed(450, 500), passed(4500, 5000))]);
        let calls = |(failed, all)| Calls { all, failed };
        seen.recent = Recent {
            candidate: calls(candidate),
            stable: calls(stable),
        };
        judged(&policy(), &seen, Subject::Breaker)
    };
    assert_eq!(of((8, 10), (2, 90)), ("roll back", Verdict::Bad));
    assert_eq!(of((7, 10), (2, 90)), ("good", Verdict::Good));
    assert_eq!(of((9, 9), (0, 90)), ("good", Verdict::Good));
    assert_eq!(of((10, 10), (60, 90)), ("hold", Verdict::NoEvidence));
    assert_eq!(of((10, 10), (0, 0)), ("hold", Verdict::NoEvidence));
    assert_eq!(of((11, 10), (0, 90)), ("hold", Verdict::NoEvidence));
}

#[test]
fn both_arms_that_fall_together_hold_and_a_candidate_that_falls_further_is_rolled_back() {
    let of = |candidate| {
        let now = passed(700, 1000);
        let mut seen = evidence(vec![stratum(candidate, now)]);
        seen.metrics[0].stable_before = passed(900, 1000);
        seen.metrics[0].stable_now = now;
        judged(&policy(), &seen, Subject::Provider(Metric::Quality))
    };
    assert_eq!(of(passed(700, 1000)), ("hold", Verdict::NoEvidence));
    assert_eq!(of(passed(500, 1000)), ("roll back", Verdict::NoEvidence));
}

#[test]
fn a_broken_assignment_holds_what_would_be_good() {
    let mut seen = evidence(vec![stratum(passed(450, 500), passed(4500, 5000))]);
    assert_eq!(
        judged(&policy(), &seen, Subject::Assignment),
        ("good", Verdict::Good)
    );
    seen.assignments[0].share = 0.15;
    assert_eq!(
        judged(&policy(), &seen, Subject::Assignment),
        ("hold", Verdict::NoEvidence)
    );
    seen.assignments[0].share = 1.5;
    assert_eq!(
        judged(&policy(), &seen, Subject::Assignment),
        ("hold", Verdict::NoEvidence)
    );
}

#[test]
fn an_impossible_policy_passes_nothing() {
    let good = evidence(vec![stratum(passed(450, 500), passed(4500, 5000))]);
    let spoil: [fn(&mut AnalysisPolicy); 6] = [
        |policy| policy.alpha_rollback = 0.0,
        |policy| policy.alpha_advance = f64::NAN,
        |policy| policy.sharpest_at_units = -1.0,
        |policy| policy.comparisons[0].margin = 2.0,
        |policy| policy.comparisons.push(Comparison::of(Metric::Quality)),
        |policy| policy.floor = Some(Floor::at(f64::NAN)),
    ];
    for spoil in spoil {
        let mut policy = policy();
        spoil(&mut policy);
        assert!(!policy.is_possible());
        let overall = judge(&policy, &good, Asked::Promotion, at(0)).overall;
        assert!(matches!(overall, Overall::Hold { .. }), "{overall:?}");
    }
}

/// When a version is first found BAD and GOOD within 400 units of the candidate, each of 300
/// rollouts at 10 %, looked at after every one of them.
fn rollouts(candidate: f64, stable: f64) -> Vec<(Option<u64>, Option<u64>)> {
    let (bad, good) = (policy().rollback_sequence(), policy().advance_sequence());
    let run = |seed| {
        let mut random = Xoshiro256PlusPlus::seed_from_u64(seed);
        let mut pass = |rate| f64::from(u8::from(random.random_bool(rate)));
        let (mut arms, mut first) = (Stratum::default(), (None, None));
        while arms.candidate.n < 400 {
            (0..9).for_each(|_| arms.stable.push(pass(stable)));
            arms.candidate.push(pass(candidate));
            let (n, difference) = (arms.candidate.n, Difference::of(&[arms]).unwrap());
            if first.0.is_none() && n >= 30 && bad.is_below(&difference, 0.0) {
                first.0 = Some(n);
            }
            if first.1.is_none() && n >= 100 && good.is_above(&difference, -0.05) {
                first.1 = Some(n);
            }
        }
        first
    };
    (0..300).map(run).collect()
}

/// `make simulate` has more of this, with more runs.
#[test]
fn simulated_rollouts_keep_what_the_bands_promise() {
    let count = |times: &[(Option<u64>, Option<u64>)],
                 of: fn(&(Option<u64>, Option<u64>)) -> bool| {
        times.iter().filter(|time| of(time)).count()
    };
    let identical = rollouts(0.9, 0.9);
    assert!(
        count(&identical, |time| time.0.is_some()) <= 6,
        "2 % of 300"
    );
    assert!(count(&identical, |time| time.1.is_some()) >= 150);
    let at_margin = rollouts(0.92, 0.97);
    assert!(
        count(&at_margin, |time| time.1.is_some()) <= 15,
        "5 % of 300"
    );
    let worse = rollouts(0.7, 0.9);
    assert!(count(&worse, |time| time.0.is_some_and(|units| units <= 50)) >= 150);
    let failing = rollouts(0.8, 0.99);
    assert!(count(&failing, |time| time.0.is_some_and(|units| units <= 40)) >= 150);
}

#[test]
fn metrics_stand_where_their_index_says() {
    for (index, metric) in Metric::ALL.into_iter().enumerate() {
        assert_eq!(metric.index(), index);
    }
}
