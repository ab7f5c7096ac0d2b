//! Users who come back, and of whom each fares a little differently.

use delos_deploy::domain::analysis::Stratum;
use rand::RngExt as _;

use crate::{
    Settings,
    report::{Report, often},
    rules::Rule,
    runs::{self, Random, Times},
};

/// How many units of the candidate a rollout has.
const CANDIDATES: usize = 100;
/// Users for each of the candidate's.
const USERS_EACH: usize = 10;
/// Calls of a user.
const CALLS: usize = 20;

/// A user, and the calls so far.
struct User {
    rate: f64,
    calls: f64,
    passed: f64,
}

impl User {
    fn new(spread: f64, random: &mut Random) -> Self {
        let sign = if random.random_bool(0.5) { 1.0 } else { -1.0 };
        Self {
            rate: 0.75 + sign * spread,
            calls: 0.0,
            passed: 0.0,
        }
    }

    /// The outcome of one more call, and the user's mean before (none at the first) and after.
    fn call(&mut self, random: &mut Random) -> (f64, Option<f64>, f64) {
        let outcome = f64::from(u8::from(random.random_bool(self.rate)));
        let before = (self.calls > 0.0).then(|| self.passed / self.calls);
        self.calls += 1.0;
        self.passed += outcome;
        (outcome, before, self.passed / self.calls)
    }
}

/// Whether each way of counting ever rolls back an identical version: by call, and by user.
fn run(spread: f64, random: &mut Random, rules: [Rule; 3]) -> [bool; 3] {
    let (mut by_call, mut by_user) = (Stratum::default(), Stratum::default());
    let mut worse = [false; 3];
    let mut users: Vec<_> = (0..CANDIDATES * USERS_EACH)
        .map(|_| User::new(spread, random))
        .collect();
    for _ in 0..users.len() * CALLS {
        let index = random.random_range(0..users.len());
        let is_candidate = index < CANDIDATES;
        let (outcome, before, after) = users[index].call(random);
        let (call_arm, user_arm) = if is_candidate {
            (&mut by_call.candidate, &mut by_user.candidate)
        } else {
            (&mut by_call.stable, &mut by_user.stable)
        };
        call_arm.push(outcome);
        match before {
            None => user_arm.push(after),
            Some(before) => user_arm.replace(before, after),
        }
        if is_candidate {
            let counted = [&by_call, &by_call, &by_user];
            for ((worse, rule), arms) in worse.iter_mut().zip(rules).zip(counted) {
                *worse = *worse || rule.finds_worse(arms);
            }
        }
    }
    worse
}

/// Identical versions, 100 users of the candidate and 900 others, 20 calls each on average.
pub(crate) fn sticky(settings: Settings, report: &mut Report) {
    report.table(
        "Identical and rolled back: 100 users of the candidate beside 900, about 20 calls each",
        &[
            "pass rate of users",
            "t-test by call",
            "Delos by call, α = 1 %",
            "Delos by user, α = 1 %",
        ],
    );
    let rules = [
        Rule::TTest { units_min: 30 },
        Rule::rollback(),
        Rule::rollback(),
    ];
    for (name, spread) in [("0.65 or 0.85", 0.1), ("0.55 or 0.95", 0.2)] {
        let all = runs::all(settings, |random| run(spread, random, rules));
        let column = |index: usize| {
            Times::of(
                all.iter()
                    .map(|worse: &[bool; 3]| worse[index].then_some(0)),
            )
        };
        let times = [column(0), column(1), column(2)];
        let what = format!("identical version rolled back, users of {name} (%)");
        report.at_most(&what, 1.0, Some(times[2].percent()));
        report.row(name, times.iter().map(often));
    }
}
