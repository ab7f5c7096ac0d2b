//! Whole rollouts: four metrics, a floor, the circuit breaker and the provider, judged together.

use std::collections::VecDeque;

use delos_deploy::domain::{
    Timestamp,
    analysis::{
        AnalysisPolicy, Asked, Assigned, Calls, Comparison, Evidence, Floor, Metric,
        MetricEvidence, Moments, Overall, Recent, Stratum, judge,
    },
};
use rand::RngExt as _;

use crate::{
    Settings,
    report::{Report, often, often_and_median},
    runs::{self, Random, Times},
    world::Outcome,
};

const SHARE: f64 = 0.1;
const UNITS_MAX: u64 = 600;
/// Every outcome is looked at while there are so few, then every fifth: a judgement with all its
/// numbers and reasons takes a while.
const UNITS_EACH: u64 = 60;
/// The stable version's units before the rollout.
const UNITS_BEFORE: u64 = 1000;

/// How each metric is distributed in an arm, in the order of [`Metric::ALL`].
type Arm = [Outcome; 4];

struct Rollout {
    candidate: Arm,
    stable: Arm,
    evidence: Evidence,
    /// Since each of the candidate's last calls: whether it failed, and the stable version's
    /// calls and failures after it.
    recent: VecDeque<(bool, Calls)>,
}

fn arm(quality: f64, success: f64, latency: f64) -> Arm {
    let others = [success, latency, 0.97].map(Outcome::Passes);
    [Outcome::judged(quality), others[0], others[1], others[2]]
}

impl Rollout {
    fn begin(candidate: Arm, stable: Arm, before: Arm, random: &mut Random) -> Self {
        let metrics = Metric::ALL.into_iter().zip(before);
        let metrics = metrics.map(|(metric, outcome)| {
            let mut stable_before = Moments::default();
            for _ in 0..UNITS_BEFORE {
                stable_before.push(outcome.draw(random));
            }
            MetricEvidence {
                metric,
                strata: vec![Stratum::default()],
                stable_before,
                stable_now: Moments::default(),
            }
        });
        Self {
            candidate,
            stable,
            evidence: Evidence {
                metrics: metrics.collect(),
                assignments: vec![Assigned {
                    candidate: 0,
                    stable: 0,
                    share: SHARE,
                }],
                recent: Recent::default(),
                waiting_since: Timestamp::UNIX_EPOCH,
                is_first: false,
            },
            recent: VecDeque::new(),
        }
    }

    /// One more unit of the candidate, and the others that come before it.
    fn go_on(&mut self, random: &mut Random) {
        while !random.random_bool(SHARE) {
            self.evidence.assignments[0].stable += 1;
            let mut failed = false;
            for (seen, outcome) in self.evidence.metrics.iter_mut().zip(self.stable) {
                let value = outcome.draw(random);
                failed |= seen.metric == Metric::Success && value < 1.0;
                seen.strata[0].stable.push(value);
                seen.stable_now.push(value);
            }
            for (_, since) in &mut self.recent {
                since.all += 1;
                since.failed += u64::from(failed);
            }
        }
        self.evidence.assignments[0].candidate += 1;
        let mut failed = false;
        for (seen, outcome) in self.evidence.metrics.iter_mut().zip(self.candidate) {
            let value = outcome.draw(random);
            failed |= seen.metric == Metric::Success && value < 1.0;
            seen.strata[0].candidate.push(value);
        }
        self.recent.push_back((failed, Calls::default()));
        if self.recent.len() > 10 {
            self.recent.pop_front();
        }
        self.evidence.recent = self.last_calls();
    }

    fn last_calls(&self) -> Recent {
        Recent {
            candidate: Calls {
                all: self.recent.len() as u64,
                failed: self.recent.iter().filter(|(failed, _)| *failed).count() as u64,
            },
            stable: self
                .recent
                .front()
                .map(|(_, since)| *since)
                .unwrap_or_default(),
        }
    }
}

/// When it is rolled back, and when it is first found good without having been rolled back.
fn run(mut rollout: Rollout, policy: &AnalysisPolicy, random: &mut Random) -> [Option<u64>; 2] {
    let mut good = None;
    for units in 1..=UNITS_MAX {
        rollout.go_on(random);
        if units > UNITS_EACH && !units.is_multiple_of(5) {
            continue;
        }
        match judge(
            policy,
            &rollout.evidence,
            Asked::Promotion,
            Timestamp::UNIX_EPOCH,
        )
        .overall
        {
            Overall::RollBack { .. } => return [Some(units), good],
            Overall::Good => good = good.or(Some(units)),
            Overall::Hold { .. } | Overall::Fail { .. } | Overall::Unproven { .. } => {}
        }
    }
    [None, good]
}

/// Four metrics, share 10 %, up to 600 units of the candidate.
pub(crate) fn whole(settings: Settings, report: &mut Report) {
    report.table(
        "Whole rollouts, four metrics and a floor of 0.75 (α/5 each), 600 units of the candidate",
        &[
            "candidate",
            "rolled back; median",
            "GOOD; median",
            "held throughout",
        ],
    );
    let policy = AnalysisPolicy {
        comparisons: Metric::ALL.map(Comparison::of).to_vec(),
        floor: Some(Floor::at(0.75)),
        ..AnalysisPolicy::default()
    };
    let usual = arm(0.8, 0.99, 0.95);
    let fallen = arm(0.65, 0.99, 0.95);
    let down = arm(0.8, 0.0, 0.95);
    for (name, candidate, stable, goal) in [
        ("identical", usual, usual, Some(1.0)),
        ("quality 0.80 → 0.70", arm(0.7, 0.99, 0.95), usual, None),
        ("errors 1 % → 5 %", arm(0.8, 0.95, 0.95), usual, None),
        ("errors 1 % → 20 %", arm(0.8, 0.8, 0.95), usual, None),
        ("errors 1 % → 100 %", down, usual, None),
        (
            "within the latency limit 95 % → 80 %",
            arm(0.8, 0.99, 0.8),
            usual,
            None,
        ),
        (
            "identical, the provider takes quality from 0.80 to 0.65",
            fallen,
            fallen,
            Some(1.0),
        ),
        ("identical, the provider is down", down, down, Some(1.0)),
    ] {
        let all = runs::all(settings, |random| {
            run(
                Rollout::begin(candidate, stable, usual, random),
                &policy,
                random,
            )
        });
        let rolled_back = Times::of(all.iter().map(|times| times[0]));
        let good = Times::of(all.iter().map(|times| times[1]));
        let held = Times::of(
            all.iter()
                .map(|times| (*times == [None, None]).then_some(0)),
        );
        if let Some(limit) = goal {
            let what = format!("whole rollout rolled back, {name} (%)");
            report.at_most(&what, limit, Some(rolled_back.percent()));
        }
        let cells = [
            often_and_median(&rolled_back),
            often_and_median(&good),
            often(&held),
        ];
        report.row(name, cells);
    }
}
