//! Plays runs of the service's own core by their seeds, and every interleaving of a small one.
#![expect(clippy::print_stdout, reason = "a report is what it is for")]

use std::{error::Error, process::ExitCode, time::Instant};

use clap::Parser;
use delos_deploy::faults::Bug;
use dst::{
    crew::{Seeds, on_stage},
    play::{Outcome, play},
    search::{Bounds, search},
};

/// Runs the service's own core under a scheduler that a seed decides.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds are played.
    #[arg(long, default_value_t = 1000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// On how many threads: more than there are cores, since each waits for its storage half of the time.
    #[arg(long, default_value_t = 6)]
    threads: usize,
    /// Plays this seed alone, and shows what happens.
    #[arg(long)]
    seed: Option<u64>,
    /// Plays the seed twice, and fails where not the same happens.
    #[arg(long, requires = "seed")]
    twice: bool,
    /// Plays every interleaving of a small run instead.
    #[arg(long, conflicts_with = "seed")]
    exhaustive: bool,
    /// Switches a bug on (see src/faults): then one has to be found.
    #[arg(long, value_parser = bug)]
    bug: Option<Bug>,
}

fn bug(name: &str) -> Result<Bug, String> {
    let found = Bug::ALL.into_iter().find(|bug| bug.as_str() == name);
    found.ok_or_else(|| format!("one of {}", Bug::ALL.map(Bug::as_str).join(", ")))
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    let arguments = Arguments::parse();
    let holds = if arguments.exhaustive {
        every_interleaving(&arguments)?
    } else if let Some(seed) = arguments.seed {
        one(seed, &arguments)?
    } else {
        many(&arguments)?
    };
    Ok(if holds {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn many(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    let began = Instant::now();
    let seeds = Seeds {
        from: arguments.from,
        count: arguments.seeds,
        bug: arguments.bug,
    };
    let played = seeds.play(arguments.threads)?;
    let (count, seconds) = (played.seeds, began.elapsed().as_secs_f64());
    println!(
        "{count} seeds in {seconds:.1} s ({:.2} ms each on {} threads): {:?}",
        seconds * 1000.0 / count.max(1) as f64,
        arguments.threads,
        played.counts
    );
    if let Some((seed, outcome)) = &played.broken {
        show(outcome);
        let bug = arguments
            .bug
            .map_or(String::new(), |bug| format!(" --bug {}", bug.as_str()));
        println!("seed {seed} does not hold; again: cargo run -p dst -- --seed {seed}{bug}");
    }
    Ok(played.broken.is_none())
}

fn one(seed: u64, arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    on_stage(async |stage| {
        let outcome = play(stage, seed, arguments.bug).await?;
        show(&outcome);
        println!("seed {seed}, trace {:016x}", outcome.trace.hash());
        if arguments.twice {
            let again = play(stage, seed, arguments.bug).await?;
            println!("again {seed}, trace {:016x}", again.trace.hash());
            return Ok(again.trace == outcome.trace && outcome.broken.is_empty());
        }
        Ok(outcome.broken.is_empty())
    })
}

fn every_interleaving(arguments: &Arguments) -> Result<bool, Box<dyn Error>> {
    on_stage(async |stage| {
        let mut holds = true;
        for bounds in Bounds::ALL {
            let began = Instant::now();
            let found = search(stage, bounds, arguments.bug).await?;
            println!(
                "{bounds:?}: {} interleavings of at most {} choices in {:.1} s",
                found.paths,
                found.choices_max,
                began.elapsed().as_secs_f64()
            );
            if let Some((choices, outcome)) = &found.broken {
                show(outcome);
                println!("this one does not hold: {choices:?}");
                holds = false;
            }
        }
        Ok(holds)
    })
}

fn show(outcome: &Outcome) {
    for line in &outcome.trace.lines {
        println!("{line}");
    }
    for what in &outcome.broken {
        println!("BROKEN: {what}");
    }
}
