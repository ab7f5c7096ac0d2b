//! Says what was done, what was seen, and how to do it again.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::{
    check::Violation,
    clients::{Answer, Op},
    nemesis::Tally,
    plan::Plan,
};

/// Of how many deployments the story is told.
pub(crate) const STORIES_MAX: usize = 5;
/// How many violations are told.
const VIOLATIONS_MAX: usize = 20;
/// How much of the history around a violation is told.
const AROUND_MAX: usize = 12;
/// Longest takeover after SIGKILL, and after SIGTERM.
const AFTER_KILL_MAX: Duration = Duration::from_secs(20);
const AFTER_TERM_MAX: Duration = Duration::from_secs(2);
/// Longest until every replica is ready after the database has come back.
const BACK_MAX: Duration = Duration::from_secs(10);

/// What a run came to.
pub(crate) struct Figures {
    pub(crate) took: Duration,
    pub(crate) deployments: usize,
    pub(crate) events: usize,
    pub(crate) outcomes: i64,
    pub(crate) dropped: u64,
    pub(crate) looks: u64,
    pub(crate) commits_cut: u64,
}

/// Says a line.
#[expect(
    clippy::print_stdout,
    reason = "a report is for whoever started the run"
)]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// Says what is going to be done.
pub(crate) fn begin(plan: &Plan) {
    say(&format!("again: {}", plan.again));
}

/// Takeovers and recoveries that took longer than they should, and pauses that showed nothing.
pub(crate) async fn missed_goals(tally: &Tally) -> Vec<String> {
    let goals = [
        ("takeover after SIGKILL", &tally.after_kill, AFTER_KILL_MAX),
        ("takeover after SIGTERM", &tally.after_term, AFTER_TERM_MAX),
        ("return of the database", &tally.back, BACK_MAX),
    ];
    let mut missed = Vec::new();
    for (what, times, goal) in goals {
        let p99 = quantile(&times.lock().await, 0.99);
        if let Some(p99) = p99.filter(|p99| *p99 > goal) {
            missed.push(format!("{what}: p99 {p99:.1?}, at most {goal:?} is wanted"));
        }
    }
    let (pauses, fenced) = (&tally.pauses, &tally.fenced_pauses);
    let (pauses, fenced) = (
        pauses.load(Ordering::Acquire),
        fenced.load(Ordering::Acquire),
    );
    if fenced < pauses {
        missed.push(format!(
            "a stale write was refused after {fenced} of {pauses} pauses; each should have led to one"
        ));
    }
    missed
}

/// Says what was done and measured.
pub(crate) async fn end(plan: &Plan, figures: &Figures, tally: &Tally, ops: &[Op]) {
    let count = |counter: &AtomicU64| counter.load(Ordering::Acquire);
    let sent: u64 = ops.iter().map(|op| u64::from(op.sent)).sum();
    let unknown = ops
        .iter()
        .filter(|op| matches!(op.answer, Answer::Unknown(_)))
        .count();
    say(&format!(
        "seed {}: {} transitions of {} deployments in {:.0} s; {} requests sent {sent} times, {} dropped, {unknown} never answered; {} outcomes",
        plan.seed,
        figures.events,
        figures.deployments,
        figures.took.as_secs_f64(),
        ops.len(),
        figures.dropped,
        figures.outcomes,
    ));
    say(&format!(
        "faults: {} kills, {} stops, {} pauses beyond the lease, {} restarts of PostgreSQL, {} cuts, {} answers to COMMIT cut off, {} times nothing came through, {} delays, {} starts with a clock 300 s off",
        count(&tally.kills),
        count(&tally.terms),
        count(&tally.pauses),
        count(&tally.restarts),
        count(&tally.cuts),
        figures.commits_cut,
        count(&tally.holds),
        count(&tally.delays),
        count(&tally.skewed_starts),
    ));
    say(&format!(
        "fenced: {} stale writes refused after {} of the pauses",
        count(&tally.fenced_writes),
        count(&tally.fenced_pauses),
    ));
    for (what, times) in [
        ("taken over after SIGKILL", &tally.after_kill),
        ("taken over after SIGTERM", &tally.after_term),
        ("all ready after PostgreSQL was back", &tally.back),
    ] {
        let times = times.lock().await;
        let (half, most) = (quantile(&times, 0.5), quantile(&times, 0.99));
        if let (Some(half), Some(most)) = (half, most) {
            let (half, most) = (half.as_secs_f64(), most.as_secs_f64());
            say(&format!(
                "{what}: p50 {half:.2} s, p99 {most:.2} s, of {}",
                times.len()
            ));
        }
    }
    say(&format!(
        "the tables were looked at {} times",
        figures.looks
    ));
}

/// Says what is wrong, and what happened around it.
pub(crate) fn violations(plan: &Plan, violations: &[Violation], stories: &[String], ops: &[Op]) {
    say(&format!("\n{} violations", violations.len()));
    for violation in violations.iter().take(VIOLATIONS_MAX) {
        say(&format!("- {violation}"));
    }
    if plan.bug.is_some() {
        return;
    }
    for story in stories {
        say(&format!("\n{story}"));
    }
    for violation in violations.iter().take(STORIES_MAX) {
        let Some(id) = &violation.deployment else {
            continue;
        };
        say(&format!("\nwhat clients did with {id}:"));
        let around = ops.iter().filter(|op| format!("{op:?}").contains(id));
        for op in around.take(AROUND_MAX) {
            say(&format!("  {op:?}"));
        }
    }
    say(&format!("\nagain: {}", plan.again));
}

/// Whether the run went as it should: without a bug nothing is found, with one something is.
pub(crate) fn verdict(plan: &Plan, violations: &[Violation]) -> bool {
    match (&plan.bug, violations.is_empty()) {
        (None, true) => {
            say("0 violations");
            true
        }
        (None, false) => false,
        (Some(bug), true) => {
            say(&format!("the bug '{bug}' was NOT found"));
            false
        }
        (Some(bug), false) => {
            say(&format!("the bug '{bug}' was found"));
            true
        }
    }
}

/// The value below which `share` of them lie; none where there are none.
fn quantile(times: &[Duration], share: f64) -> Option<Duration> {
    let mut times = times.to_vec();
    times.sort();
    let rank = (times.len() as f64 * share).ceil() as usize;
    times.get(rank.saturating_sub(1)).copied()
}
