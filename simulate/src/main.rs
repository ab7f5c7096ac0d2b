//! What the analysis of a rollout gets right and wrong, by simulation.
//!
//! It asks the service's own module, not a copy, after every outcome, and the rules that others
//! use beside it. `world` draws what users see, `rules` decides, `arms` runs a rollout of one
//! stage, `users`, `stages`, `deployment` and `assignment` run what takes more than that, `runs`
//! spreads the runs over the processors, `report` prints. `docs/analysis.md` has the figures.

mod arms;
mod assignment;
mod deployment;
mod report;
mod rules;
mod runs;
mod stages;
mod users;
mod world;

use std::process::ExitCode;

use clap::Parser;

use report::Report;

/// Simulates rollouts and prints how often each rule is wrong, and how fast it is right.
#[derive(Debug, Clone, Copy, Parser)]
struct Settings {
    /// Runs of each line.
    #[arg(long, default_value_t = 4000)]
    runs: usize,
    /// Where the random numbers start; equal seeds give equal figures.
    #[arg(long, default_value_t = 20_261_125)]
    seed: u64,
    /// Fail where a goal is missed.
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    let settings = Settings::parse();
    let mut report = Report::default();
    for part in [
        arms::rollbacks,
        arms::promotions,
        arms::hard_worlds,
        users::sticky,
        stages::drift,
        stages::steps,
        stages::returning,
        deployment::whole,
        assignment::shares,
    ] {
        part(settings, &mut report);
    }
    let missed = report.print(settings);
    if settings.check && missed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
