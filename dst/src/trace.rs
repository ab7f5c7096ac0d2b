//! What has happened in a run, by names that are the same whenever it is run.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use uuid::Uuid;

use crate::{
    desk::Ticket,
    load::Answer,
    world::{Move, World},
};

/// What has happened, a line each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Trace {
    /// The lines.
    pub lines: Vec<String>,
    /// How often each kind of thing has happened.
    pub counts: Counts,
}

/// How often each kind of thing has happened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Decisions.
    pub moves: u64,
    /// Answers lost, connections too.
    pub lost: u64,
    /// Replicas killed.
    pub crashes: u64,
    /// Replicas stopped.
    pub stops: u64,
    /// Replicas paused.
    pub pauses: u64,
    /// Calls sent.
    pub sends: u64,
    /// Calls answered.
    pub answers: u64,
    /// Things put on record.
    pub events: u64,
}

impl Counts {
    /// With the counts of another run.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            moves: self.moves + other.moves,
            lost: self.lost + other.lost,
            crashes: self.crashes + other.crashes,
            stops: self.stops + other.stops,
            pauses: self.pauses + other.pauses,
            sends: self.sends + other.sends,
            answers: self.answers + other.answers,
            events: self.events + other.events,
        }
    }
}

impl Trace {
    /// Takes down what happens next, in words.
    pub fn happens(&mut self, what: &Move, line: String) {
        self.counts.moves += 1;
        match what {
            Move::Lose(_) => self.counts.lost += 1,
            Move::Crash(_) => self.counts.crashes += 1,
            Move::Stop(_) => self.counts.stops += 1,
            Move::Pause(_) => self.counts.pauses += 1,
            Move::Send(..) => self.counts.sends += 1,
            Move::Go(_) | Move::Start(_) | Move::Tick(_) | Move::Resume(_) | Move::Wait(_) => {}
        }
        self.lines.push(line);
    }

    /// Takes down an answer.
    pub fn answered(&mut self, key: &str, answer: &Answer) {
        self.counts.answers += 1;
        self.lines.push(match answer {
            Answer::Done(what) => {
                let words = what
                    .split(' ')
                    .filter(|word| Uuid::try_parse(word).is_err());
                let words: Vec<_> = words.collect();
                format!("    '{key}' was done: {}", words.join(" "))
            }
            Answer::Refused(reason) => format!("    '{key}' was refused: {reason}"),
            Answer::Lost => format!("    '{key}' was not answered"),
        });
    }

    /// A number that is the same where all of it is.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        self.lines.hash(&mut hasher);
        hasher.finish()
    }
}

impl World<'_> {
    /// What happens, in words.
    pub(crate) fn describe(&self, what: &Move) -> String {
        let replica = |slot: &usize| {
            let replica = self.slots[*slot].replica.as_ref();
            replica.map_or("nobody", |replica| &replica.name)
        };
        let ticket = |ticket: &Ticket| {
            let name = self
                .slot_of(ticket.life)
                .map_or("nobody", |slot| replica(&slot));
            format!("{name} at {}", ticket.point.as_str())
        };
        match what {
            Move::Go(it) => format!("{} goes on", ticket(it)),
            Move::Lose(it) => format!("{} is cut off", ticket(it)),
            Move::Crash(slot) => format!("{} is killed", replica(slot)),
            Move::Start(slot) => format!("r{} starts", slot + 1),
            Move::Stop(slot) => format!("{} is told to stop", replica(slot)),
            Move::Tick(slot) => format!("{} does what is due", replica(slot)),
            Move::Pause(slot) => format!("{} stands still", replica(slot)),
            Move::Resume(slot) => format!("{} wakes up", replica(slot)),
            Move::Send(call, slot) => {
                format!(
                    "'{}' is sent to {}",
                    self.load.calls[*call].key,
                    replica(slot)
                )
            }
            Move::Wait(time) => format!("{time:?} pass"),
        }
    }
}
