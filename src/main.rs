//! `delos-deploy`: see the library for the map.

use std::process::ExitCode;

use clap::Parser as _;
use delos_deploy::{cli::Cli, run};

fn main() -> ExitCode {
    run::main(&Cli::parse())
}
