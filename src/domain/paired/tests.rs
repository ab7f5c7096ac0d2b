use super::*;
use crate::domain::gate::ConditionType;

fn evaluation(run: &str, version: i32, scores: &[f64]) -> Evaluation {
    let outcome = |(number, score): (usize, &f64)| Outcome {
        example_id: format!("example-{number}"),
        is_failed: false,
        score: *score,
        latency_ms: 100.0 + score,
        cost_usd: 0.01,
    };
    Evaluation {
        run_id: run.into(),
        version,
        outcomes: scores.iter().enumerate().map(outcome).collect(),
    }
}

fn both(candidate: &[f64], baseline: &[f64]) -> Both {
    Both {
        candidate: evaluation("new", 2, candidate),
        baseline: evaluation("old", 1, baseline),
    }
}

fn score(both: &Both) -> Result<Comparison, String> {
    compare(ConditionType::EvalScore, both, 0.05)
}

#[test]
fn two_evaluations_are_compared_example_by_example() {
    let mut of_both = both(&[0.8; 100], &[0.9; 100]);
    of_both.candidate.outcomes.reverse();
    let compared = score(&of_both).unwrap();
    assert!((compared.mean + 0.1).abs() < 1e-12);
    insta::assert_snapshot!(compared.describe(&of_both), @"100 pairs: mean difference -0.1, with 95 % confidence no worse than -0.132377; smallest detectable drop 0.03471; version 2 in run new beside version 1 in run old");
    // 0.05 are shown with these, 0.1 worse as they are; less takes more of them.
    assert_eq!(compared.needed, None);
    let strict = compare(ConditionType::EvalScore, &of_both, 0.01).unwrap();
    insta::assert_snapshot!(strict.describe(&of_both), @"100 pairs: mean difference -0.1, with 95 % confidence no worse than -0.132377; smallest detectable drop 0.03471, about 350 examples are needed for this margin; version 2 in run new beside version 1 in run old");
}

#[test]
fn the_example_in_the_documentation_is_right() {
    let mut scores = vec![(1.0, 1.0); 360];
    scores.extend([(0.0, 0.0); 20]);
    scores.extend([(0.0, 1.0); 12]);
    scores.extend([(1.0, 0.0); 8]);
    let (candidate, baseline): (Vec<_>, Vec<_>) = scores.into_iter().unzip();
    assert!((baseline.iter().sum::<f64>() - 372.0).abs() < 1e-9);
    let of_both = both(&candidate, &baseline);
    let compared = score(&of_both).unwrap();
    insta::assert_snapshot!(compared.describe(&of_both), @"400 pairs: mean difference -0.01, with 95 % confidence no worse than -0.032187; smallest detectable drop 0.031; version 2 in run new beside version 1 in run old");
    let strict = compare(ConditionType::EvalScore, &of_both, 0.02).unwrap();
    assert_eq!((strict.bound, strict.needed), (compared.bound, Some(890)));
}

#[test]
fn a_latency_or_cost_is_no_worse_than_its_upper_bound() {
    let of_both = both(&[0.8; 100], &[0.9; 100]);
    // A tenth of a millisecond faster, and as much as the slowest example slower in one more pair.
    let latency = compare(ConditionType::Latency, &of_both, 1.0).unwrap();
    assert!((latency.mean + 0.1).abs() < 1e-9, "{latency:?}");
    assert!((2.0..4.0).contains(&latency.bound), "{latency:?}");
    insta::assert_snapshot!(latency.describe(&of_both), @"100 pairs: mean difference -0.1 ms, with 95 % confidence no worse than 3.534 ms; smallest detectable rise 3.502 ms, about 353 examples are needed for this margin; version 2 in run new beside version 1 in run old");
    let cost = compare(ConditionType::Cost, &of_both, 0.001).unwrap();
    assert_eq!(cost.mean.to_bits(), 0.0_f64.to_bits(), "not -0");
    assert!((0.0003..0.0004).contains(&cost.bound), "{cost:?}");
}

#[test]
fn an_example_with_several_outcomes_is_one_pair() {
    let once = both(&[0.5; 40], &[0.5; 40]);
    let mut often = once.clone();
    // The mean of 0.3, 0.5 and 0.7.
    for (score, count) in [(0.3, 40), (0.7, 40)] {
        let more = evaluation("new", 2, &vec![score; count]).outcomes;
        often.candidate.outcomes.extend(more);
    }
    let (once, often) = (score(&once).unwrap(), score(&often).unwrap());
    assert_eq!((once.pairs, once.bound), (often.pairs, often.bound));
    assert!(often.mean.abs() < 1e-12);
}

