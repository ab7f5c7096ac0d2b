//! The peer of the writes: pgbench, which runs the statements of `create.sql`.

use std::{fs, path::Path, time::Duration};

use tokio::process::Command;

use crate::{
    Failure,
    cli::Settings,
    figures::{Figures, latencies},
};

const SCRIPT: &str = include_str!("../../create.sql");

/// Runs the statements in `database` for a warm-up and a measured time.
pub(crate) async fn run(
    port: u16,
    database: &str,
    settings: &Settings,
) -> Result<Figures, Failure> {
    let directory = tempfile::tempdir()?;
    let script = directory.path().join("create.sql");
    fs::write(&script, SCRIPT)?;
    // A second more, so that what is measured ends before it does.
    let duration = settings.warm_up() + settings.duration() + Duration::from_secs(1);
    let output = Command::new("pgbench")
        .args(["-h", "127.0.0.1", "-p", &port.to_string(), "-U", "postgres"])
        .args(["-n", "-M", "prepared", "-j", "2", "-l"])
        .args(["-c", &settings.callers.to_string()])
        .args(["-T", &duration.as_secs().to_string()])
        .args(["-D", &format!("environments={}", settings.environments)])
        .arg("-f")
        .arg(&script)
        .arg(format!(
            "--log-prefix={}",
            directory.path().join("log").display()
        ))
        .arg(database)
        .output()
        .await
        .map_err(|error| format!("pgbench can't be run: {error}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(format!("pgbench: {said}").into());
    }
    figures(
        &transactions(directory.path())?,
        settings.warm_up(),
        settings.duration(),
    )
}

/// When each transaction ended and how long it took, both in microseconds.
fn transactions(directory: &Path) -> Result<Vec<(u64, u64)>, Failure> {
    let mut transactions = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with("log.") {
            continue;
        }
        for line in fs::read_to_string(entry.path())?.lines() {
            let transaction =
                transaction(line).ok_or_else(|| format!("pgbench logged '{line}'"))?;
            transactions.push(transaction);
        }
    }
    Ok(transactions)
}

/// A line is `client transaction latency script seconds microseconds`.
fn transaction(line: &str) -> Option<(u64, u64)> {
    let fields: Vec<&str> = line.split(' ').collect();
    let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
    Some((number(4)? * 1_000_000 + number(5)?, number(2)?))
}

fn figures(
    transactions: &[(u64, u64)],
    warm_up: Duration,
    duration: Duration,
) -> Result<Figures, Failure> {
    let first = transactions.iter().map(|(ended, _)| *ended).min();
    let begin = first.ok_or("pgbench made no transaction")? + u64::try_from(warm_up.as_micros())?;
    let end = begin + u64::try_from(duration.as_micros())?;
    let mut latencies = latencies()?;
    for (ended, took) in transactions {
        if (begin..end).contains(ended) {
            latencies.record(*took)?;
        }
    }
    Ok(Figures::of(&latencies, duration))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_pgbenchs_log() {
        assert_eq!(
            transaction("0 199 2241 0 1175850568 995598"),
            Some((1_175_850_568_995_598, 2241))
        );
        assert_eq!(transaction("0 199 failed 0 1175850568 995598"), None);
    }
}
