//! Rollouts while the world changes, and rollouts of several stages.

use std::ops::Range;

use delos_deploy::domain::analysis::{
    AnalysisPolicy, Assigned, Difference, Level, Moments, Sequence, Stratum,
};
use rand::RngExt as _;

use crate::{
    Settings,
    assignment::is_broken,
    report::{Report, often, often_and_median},
    runs::{self, Random, Times},
    world::Outcome,
};

/// The candidate's shares, stage by stage.
const SHARES: [f64; 3] = [0.1, 0.25, 0.5];
const UNITS_ROLLBACK_MIN: u64 = 30;

/// The default policy, with all of the error on one check.
fn sequence() -> Sequence {
    let policy = AnalysisPolicy {
        comparisons: Vec::new(),
        ..AnalysisPolicy::default()
    };
    policy.rollback_sequence()
}

fn finds_worse(sequence: &Sequence, strata: &[Stratum]) -> bool {
    let all = pooled(strata);
    all.candidate.n.min(all.stable.n) >= UNITS_ROLLBACK_MIN
        && Difference::of(strata).is_some_and(|all| sequence.is_below(&all, 0.0))
}

fn pooled(strata: &[Stratum]) -> Stratum {
    let strata = strata.iter();
    strata.fold(Stratum::default(), |all, stratum| Stratum {
        candidate: all.candidate.merge(stratum.candidate),
        stable: all.stable.merge(stratum.stable),
    })
}

/// The provider has got worse since the baseline was stored.
pub(crate) fn drift(settings: Settings, report: &mut Report) {
    report.table(
        "Identical and rolled back: baseline 0.90 of last week, both versions really 0.85, share 10 %",
        &[
            "",
            "mean < baseline − 0.05, from 100",
            "Delos's band against the baseline",
            "Delos, side by side",
        ],
    );
    let (outcome, sequence) = (Outcome::Passes(0.85), sequence());
    let all = runs::all(settings, |random| {
        let (mut arms, mut worse) = (Stratum::default(), [false; 3]);
        while arms.candidate.n < 1000 {
            if !random.random_bool(0.1) {
                arms.stable.push(outcome.draw(random));
                continue;
            }
            arms.candidate.push(outcome.draw(random));
            let Moments { n, mean, .. } = arms.candidate;
            worse[0] |= n >= 100 && mean < 0.85;
            worse[1] |= n >= UNITS_ROLLBACK_MIN
                && Level::of(&arms.candidate).is_some_and(|level| sequence.is_below(&level, 0.9));
            worse[2] |= finds_worse(&sequence, &[arms]);
        }
        worse
    });
    let column = |index: usize| Times::of(all.iter().map(|worse| worse[index].then_some(0)));
    report.row(
        "pass 0.85; 0.85",
        [0, 1, 2].map(|index| often(&column(index))),
    );
    let side_by_side = Some(column(2).percent());
    report.at_most(
        "identical version rolled back, provider drifted (%)",
        1.0,
        side_by_side,
    );
}

/// Three stages, each of 100 units of the candidate, the last until there are 600.
pub(crate) fn steps(settings: Settings, report: &mut Report) {
    report.table(
        "Three stages (10, 25, 50 %), 600 units of the candidate: rolled back; median units",
        &[
            "candidate; stable, stage by stage",
            "Delos, all units together",
            "Delos, by stage",
        ],
    );
    let steady = [0.9; 3];
    for (name, stable, worse_by, is_goal) in [
        ("0.90; 0.90", steady, 0.0, true),
        ("0.95, 0.80, 0.60; the same", [0.95, 0.8, 0.6], 0.0, true),
        ("0.60, 0.80, 0.95; the same", [0.6, 0.8, 0.95], 0.0, true),
        ("0.85; 0.90", steady, 0.05, false),
        ("0.80; 0.90", steady, 0.1, false),
        (
            "0.50, 0.70, 0.85; 10 points better",
            [0.6, 0.8, 0.95],
            0.1,
            false,
        ),
    ] {
        let all = runs::all(settings, |random| staged(stable, worse_by, random));
        let column =
            |index: usize| Times::of(all.iter().map(|times: &[Option<u64>; 2]| times[index]));
        if is_goal {
            let what = format!("identical version rolled back, three stages, {name} (%)");
            report.at_most(&what, 1.0, Some(column(1).percent()));
        }
        report.row(name, [0, 1].map(|index| often_and_median(&column(index))));
    }
}

fn staged(stable: [f64; 3], worse_by: f64, random: &mut Random) -> [Option<u64>; 2] {
    let mut strata = [Stratum::default(); 3];
    let (mut times, sequence) = ([None; 2], sequence());
    for units in 1..=600 {
        let stage = ((units - 1) / 100).min(2) as usize;
        while !random.random_bool(SHARES[stage]) {
            strata[stage]
                .stable
                .push(Outcome::Passes(stable[stage]).draw(random));
        }
        let outcome = Outcome::Passes(stable[stage] - worse_by);
        strata[stage].candidate.push(outcome.draw(random));
        let together = [pooled(&strata)];
        for (time, counted) in times.iter_mut().zip([&together[..], &strata[..=stage]]) {
            if time.is_none() && finds_worse(&sequence, counted) {
                *time = Some(units);
            }
        }
    }
    times
}

