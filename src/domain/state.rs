//! The machine. `next` is all of it; the test below prints it as a table.

use std::fmt;

/// Where a deployment is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// Waits for somebody to approve it.
    PendingApproval,
    /// Its gates are judged, or have passed and it waits in line.
    PendingGates,
    /// A required gate failed or could not be measured in time.
    GatesFailed,
    /// Traffic is shifting.
    InProgress,
    /// It has all traffic.
    Completed,
    /// Traffic was taken back.
    RolledBack,
    /// It was cancelled on its way.
    Cancelled,
    /// Its rollout could not go on.
    Failed,
}

/// What can happen to a deployment once it exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Somebody approves it.
    Approve,
    /// Evidence for its gates came in.
    Measure,
    /// Every required gate passed.
    PassGates,
    /// A required gate failed, or its deadline passed.
    FailGates,
    /// Its rollout begins.
    Start,
    /// Its rollout takes a step.
    Step,
    /// Its rollout reached all traffic.
    Complete,
    /// Traffic is taken back.
    RollBack,
    /// Somebody cancels it.
    Cancel,
    /// Its rollout can't go on.
    Fail,
}

/// The status after `verb`, or none where the status forbids it.
#[must_use]
pub fn next(status: Status, verb: Verb) -> Option<Status> {
    use Status::{
        Cancelled, Completed, Failed, GatesFailed, InProgress, PendingApproval, PendingGates,
        RolledBack,
    };
    match (status, verb) {
        (PendingApproval, Verb::Approve) => Some(PendingGates),
        (PendingGates, Verb::Measure) => Some(PendingGates),
        (PendingGates, Verb::PassGates) => Some(PendingGates),
        (PendingGates, Verb::FailGates) => Some(GatesFailed),
        (PendingGates, Verb::Start) => Some(InProgress),
        (InProgress, Verb::Step) => Some(InProgress),
        (InProgress, Verb::Complete) => Some(Completed),
        (InProgress, Verb::Fail) => Some(Failed),
        (InProgress | Completed, Verb::RollBack) => Some(RolledBack),
        (PendingApproval | PendingGates | InProgress, Verb::Cancel) => Some(Cancelled),
        (
            PendingApproval | PendingGates | GatesFailed | InProgress | Completed | RolledBack
            | Cancelled | Failed,
            _,
        ) => None,
    }
}

/// A verb that the status forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// What was asked.
    pub verb: Verb,
    /// The status that forbids it.
    pub status: Status,
}

impl Status {
    /// Every status.
    pub const ALL: [Self; 8] = [
        Self::PendingApproval,
        Self::PendingGates,
        Self::GatesFailed,
        Self::InProgress,
        Self::Completed,
        Self::RolledBack,
        Self::Cancelled,
        Self::Failed,
    ];

    /// The name in capitals, as in the API without its prefix.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::PendingApproval => "PENDING_APPROVAL",
            Self::PendingGates => "PENDING_GATES",
            Self::GatesFailed => "GATES_FAILED",
            Self::InProgress => "IN_PROGRESS",
            Self::Completed => "COMPLETED",
            Self::RolledBack => "ROLLED_BACK",
            Self::Cancelled => "CANCELLED",
            Self::Failed => "FAILED",
        }
    }

    /// Whether the reconciler has nothing more to do for it.
    #[must_use]
    pub fn is_settled(self) -> bool {
        match self {
            Self::PendingApproval | Self::PendingGates | Self::InProgress => false,
            Self::GatesFailed
            | Self::Completed
            | Self::RolledBack
            | Self::Cancelled
            | Self::Failed => true,
        }
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Verb {
    /// Every verb.
    pub const ALL: [Self; 10] = [
        Self::Approve,
        Self::Measure,
        Self::PassGates,
        Self::FailGates,
        Self::Start,
        Self::Step,
        Self::Complete,
        Self::RollBack,
        Self::Cancel,
        Self::Fail,
    ];

    /// The statuses in which it is allowed.
    pub fn allowed_in(self) -> impl Iterator<Item = Status> {
        Status::ALL
            .into_iter()
            .filter(move |status| next(*status, self).is_some())
    }

    /// What was done, in the past: "approved".
    #[must_use]
    pub fn participle(self) -> &'static str {
        match self {
            Self::Approve => "approved",
            Self::Measure => "measured",
            Self::PassGates => "passed through its gates",
            Self::FailGates => "failed at its gates",
            Self::Start => "started",
            Self::Step => "stepped",
            Self::Complete => "completed",
            Self::RollBack => "rolled back",
            Self::Cancel => "cancelled",
            Self::Fail => "failed",
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let allowed: Vec<_> = self.verb.allowed_in().map(Status::as_str).collect();
        write!(
            f,
            "the deployment is {}; it can be {} only in {}",
            self.status,
            self.verb.participle(),
            allowed.join(" or ")
        )
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    /// The whole machine, every status with every verb: a change of it shows as a diff.
    #[test]
    fn matrix() {
        let mut table = String::new();
        for status in Status::ALL {
            for verb in Verb::ALL {
                let after = next(status, verb).map_or("-", Status::as_str);
                writeln!(
                    table,
                    "{:16} {:10} {after}",
                    status.as_str(),
                    format!("{verb:?}")
                )
                .unwrap();
            }
        }
        insta::assert_snapshot!(table);
    }

    #[test]
    fn what_is_settled_moves_only_by_a_rollback() {
        for status in Status::ALL.into_iter().filter(|status| status.is_settled()) {
            for verb in Verb::ALL {
                let moves = next(status, verb).is_some();
                assert_eq!(moves, (status, verb) == (Status::Completed, Verb::RollBack));
            }
        }
    }
}
