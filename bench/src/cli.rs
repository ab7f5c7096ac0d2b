//! What can be asked for.

use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::{Failure, figures::Figures, load::Load};

/// Side-by-side measurements of Delos Deploy against its limits.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Cli {
    /// Measures where none is given.
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// How to measure.
    #[command(flatten)]
    pub(crate) settings: Settings,
}

/// What else the bench does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serves the bare peer over tonic; the bench starts this itself.
    #[command(hide = true)]
    Echo {
        /// The port on the loopback.
        port: u16,
    },
    /// Serves the bare peer over axum; the bench starts this itself.
    #[command(hide = true)]
    Axum {
        /// The port on the loopback.
        port: u16,
    },
}

/// A part of the bench.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// GetDeployment against an echo.
    Reads,
    /// CreateDeployment against pgbench.
    Writes,
    /// Rollouts moved by the reconciler.
    Rollouts,
    /// Which version to serve, against bare servers over tonic and axum.
    Resolves,
    /// The same against other flag servers, as far as they are installed.
    Peers,
    /// How soon a rollback reaches another replica and who watches it.
    Spread,
    /// ReportOutcomes in batches, against a bare server over tonic.
    Ingest,
    /// How soon the outcome that tips a rollout brings the traffic back.
    Tipping,
}

/// How to measure.
#[derive(Debug, Args)]
pub(crate) struct Settings {
    /// Measure only this part; may be given more than once.
    #[arg(long, value_enum)]
    only: Vec<Part>,
    /// Connections of the reads, the reports and, over gRPC, of the resolves.
    #[arg(long, default_value_t = 4)]
    pub(crate) connections: usize,
    /// Concurrent calls on each of these connections; over HTTP/1.1 each call has a connection.
    #[arg(long, default_value_t = 16)]
    pub(crate) calls: usize,
    /// Concurrent callers of the writes, clients of pgbench, and connections to PostgreSQL.
    #[arg(long, default_value_t = 16)]
    pub(crate) callers: usize,
    /// Environments that the writes are spread over.
    #[arg(long, default_value_t = 1)]
    pub(crate) environments: u64,
    /// How long each phase is measured.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// How long each phase runs before it is measured.
    #[arg(long, default_value_t = 2)]
    warm_up_seconds: u64,
    /// How often the phases take turns.
    #[arg(long, default_value_t = 3)]
    pub(crate) rounds: usize,
    /// Rollouts that go on at the same time.
    #[arg(long, default_value_t = 1000)]
    pub(crate) rollouts: u64,
    /// How long the rollouts are measured.
    #[arg(long, default_value_t = 20)]
    rollout_seconds: u64,
    /// How long each phase at half the load is measured.
    #[arg(long, default_value_t = 4)]
    half_load_seconds: u64,
    /// Prompts in the larger traffic table.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) prompts: usize,
    /// Streams that watch the other replica.
    #[arg(long, default_value_t = 1000)]
    pub(crate) watchers: usize,
    /// Rollbacks whose spread is measured.
    #[arg(long, default_value_t = 60)]
    pub(crate) changes: usize,
    /// Outcomes in a batch.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    pub(crate) batch: u32,
    /// Users whose outcomes are reported.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) users: u32,
    /// Rollouts that are tipped.
    #[arg(long, default_value_t = 20)]
    pub(crate) tippings: usize,
}

impl Settings {
    /// Whether a part is to be measured.
    pub(crate) fn measures(&self, part: Part) -> bool {
        self.only.is_empty() || self.only.contains(&part)
    }

    /// A phase with as many calls as are answered.
    pub(crate) fn load(&self) -> Load {
        Load {
            warm_up: self.warm_up(),
            duration: self.duration(),
            per_second: None,
        }
    }

    /// A phase at half of what was answered.
    pub(crate) fn half_of(&self, saturated: &Figures) -> Load {
        Load {
            warm_up: self.warm_up(),
            duration: Duration::from_secs(self.half_load_seconds),
            per_second: Some(saturated.per_second / 2.0),
        }
    }

    /// How many calls are made at a time.
    pub(crate) fn concurrency(&self) -> usize {
        self.connections * self.calls
    }

    /// How long each phase is measured.
    pub(crate) fn duration(&self) -> Duration {
        Duration::from_secs(self.seconds)
    }

    /// How long each phase runs before it is measured.
    pub(crate) fn warm_up(&self) -> Duration {
        Duration::from_secs(self.warm_up_seconds)
    }

    /// How long the rollouts are measured.
    pub(crate) fn rollout_duration(&self) -> Duration {
        Duration::from_secs(self.rollout_seconds)
    }
}

/// The port of the PostgreSQL that `scripts/with-services` has started.
pub(crate) fn postgres_port() -> Result<u16, Failure> {
    const NAME: &str = "DELOS_TEST_POSTGRES_PORT";
    let value = std::env::var(NAME)
        .map_err(|_| format!("{NAME} is not set; run the bench by scripts/bench"))?;
    Ok(value
        .parse()
        .map_err(|_| format!("{NAME}={value} is not a port"))?)
}
