//! The command line.

use clap::{Parser, Subcommand};

use crate::config;

/// Decides whether a new version of an LLM prompt reaches users, and takes it back when it should not have.
#[derive(Debug, Parser)]
#[command(name = "delos-deploy", version, after_help = config::help(), after_long_help = config::help())]
pub struct Cli {
    /// What to do; without one, serve.
    #[command(subcommand)]
    pub command: Option<Command>,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Subcommand)]
pub enum Command {
    /// Serve (the default): migrates the storage, then serves until SIGTERM or SIGINT.
    Serve,
    /// Bring the storage's schema up to date, and end.
    Migrate,
    /// Print the OpenAPI document, and end.
    Openapi,
    /// Ask the service on this machine whether it is ready; ends with 0 where it is, with 1 where not.
    Healthcheck,
}