#[test]
fn a_failed_example_never_helps_the_candidate() {
    let good = both(&[0.9; 100], &[0.9; 100]);
    let clean = score(&good).unwrap();
    let mut of_candidate = good.clone();
    // Its score says nothing, however good.
    of_candidate.candidate.outcomes[0].is_failed = true;
    of_candidate.candidate.outcomes[0].score = f64::NAN;
    let worse = score(&of_candidate).unwrap();
    assert_eq!(worse.pairs, 100);
    assert!((worse.mean + 0.009).abs() < 1e-9, "{worse:?}");
    assert!(worse.bound < clean.bound - 0.009);
    // Where the other one fails there is nothing to compare with.
    let mut of_baseline = good.clone();
    of_baseline.baseline.outcomes[0].is_failed = true;
    let fewer = score(&of_baseline).unwrap();
    assert_eq!((fewer.pairs, fewer.mean), (99, 0.0));
    // A failure takes no time: whichever has it, and in one of several outcomes.
    let mut repeated = good.clone();
    let mut failed = good.candidate.outcomes[0].clone();
    (failed.is_failed, failed.latency_ms) = (true, 0.0);
    repeated.candidate.outcomes.push(failed);
    for of_either in [of_candidate, of_baseline, repeated] {
        let compared = compare(ConditionType::Latency, &of_either, 1.0).unwrap();
        assert_eq!((compared.pairs, compared.mean), (99, 0.0));
    }
}

#[test]
fn what_can_not_be_compared_says_why() {
    let refused = |of_both: &Both, said: &str| {
        let why = score(of_both).unwrap_err();
        assert!(why.contains(said), "{why}");
    };
    let many = [0.9; 100];
    refused(&both(&many[..29], &many[..29]), "29 can be compared");
    refused(&both(&[], &[]), "0 can be compared");
    assert_eq!(score(&both(&many[..90], &many)).unwrap().pairs, 90);
    refused(&both(&many[..89], &many), "only 89 of 100 examples");
    refused(&both(&many, &many[..89]), "only 89 of 100 examples");
    for wrong in [f64::NAN, f64::INFINITY, -0.1, 1.1] {
        let mut of_both = both(&many, &many);
        of_both.baseline.outcomes[7].score = wrong;
        refused(
            &of_both,
            &format!("{wrong} is no eval_score (example 'example-7' of run old)"),
        );
    }
    let mut nameless = both(&many, &many);
    nameless.candidate.outcomes[7].example_id.clear();
    refused(&nameless, "run new has a result that names no example");
    // More than a tenth of the other one's examples failed.
    let mut failing = both(&many, &many);
    for outcome in &mut failing.baseline.outcomes[..11] {
        outcome.is_failed = true;
    }
    refused(&failing, "only 89 of 100 examples");
    // As many as failed count 0 where they are the candidate's: it is compared, and worse.
    for outcome in &mut failing.baseline.outcomes {
        outcome.is_failed = false;
    }
    for outcome in &mut failing.candidate.outcomes {
        outcome.is_failed = true;
    }
    assert!((score(&failing).unwrap().mean + 0.9).abs() < 1e-9);
}

#[test]
fn a_latency_or_cost_that_nobody_measured_is_none() {
    let mut of_both = both(&[0.9; 100], &[0.9; 100]);
    for outcome in &mut of_both.candidate.outcomes {
        (outcome.latency_ms, outcome.cost_usd) = (0.0, 0.0);
    }
    for kind in [ConditionType::Latency, ConditionType::Cost] {
        let why = compare(kind, &of_both, 1.0).unwrap_err();
        assert!(
            why.contains("no example of run new") && why.contains("not measured"),
            "{why}"
        );
    }
    of_both.candidate.outcomes[0].latency_ms = -1.0;
    let why = compare(ConditionType::Latency, &of_both, 1.0).unwrap_err();
    assert!(why.contains("-1 is no latency"), "{why}");
    assert!(compare(ConditionType::Custom, &of_both, 1.0).is_err());
}
