use proptest::{collection::vec, prop_assert, prop_assert_eq, proptest};
use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus as Random};

use super::*;

const RUNS: u32 = 4000;
const SEED: u64 = 20_261_125;

/// How the scores of an example come about.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Scores {
    /// 0 or 1.
    PassFail,
    /// A judge with five levels.
    Graded,
}

/// A dataset on which the version before scores `rate` on average, and the new one `drop` less.
#[derive(Debug, Clone, Copy)]
struct World {
    scores: Scores,
    rate: f64,
    drop: f64,
    /// Whether the new version does as the one before but for what it has lost, so that all
    /// differences are losses; otherwise the two know nothing of one another.
    is_alike: bool,
}

impl World {
    fn difference(self, random: &mut Random) -> f64 {
        let levels = match self.scores {
            Scores::PassFail => 1,
            Scores::Graded => 4,
        };
        let each = (0..levels).map(|_| {
            let before = random.random_bool(self.rate);
            let after = if self.is_alike {
                before && random.random_bool(1.0 - self.drop / self.rate)
            } else {
                random.random_bool(self.rate - self.drop)
            };
            f64::from(u8::from(after)) - f64::from(u8::from(before))
        });
        each.sum::<f64>() / f64::from(levels)
    }

    fn sample(self, pairs: usize, random: &mut Random) -> Vec<f64> {
        (0..pairs).map(|_| self.difference(random)).collect()
    }

    /// In how many of 100 datasets of so many examples `passes` lets the new version through.
    fn passed(self, pairs: usize, passes: impl Fn(Vec<f64>) -> bool) -> f64 {
        let mut random = Random::seed_from_u64(SEED);
        let passed = (0..RUNS).filter(|_| passes(self.sample(pairs, &mut random)));
        100.0 * passed.count() as f64 / f64::from(RUNS)
    }
}

/// `mean − t·SE`.
fn is_above_by_t(differences: &[f64], limit: f64) -> bool {
    let n = differences.len() as f64;
    let mean = differences.iter().sum::<f64>() / n;
    let scatter: f64 = differences.iter().map(|it| (it - mean).powi(2)).sum();
    let t = StudentsT::new(0.0, 1.0, n - 1.0)
        .unwrap()
        .inverse_cdf(CONFIDENCE);
    mean - t * (scatter / (n - 1.0) / n).sqrt() >= limit
}

#[test]
fn a_version_that_is_worse_by_the_margin_passes_in_at_most_5_of_100_datasets() {
    let mut by_t = (0.0_f64, String::new());
    for scores in [Scores::PassFail, Scores::Graded] {
        for rate in [0.5, 0.95] {
            for is_alike in [false, true] {
                for (pairs, drop) in [(30, 0.15), (100, 0.05), (100, 0.1), (400, 0.05)] {
                    let world = World {
                        scores,
                        rate,
                        drop,
                        is_alike,
                    };
                    let passed = world.passed(pairs, |it| Sample::new(it, 1.0).is_above(-drop));
                    let with_t = world.passed(pairs, |it| is_above_by_t(&it, -drop));
                    let told = format!("{world:?}, {pairs} pairs: {passed:.2}, by t {with_t:.2}");
                    assert!(passed <= 5.0, "{told}");
                    eprintln!("{told}");
                    if with_t > by_t.0 {
                        by_t = (with_t, told);
                    }
                }
            }
        }
    }
    assert!(by_t.0 > 10.0, "mean − t·SE would do: {}", by_t.1);
}

#[test]
fn losses_without_gains_keep_the_promise_exactly() {
    // The new version fails `drop` of what the other one passes. How many of the pairs are losses
    // is binomial, and so is how often it passes.
    for pairs in (30..=400).step_by(5) {
        for drop in [0.01, 0.02, 0.03, 0.05, 0.08, 0.1, 0.15, 0.2, 0.3, 0.5] {
            let (mut passes, mut exactly, mut losses) = (0.0, (1.0_f64 - drop).powi(pairs), 0);
            while losses <= pairs {
                let kept = usize::try_from(pairs - losses).unwrap();
                let mut differences = vec![0.0; kept];
                differences.resize(usize::try_from(pairs).unwrap(), -1.0);
                if !Sample::new(differences, 1.0).is_above(-drop) {
                    break;
                }
                passes += exactly;
                exactly *= f64::from(pairs - losses) / f64::from(losses + 1) * drop / (1.0 - drop);
                losses += 1;
            }
            assert!(passes <= 0.05, "{pairs} pairs, drop of {drop}: {passes}");
        }
    }
}

