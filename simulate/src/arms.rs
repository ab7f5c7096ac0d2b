//! Rollouts of one stage and one metric, in which each unit has one outcome.

use delos_deploy::domain::analysis::Stratum;
use rand::RngExt as _;

use crate::{
    Settings,
    report::{Report, often, often_and_median},
    rules::Rule,
    runs::{self, Random, Times},
    world::{Outcome, World},
};

/// How many units of the candidate a rollout is watched for.
const UNITS_MAX: u64 = 1000;

/// When each question is first answered with yes, in units of the candidate.
fn first_times(
    world: World,
    random: &mut Random,
    asked: &[impl Fn(&Stratum) -> bool],
) -> Vec<Option<u64>> {
    let mut arms = Stratum::default();
    let mut times = vec![None; asked.len()];
    while arms.candidate.n < UNITS_MAX && times.iter().any(Option::is_none) {
        if random.random_bool(world.share) {
            arms.candidate.push(world.candidate.draw(random));
        } else {
            arms.stable.push(world.stable.draw(random));
        }
        for (time, is_so) in times.iter_mut().zip(asked) {
            if time.is_none() && is_so(&arms) {
                *time = Some(arms.candidate.n);
            }
        }
    }
    times
}

fn measure(
    settings: Settings,
    world: World,
    asked: &[impl Fn(&Stratum) -> bool + Sync],
) -> Vec<Times> {
    let all = runs::all(settings, |random| first_times(world, random, asked));
    let column = |index: usize| Times::of(all.iter().map(|times| times[index]));
    (0..asked.len()).map(column).collect()
}

fn rolled_back(settings: Settings, world: World, rules: &[Rule]) -> Vec<Times> {
    let asked: Vec<_> = rules
        .iter()
        .map(|&rule| move |arms: &Stratum| rule.finds_worse(arms))
        .collect();
    measure(settings, world, &asked)
}

fn passed(settings: Settings, world: World, rules: &[Rule], margin: f64) -> Vec<Times> {
    let asked: Vec<_> = rules
        .iter()
        .map(|&rule| move |arms: &Stratum| rule.finds_no_worse(arms, margin))
        .collect();
    measure(settings, world, &asked)
}

/// What a line of the first table is held to.
enum Goal {
    None,
    /// The most of 100 rollouts that may be rolled back, with all of α on this metric.
    RolledBack(f64),
    /// The most units until half are rolled back, with half of α on this metric: the default
    /// policy has two.
    Median(f64),
}

/// Rollbacks of versions that are as good, and of those that are worse.
pub(crate) fn rollbacks(settings: Settings, report: &mut Report) {
    let rules = [
        Rule::Mean { units_min: 10 },
        Rule::Mean { units_min: 100 },
        Rule::TTest { units_min: 30 },
        Rule::Asymptotic {
            alpha: 0.05,
            units_min: 30,
        },
        Rule::rollback(),
        Rule::rollback_at(0.005),
        Rule::rollback_at(0.0025),
    ];
    report.table(
        "Rolled back within 1,000 units of the candidate; median units of the candidate until then",
        &[
            "candidate; stable; share",
            "mean − 0.05, from 10",
            "mean − 0.05, from 100",
            "t-test, from 30",
            "asymptotic, α = 5 %",
            "Delos, α = 1 %",
            "Delos, α/2",
            "Delos, α/4",
        ],
    );
    for (name, world, goal) in rollback_worlds() {
        let times = rolled_back(settings, world, &rules);
        match goal {
            Goal::None => {}
            Goal::RolledBack(limit) => {
                let what = format!("identical version rolled back, {name} (%)");
                report.at_most(&what, limit, Some(times[4].percent()));
            }
            Goal::Median(limit) => {
                let median = times[5].median().map(|units| units as f64);
                let what = format!("median units to roll back, {name}");
                report.at_most(&what, limit, median);
            }
        }
        report.row(name, times.iter().map(often_and_median));
    }
}

fn rollback_worlds() -> Vec<(&'static str, World, Goal)> {
    let (passes, judged) = (World::passes, World::judged);
    let (rolled_back, median) = (Goal::RolledBack, Goal::Median);
    vec![
        (
            "pass 0.90; 0.90; 10 %",
            passes(0.9, 0.9, 0.1),
            rolled_back(1.0),
        ),
        (
            "judge 0.80; 0.80; 10 %",
            judged(0.8, 0.8, 0.1),
            rolled_back(1.0),
        ),
        (
            "pass 0.90; 0.90; 50 %",
            passes(0.9, 0.9, 0.5),
            rolled_back(2.5),
        ),
        (
            "judge 0.80; 0.80; 50 %",
            judged(0.8, 0.8, 0.5),
            rolled_back(2.5),
        ),
        (
            "errors 1 %; 1 %; 10 %",
            passes(0.99, 0.99, 0.1),
            rolled_back(1.0),
        ),
        ("pass 0.85; 0.90; 10 %", passes(0.85, 0.9, 0.1), Goal::None),
        (
            "pass 0.80; 0.90; 10 %",
            passes(0.8, 0.9, 0.1),
            median(150.0),
        ),
        ("pass 0.70; 0.90; 10 %", passes(0.7, 0.9, 0.1), median(50.0)),
        ("judge 0.75; 0.80; 10 %", judged(0.75, 0.8, 0.1), Goal::None),
        (
            "judge 0.70; 0.80; 10 %",
            judged(0.7, 0.8, 0.1),
            median(150.0),
        ),
        (
            "judge 0.60; 0.80; 10 %",
            judged(0.6, 0.8, 0.1),
            median(50.0),
        ),
        ("pass 0.80; 0.90; 50 %", passes(0.8, 0.9, 0.5), Goal::None),
        ("pass 0.70; 0.90; 50 %", passes(0.7, 0.9, 0.5), Goal::None),
        ("errors 5 %; 1 %; 10 %", passes(0.95, 0.99, 0.1), Goal::None),
        (
            "errors 20 %; 1 %; 10 %",
            passes(0.8, 0.99, 0.1),
            median(40.0),
        ),
        (
            "errors 100 %; 1 %; 10 %",
            passes(0.0, 0.99, 0.1),
            Goal::None,
        ),
    ]
}

