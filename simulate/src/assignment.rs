//! Whether units arrive where they were sent.

use delos_deploy::domain::{
    Timestamp,
    analysis::{AnalysisPolicy, Asked, Assigned, Evidence, Recent, Subject, judge},
};
use rand::RngExt as _;

use crate::{
    Settings,
    report::{Report, often_and_median},
    runs::{self, Random, Times},
};

const UNITS_MAX: u64 = 10_000;
/// χ² of one degree of freedom that is exceeded once in a thousand samples.
const CHI_SQUARED: f64 = 10.8276;

/// Whether the service finds the assignment broken.
pub(crate) fn is_broken(assignments: &[Assigned]) -> bool {
    let evidence = Evidence {
        metrics: Vec::new(),
        assignments: assignments.to_vec(),
        recent: Recent::default(),
        waiting_since: Timestamp::UNIX_EPOCH,
        is_first: false,
    };
    let analysis = judge(
        &AnalysisPolicy::default(),
        &evidence,
        Asked::Promotion,
        Timestamp::UNIX_EPOCH,
    );
    let mut checks = analysis.checks.iter();
    checks.any(|check| check.subject == Subject::Assignment && check.blocks)
}

/// Sound and broken assignments.
pub(crate) fn shares(settings: Settings, report: &mut Report) {
    report.table(
        "Assignment found broken within 10,000 units, looked at every 10; median units until then",
        &["", "χ², p < 0.001 at each look", "Delos, α = 0.1 %"],
    );
    for (name, share, kept) in [
        ("10 %, sound", 0.1, 1.0),
        ("50 %, sound", 0.5, 1.0),
        ("10 %, a tenth of the candidate's units lost", 0.1, 0.9),
        ("10 %, half of the candidate's units lost", 0.1, 0.5),
        ("50 %, a tenth of the candidate's units lost", 0.5, 0.9),
    ] {
        let all = runs::all(settings, |random| run(share, kept, random));
        let column =
            |index: usize| Times::of(all.iter().map(|times: &[Option<u64>; 2]| times[index]));
        if kept >= 1.0 {
            let what = format!("sound assignment found broken, {name} (%)");
            report.at_most(&what, 0.2, Some(column(1).percent()));
        }
        report.row(name, [0, 1].map(|index| often_and_median(&column(index))));
    }
}

fn run(share: f64, kept: f64, random: &mut Random) -> [Option<u64>; 2] {
    let mut stage = Assigned {
        candidate: 0,
        stable: 0,
        share,
    };
    let mut times = [None; 2];
    while stage.candidate + stage.stable < UNITS_MAX && times.contains(&None) {
        if random.random_bool(share) {
            stage.candidate += u64::from(random.random_bool(kept));
        } else {
            stage.stable += 1;
        }
        let units = stage.candidate + stage.stable;
        if !units.is_multiple_of(10) {
            continue;
        }
        let found = [chi_squared(&stage) > CHI_SQUARED, is_broken(&[stage])];
        for (time, is_broken) in times.iter_mut().zip(found) {
            if is_broken && time.is_none() {
                *time = Some(units);
            }
        }
    }
    times
}

fn chi_squared(stage: &Assigned) -> f64 {
    let units = (stage.candidate + stage.stable) as f64;
    let surplus = stage.candidate as f64 - units * stage.share;
    surplus * surplus / (units * stage.share * (1.0 - stage.share))
}