/// A user with a place in the split, and what is counted of it.
#[derive(Default)]
struct User {
    place: f64,
    rate: f64,
    /// By arm, stable first: the stage it is counted in, its calls and those that passed.
    counted: [Option<(usize, f64, f64)>; 2],
}

impl User {
    fn new(rate: f64, random: &mut Random) -> Self {
        Self {
            place: random.random(),
            rate,
            ..Self::default()
        }
    }
}

/// In which stage a unit is counted.
#[derive(Clone, Copy, PartialEq)]
enum Counting {
    /// Where its arm saw it first: a user who changes arms is counted in both.
    ByArm,
    /// Where the rollout saw it first; one that changes arms is taken out.
    ByRollout,
}

/// Calls of each stage; half are by one of `REGULARS` regular users, half by a new one.
const CALLS: usize = 3000;
const REGULARS: usize = 400;

/// Regular users who fare worse than those who come once.
pub(crate) fn returning(settings: Settings, report: &mut Report) {
    report.table(
        "Identical, three stages (10, 25, 50 %), regular users 0.75, new users 0.95",
        &[
            "a unit is counted",
            "rolled back",
            "assignment found broken",
        ],
    );
    for (name, counting) in [
        ("where its arm saw it first", Counting::ByArm),
        (
            "where the rollout saw it first, until it changes arms",
            Counting::ByRollout,
        ),
    ] {
        let all = runs::all(settings, |random| with_regulars(counting, random));
        let worse = Times::of(all.iter().map(|found: &(bool, bool)| found.0.then_some(0)));
        let broken = Times::of(all.iter().map(|found| found.1.then_some(0)));
        if counting == Counting::ByRollout {
            let what = "identical version rolled back, regular users (%)";
            report.at_most(what, 1.0, Some(worse.percent()));
            let what = "sound assignment found broken, regular users (%)";
            report.at_most(what, 0.2, Some(broken.percent()));
        }
        report.row(name, [often(&worse), often(&broken)]);
    }
}

fn with_regulars(counting: Counting, random: &mut Random) -> (bool, bool) {
    let mut strata = [Stratum::default(); 3];
    let mut assigned = [(0, 0); 3];
    let (mut is_worse, mut is_broken_ever, sequence) = (false, false, sequence());
    let mut users: Vec<_> = (0..REGULARS).map(|_| User::new(0.75, random)).collect();
    for stage in 0..SHARES.len() {
        if counting == Counting::ByRollout && stage > 0 {
            take_out(&users, SHARES[stage - 1]..SHARES[stage], &mut strata);
        }
        for call in 0..CALLS {
            let index = if random.random_bool(0.5) {
                random.random_range(0..REGULARS)
            } else {
                users.push(User::new(0.95, random));
                users.len() - 1
            };
            let user = &mut users[index];
            count(user, stage, counting, &mut strata, &mut assigned, random);
            if call % 10 == 9 {
                is_worse |= finds_worse(&sequence, &strata[..=stage]);
                is_broken_ever |= is_broken(&assignments(&assigned[..=stage]));
            }
        }
    }
    (is_worse, is_broken_ever)
}

/// Takes out the users who change arms, whether or not they ever call again: the places of those
/// who stay are as random as before.
fn take_out(users: &[User], changing: Range<f64>, strata: &mut [Stratum; 3]) {
    let gone = users.iter().filter(|user| changing.contains(&user.place));
    for (at, calls, passed) in gone.filter_map(|user| user.counted[0]) {
        strata[at].stable.remove(passed / calls);
    }
}

fn count(
    user: &mut User,
    stage: usize,
    counting: Counting,
    strata: &mut [Stratum; 3],
    assigned: &mut [(u64, u64); 3],
    random: &mut Random,
) {
    let is_candidate = user.place < SHARES[stage];
    let arm = usize::from(is_candidate);
    let passed = f64::from(u8::from(random.random_bool(user.rate)));
    let has_changed = is_candidate && user.counted[0].is_some();
    if counting == Counting::ByRollout && has_changed {
        return;
    }
    let (at, calls, before) = user.counted[arm].unwrap_or((stage, 0.0, 0.0));
    user.counted[arm] = Some((at, calls + 1.0, before + passed));
    let moments = if is_candidate {
        &mut strata[at].candidate
    } else {
        &mut strata[at].stable
    };
    let after = (before + passed) / (calls + 1.0);
    if calls > 0.0 {
        moments.replace(before / calls, after);
        return;
    }
    moments.push(after);
    if is_candidate {
        assigned[at].0 += 1;
    } else {
        assigned[at].1 += 1;
    }
}

fn assignments(assigned: &[(u64, u64)]) -> Vec<Assigned> {
    let stages = assigned.iter().zip(SHARES);
    stages
        .map(|(&(candidate, stable), share)| Assigned {
            candidate,
            stable,
            share,
        })
        .collect()
}
