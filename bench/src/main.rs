//! Side-by-side measurements of Delos Deploy against its limits. See the README beside it.
//!
//! `cli` is what can be asked for, `process` starts what is measured, `bare` is what some of it is
//! measured against, `calls` are the calls with the checks of their answers, `load` makes them,
//! `parts` puts these together, `report` prints. It never fails on speed; it fails where an answer
//! is wrong.

mod bare;
mod calls;
mod cli;
mod figures;
mod load;
mod machine;
mod parts;
mod postgres;
mod process;
mod report;

use std::{io::Write as _, process::ExitCode};

use clap::Parser as _;

use cli::{Cli, Command, Settings};

/// Why there are no figures, for who runs the bench.
type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let outcome = runtime.map_err(Failure::from).and_then(|runtime| {
        runtime.block_on(async {
            match cli.command {
                Some(Command::Echo { port }) => bare::tonic::serve(port).await,
                Some(Command::Axum { port }) => bare::axum::serve(port).await,
                None => measure(&cli.settings).await,
            }
        })
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            progress(&format!("bench: {failure}"));
            ExitCode::FAILURE
        }
    }
}

async fn measure(settings: &Settings) -> Result<(), Failure> {
    let before = machine::busy().await;
    let rows = parts::measure(settings).await?;
    let after = machine::busy().await;
    report::print(settings, [before, after], &rows)
}

/// Says what is being done; on stderr, since stdout is for the report.
fn progress(line: &str) {
    // A bench whose progress nobody sees still measures.
    let _ = writeln!(std::io::stderr(), "{line}");
}