#[test]
fn a_version_that_is_as_good_passes_at_a_margin_that_is_detectable() {
    for (scores, rate, pairs) in [
        (Scores::PassFail, 0.5, 100),
        (Scores::PassFail, 0.95, 100),
        (Scores::PassFail, 0.95, 400),
        (Scores::Graded, 0.5, 100),
        (Scores::Graded, 0.95, 400),
    ] {
        let world = World {
            scores,
            rate,
            drop: 0.0,
            is_alike: false,
        };
        let mut random = Random::seed_from_u64(SEED);
        let typical = Sample::new(world.sample(100_000, &mut random), 1.0);
        // What these pairs scatter, with as many as there will be.
        let (mut low, mut high) = (0.0, 1.0);
        for _ in 0..40 {
            let margin = f64::midpoint(low, high);
            if typical.pairs_for(margin) > pairs as f64 {
                low = margin;
            } else {
                high = margin;
            }
        }
        let passed = world.passed(pairs, |it| Sample::new(it, 1.0).is_above(-high));
        eprintln!("{world:?}, {pairs} pairs: detectable {high:.4}, passed {passed:.1}");
        assert!(
            (74.0..=90.0).contains(&passed),
            "{world:?}: {passed} at {high}"
        );
    }
}

#[test]
fn latencies_that_are_worse_by_the_margin_seldom_pass() {
    // Lognormal, the new version slower by a factor, in part on the same examples.
    let mut random = Random::seed_from_u64(SEED);
    let mut normal = || {
        let (radius, angle): (f64, f64) = (random.random(), random.random());
        (-2.0 * (1.0 - radius).ln()).sqrt() * (std::f64::consts::TAU * angle).cos()
    };
    for (pairs, factor) in [(30, 1.5), (100, 1.2), (400, 1.1)] {
        let margin = (factor - 1.0) * 500.0 * 0.32_f64.exp();
        let mut passed = 0;
        for _ in 0..RUNS {
            let (mut worst, mut differences) = (0.0_f64, Vec::new());
            for _ in 0..pairs {
                let before = 500.0 * (0.8 * normal()).exp();
                let after = factor * before * (0.3 * normal() - 0.045).exp();
                worst = worst.max(before).max(after);
                differences.push(before - after);
            }
            passed += u32::from(Sample::new(differences, worst).is_above(-margin));
        }
        let passed = 100.0 * f64::from(passed) / f64::from(RUNS);
        eprintln!("{pairs} pairs, slower by {factor}: {passed:.2}");
        assert!(passed <= 5.0, "{pairs} pairs: {passed}");
    }
}

#[test]
fn what_never_differs_is_not_shown_to_be_equal() {
    let bound = |pairs| Sample::new(vec![0.0; pairs], 1.0).lower_bound(1e-6);
    // The rule of three would say 3/n.
    for (pairs, low, high) in [
        (30, -0.125, -0.1),
        (100, -0.04, -0.03),
        (1000, -0.004, -0.003),
    ] {
        assert!(
            (low..high).contains(&bound(pairs)),
            "{pairs}: {}",
            bound(pairs)
        );
    }
    // As bad as can be, and as good.
    assert_eq!(Sample::new(vec![-1.0; 30], 1.0).lower_bound(1e-6), -1.0);
    let best = Sample::new(vec![1.0; 30], 1.0).lower_bound(1e-6);
    assert!((0.7..0.8).contains(&best), "{best}");
    // One pair has no scatter to judge by.
    assert!(!Sample::new(vec![0.0], 1.0).is_above(-0.99));
    assert!(!Sample::new(vec![], 1.0).is_above(-0.99));
}

proptest! {
    #[test]
    fn a_bound_is_what_it_is_called(mut values in vec(-1.0..1.0_f64, 2..60), place: usize, less in 0.0..1.0_f64) {
        let sample = Sample::new(values.clone(), 1.0);
        let bound = sample.lower_bound(1e-6);
        prop_assert!((-1.0..=sample.mean()).contains(&bound), "{}", bound);
        prop_assert!(bound == -1.0 || sample.is_above(bound));
        prop_assert!(!sample.is_above(bound + 2e-6));
        prop_assert!(sample.detectable() > 0.0);
        // In any order.
        values.reverse();
        let backwards = Sample::new(values.clone(), 1.0).lower_bound(1e-6);
        prop_assert!((backwards - bound).abs() <= 1e-6);
        // In any unit.
        let thousandfold = values.iter().map(|value| value * 1000.0).collect();
        let in_thousands = Sample::new(thousandfold, 1000.0).lower_bound(1e-3);
        prop_assert!((in_thousands / 1000.0 - bound).abs() <= 2e-6);
        // What is worse on one example and no better on another is not found better.
        let place = place % values.len();
        values[place] = (values[place] - less).max(-1.0);
        prop_assert!(Sample::new(values, 1.0).lower_bound(1e-6) <= bound + 1e-6);
    }

    #[test]
    fn so_many_pairs_as_are_needed_make_a_margin_detectable(values in vec(-1.0..1.0_f64, 30..60), margin in 0.01..1.0_f64) {
        let sample = Sample::new(values, 1.0);
        let needed = sample.pairs_for(margin);
        let enough = needed <= sample.pairs() as f64;
        prop_assert_eq!(enough, sample.detectable() <= margin, "{} for {}", needed, margin);
    }
}
