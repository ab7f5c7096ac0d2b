//! What a run is to do: read from the command line.

use std::{ops::Range, path::PathBuf};

use clap::Parser;

/// Kills, pauses and cuts off replicas under load, and proves that nothing was lost.
#[derive(Debug, Clone, Parser)]
#[command(name = "chaos", version)]
struct Arguments {
    /// What chance begins with; another one each time where it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// The long form: 1,000 kills, 20,000 transitions, 20 pauses beyond the lease
    #[arg(long)]
    long: bool,
    /// Kills at least; 30 in the short form
    #[arg(long)]
    kills: Option<u64>,
    /// Transitions at least; 1,000 in the short form
    #[arg(long)]
    transitions: Option<i64>,
    /// Pauses beyond the lease; 2 in the short form
    #[arg(long)]
    pauses: Option<u64>,
    /// Restarts of PostgreSQL; 2 in the short form
    #[arg(long)]
    restarts: Option<u64>,
    /// Fails also where a takeover or a recovery takes longer than it should
    #[arg(long)]
    goals: bool,
    /// The program of a replica, once for each; three of the one beside this by default
    #[arg(long)]
    program: Vec<PathBuf>,
    /// The program of the version before: the replicas begin with it, and are replaced one by one, there
    /// and back and there again; nothing else goes wrong
    #[arg(long, conflicts_with_all = ["long", "bug", "program"])]
    upgrade_from: Option<PathBuf>,
    /// A bug to switch on in the replicas (built with the feature `faults`): the run must find it
    #[arg(long)]
    bug: Option<String>,
}

/// Chances of how a request is sent.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Share {
    /// Three times at once.
    pub(crate) at_once: f64,
    /// Dropped before it is answered, and sent again.
    pub(crate) dropped: f64,
}

/// What a run is to do.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) seed: u64,
    /// Kills at least.
    pub(crate) kills: u64,
    /// Events on record at least.
    pub(crate) transitions: i64,
    /// Pauses beyond the lease, exactly.
    pub(crate) pauses: u64,
    /// Restarts of PostgreSQL, exactly.
    pub(crate) restarts: u64,
    pub(crate) teams: usize,
    pub(crate) prompts: usize,
    pub(crate) share: Share,
    /// Pause between two faults, in milliseconds.
    pub(crate) gap_ms: Range<u64>,
    /// One program for each replica.
    pub(crate) programs: Vec<PathBuf>,
    /// The program that they are replaced by, where nothing else is to go wrong.
    pub(crate) upgrade_to: Option<PathBuf>,
    /// Whether a run fails that takes longer than it should.
    pub(crate) goals: bool,
    /// The bug that must be found.
    pub(crate) bug: Option<String>,
    /// How the same run is asked for again.
    pub(crate) again: String,
}

impl Plan {
    /// Reads the command line; ends the process where it can't be read.
    pub(crate) fn from_arguments() -> Result<Self, crate::Failure> {
        let arguments = Arguments::parse();
        let seed = arguments
            .seed
            .unwrap_or_else(|| rand::random::<u32>().into());
        let (kills, transitions, pauses, restarts) = if arguments.long {
            (1000, 20_000, 20, 20)
        } else {
            (30, 1000, 2, 2)
        };
        let own = std::env::current_exe()?.with_file_name("delos-deploy");
        let upgrade_to = arguments.upgrade_from.is_some().then(|| own.clone());
        let programs = match (arguments.upgrade_from, arguments.program.is_empty()) {
            (Some(before), _) => vec![before; 3],
            (None, true) => vec![own; 3],
            (None, false) => arguments.program,
        };
        let mut all = programs.iter().chain(&upgrade_to);
        if let Some(missing) = all.find(|program| !program.is_file()) {
            return Err(format!("{} is missing; `make chaos` builds it", missing.display()).into());
        }
        let plan = Self {
            seed,
            kills: arguments.kills.unwrap_or(kills),
            transitions: arguments.transitions.unwrap_or(transitions),
            pauses: arguments.pauses.unwrap_or(pauses),
            restarts: arguments.restarts.unwrap_or(restarts),
            teams: 24,
            prompts: 40,
            // The version before may lack what makes these safe.
            share: if upgrade_to.is_some() {
                Share::default()
            } else {
                Share {
                    at_once: 0.1,
                    dropped: 0.15,
                }
            },
            gap_ms: if arguments.long { 50..650 } else { 100..900 },
            programs,
            upgrade_to,
            goals: arguments.goals,
            bug: arguments.bug,
            again: String::new(),
        };
        Ok(Self {
            again: plan.command(arguments.long),
            ..plan
        })
    }

    fn command(&self, is_long: bool) -> String {
        if self.upgrade_to.is_some() {
            return format!("scripts/upgrade --seed {}", self.seed);
        }
        let bug = self.bug.as_ref().map(|bug| format!(" --bug {bug}"));
        format!(
            "scripts/chaos{} --seed {} --kills {} --transitions {} --pauses {} --restarts {}{}",
            if is_long { " --long" } else { "" },
            self.seed,
            self.kills,
            self.transitions,
            self.pauses,
            self.restarts,
            bug.unwrap_or_default()
        )
    }
}
