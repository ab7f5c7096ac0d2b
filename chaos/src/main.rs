//! Replicas of the service under load, while they are killed, paused, stopped and cut off, with
//! clocks that differ, over a PostgreSQL that is restarted; and a checker of what is promised.
//!
//! ```text
//! plan ──▶ clients ──▶ history ──┐
//!      └─▶ nemesis ──▶ cluster ──┴──▶ observer, check ──▶ report
//! ```

mod check; // proves what is promised
mod clients; // teams that deploy, and what they were told
mod cluster; // what runs: PostgreSQL, Eval, replicas, proxies
mod metrics; // reads the replicas' metrics
mod nemesis; // makes faults
mod observer; // looks at the tables all the time
mod plan; // what a run is to do
mod report; // says what came of it
mod run; // one run, from the start to the check

use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

/// Why a run could not be made, for whoever started it.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn asked_for() -> Result<bool, Failure> {
    run::run(plan::Plan::from_arguments()?).await
}

async fn told_to_stop() -> Result<bool, Failure> {
    let mut term = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    Err("broken off".into())
}

#[tokio::main]
async fn main() -> ExitCode {
    // Who breaks it off leaves no process behind: what was started ends with the run.
    let outcome = tokio::select! {
        outcome = asked_for() => outcome,
        broken_off = told_to_stop() => broken_off,
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(failure) => {
            eprintln!("chaos: {failure}");
            ExitCode::from(2)
        }
    }
}