/// Passes of versions that are as good, and of those that are worse by exactly the margin.
pub(crate) fn promotions(settings: Settings, report: &mut Report) {
    let rules = [
        Rule::Asymptotic {
            alpha: 0.05,
            units_min: 30,
        },
        Rule::Asymptotic {
            alpha: 0.05,
            units_min: 100,
        },
        Rule::advance(),
    ];
    report.table(
        "Found GOOD within 1,000 units of the candidate; median units of the candidate until then",
        &[
            "candidate; stable; share; margin",
            "asymptotic, from 30",
            "asymptotic, from 100",
            "Delos, α = 5 %",
        ],
    );
    for (name, world, margin, is_at_margin) in promotion_worlds() {
        let times = passed(settings, world, &rules, margin);
        if is_at_margin {
            let what = format!("version at the margin found GOOD, {name} (%)");
            report.at_most(&what, 5.0, Some(times[2].percent()));
        }
        report.row(name, times.iter().map(often_and_median));
    }
}

/// With their margins, and whether they are at it.
fn promotion_worlds() -> Vec<(&'static str, World, f64, bool)> {
    let (passes, judged) = (World::passes, World::judged);
    vec![
        (
            "pass 0.90; 0.90; 10 %; 0.05",
            passes(0.9, 0.9, 0.1),
            0.05,
            false,
        ),
        (
            "judge 0.80; 0.80; 10 %; 0.05",
            judged(0.8, 0.8, 0.1),
            0.05,
            false,
        ),
        (
            "pass 0.90; 0.90; 50 %; 0.05",
            passes(0.9, 0.9, 0.5),
            0.05,
            false,
        ),
        (
            "judge 0.80; 0.80; 50 %; 0.05",
            judged(0.8, 0.8, 0.5),
            0.05,
            false,
        ),
        (
            "errors 1 %; 1 %; 10 %; 0.02",
            passes(0.99, 0.99, 0.1),
            0.02,
            false,
        ),
        (
            "pass 0.85; 0.90; 10 %; 0.05",
            passes(0.85, 0.9, 0.1),
            0.05,
            true,
        ),
        (
            "judge 0.75; 0.80; 10 %; 0.05",
            judged(0.75, 0.8, 0.1),
            0.05,
            true,
        ),
        (
            "pass 0.92; 0.97; 10 %; 0.05",
            passes(0.92, 0.97, 0.1),
            0.05,
            true,
        ),
        (
            "pass 0.85; 0.90; 50 %; 0.05",
            passes(0.85, 0.9, 0.5),
            0.05,
            true,
        ),
        (
            "pass 0.92; 0.97; 50 %; 0.05",
            passes(0.92, 0.97, 0.5),
            0.05,
            true,
        ),
        (
            "errors 3 %; 1 %; 10 %; 0.02",
            passes(0.97, 0.99, 0.1),
            0.02,
            true,
        ),
    ]
}

/// Rollbacks of identical versions in worlds that are hard on approximations.
pub(crate) fn hard_worlds(settings: Settings, report: &mut Report) {
    let rules = [
        Rule::TTest { units_min: 30 },
        Rule::Asymptotic {
            alpha: 0.05,
            units_min: 30,
        },
        Rule::rollback_at(0.05),
        Rule::rollback(),
    ];
    report.table(
        "As good, and rolled back within 1,000 units of the candidate",
        &[
            "candidate; stable; share",
            "t-test, from 30",
            "asymptotic, α = 5 %",
            "Delos, α = 5 %",
            "Delos, α = 1 %",
        ],
    );
    let (passes, steady) = (World::passes, Outcome::Judged([0.0, 0.01, 0.01, 0.98, 0.0]));
    let rare = Outcome::Judged([0.02, 0.02, 0.02, 0.0, 0.94]);
    let wild = Outcome::Passes(0.7425);
    let same = |outcome, share| World {
        candidate: outcome,
        stable: outcome,
        share,
    };
    let against = |candidate, stable| World {
        candidate,
        stable,
        share: 0.1,
    };
    for (name, world) in [
        ("pass 0.999, 10 %", passes(0.999, 0.999, 0.1)),
        ("pass 0.97, 10 %", passes(0.97, 0.97, 0.1)),
        ("pass 0.50, 10 %", passes(0.5, 0.5, 0.1)),
        ("pass 0.02, 10 %", passes(0.02, 0.02, 0.1)),
        ("pass 0.90, 2 %", passes(0.9, 0.9, 0.02)),
        ("pass 0.90, 90 %", passes(0.9, 0.9, 0.9)),
        ("judge, mostly 1, rarely far below, 10 %", same(rare, 0.1)),
        ("judge, nearly always 0.75, 10 %", same(steady, 0.1)),
        (
            "pass 0.74; judge, nearly always 0.75; 10 %",
            against(wild, steady),
        ),
        (
            "judge, nearly always 0.75; pass 0.74; 10 %",
            against(steady, wild),
        ),
    ] {
        let times = rolled_back(settings, world, &rules);
        let what = format!("as good, rolled back, {name} (%)");
        report.at_most(&what, 1.0, Some(times[3].percent()));
        report.row(name, times.iter().map(often));
    }
}
