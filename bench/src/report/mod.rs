//! Prints: a table for people, and one line of JSON for programs.

use std::{
    fmt::Write as _,
    io::Write as _,
    time::{Duration, SystemTime},
};

use serde_json::{Value, json};

use crate::{
    Failure,
    cli::Settings,
    figures::{Figures, Row},
};

mod heading;

use heading::{Heading, heading};

/// Prints the table, then the JSON line. `busy` is the share of the machine that was in use before
/// the bench and after it.
pub(crate) fn print(
    settings: &Settings,
    busy: [Option<f64>; 2],
    rows: &[Row],
) -> Result<(), Failure> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", table(settings, busy, rows)?)?;
    writeln!(out, "{}", line(settings, busy, rows)?)?;
    Ok(())
}

fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn table(settings: &Settings, busy: [Option<f64>; 2], rows: &[Row]) -> Result<String, Failure> {
    let mut text = format!(
        "Load generator, peers, databases and service share this machine's {} cores: compare \
         within this run only.\n\
         Medians of {} rounds of {} s each, in turns, each after {} s of warm-up; a ratio is the \
         median of the rounds' ratios. 'load gen' is the share of the machine that the load \
         generator used.\n\
         Other processes used {} of the machine before the run and {} after it.\n",
        cores(),
        settings.rounds,
        settings.duration().as_secs(),
        settings.warm_up().as_secs(),
        percent(busy[0]),
        percent(busy[1]),
    );
    let mut part = "";
    for row in rows {
        if row.part != part {
            part = row.part;
            let Heading { about, unit, ratio } = heading(part, settings);
            writeln!(
                text,
                "\n{about}\n  {:<36} {unit:>12} {:>9} {:>9} {:>9} {:>9} {ratio:>12}",
                "", "p50 ms", "p99 ms", "max ms", "load gen"
            )?;
        }
        let figures = row.median();
        let ratio = row
            .ratio
            .map_or_else(|| "-".to_owned(), |ratio| format!("{ratio:.3}"));
        writeln!(
            text,
            "  {:<36} {:>12.0} {:>9.2} {:>9.2} {:>9.2} {:>9} {ratio:>12}",
            row.name,
            figures.per_second,
            figures.p50_ms,
            figures.p99_ms,
            figures.max_ms,
            figures
                .own_share
                .map_or_else(|| "-".to_owned(), |share| percent(Some(share)))
        )?;
    }
    Ok(text)
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(
        || "an unknown share".to_owned(),
        |share| format!("{:.0} %", share * 100.0),
    )
}

fn line(settings: &Settings, busy: [Option<f64>; 2], rows: &[Row]) -> Result<Value, Failure> {
    let figures = |figures: &Figures| {
        json!({
            "per_second": figures.per_second,
            "p50_ms": figures.p50_ms,
            "p99_ms": figures.p99_ms,
            "max_ms": figures.max_ms,
            "load_generator_share": figures.own_share,
        })
    };
    let rows: Vec<Value> = rows
        .iter()
        .map(|row| {
            json!({
                "part": row.part,
                "name": row.name,
                "median": figures(&row.median()),
                "ratio": row.ratio,
                "rounds": row.rounds.iter().map(figures).collect::<Vec<_>>(),
            })
        })
        .collect();
    Ok(json!({
        "unix_seconds": since_epoch()?.as_secs(),
        "cores": cores(),
        "busy_before": busy[0],
        "busy_after": busy[1],
        "seconds": settings.duration().as_secs(),
        "warm_up_seconds": settings.warm_up().as_secs(),
        "rounds": settings.rounds,
        "connections": settings.connections,
        "calls": settings.calls,
        "callers": settings.callers,
        "environments": settings.environments,
        "prompts": settings.prompts,
        "watchers": settings.watchers,
        "batch": settings.batch,
        "users": settings.users,
        "rows": rows,
    }))
}

#[expect(clippy::disallowed_methods, reason = "only to date the report")]
fn since_epoch() -> Result<Duration, Failure> {
    Ok(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?)
}
