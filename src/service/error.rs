//! The one error of the use cases: what kind it is, and what to tell the caller. How that is
//! said over a protocol is decided in one place there.

use std::time::Duration;

use crate::{
    domain::{lifecycle::Denied, state::Verb, violation::Violation},
    store,
};

/// Why a request was not done. Nothing has changed, except where it is [`Error::Unavailable`] and
/// the connection broke while a write was being acknowledged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Fields of the request are wrong.
    #[error("{} of the request can't be accepted", count(.0.len(), "field"))]
    Invalid(Vec<Violation>),
    /// There is no such thing.
    #[error("{what} '{id}' does not exist")]
    NotFound {
        /// What was asked for: `deployment`.
        what: &'static str,
        /// Its id, as it was given.
        id: String,
    },
    /// The environment serves no version of the prompt: an answer, and not an outage.
    #[error("environment '{environment}' serves no version of prompt '{prompt_id}'")]
    NothingServed {
        /// The environment.
        environment: String,
        /// The prompt.
        prompt_id: String,
    },
    /// The state of things forbids it.
    #[error("{denied}")]
    Denied {
        /// What was asked.
        verb: Verb,
        /// Why not.
        denied: Denied,
    },
    /// Somebody else changed it at the same moment.
    #[error("{what} '{id}' changed while this was being done; read it again and retry")]
    Conflict {
        /// What changed.
        what: &'static str,
        /// Its id.
        id: String,
    },
    /// Something else was asked for under the same idempotency key.
    #[error("another request was made under this idempotency key; use a new key for a new request")]
    KeyUsed,
    /// More at a time than can be done.
    #[error("{0}")]
    Busy(String),
    /// More than a limit allows.
    #[error("{0}")]
    TooMany(String),
    /// What was asked for is there, and can't be read.
    #[error(
        "the row {key} of {table} can't be read: {what}; it is set aside until an operator has put it right"
    )]
    CorruptRow {
        /// The table.
        table: &'static str,
        /// What the row belongs to.
        key: String,
        /// What is wrong with it.
        what: String,
    },
    /// Something this depends on does not answer.
    #[error("{what} is unavailable; retry")]
    Unavailable {
        /// What does not answer.
        what: &'static str,
        /// When to try again.
        retry_after: Duration,
    },
    /// Our fault. The cause is logged, not told.
    #[error("an internal error occurred; the log has it under the id of this request")]
    Internal,
}

impl Error {
    /// A stable code for programs, in capitals; the names in the API's documentation.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Invalid(_) => "INVALID_REQUEST",
            Self::NotFound { .. } => "NOT_FOUND",
            Self::NothingServed { .. } => "NOTHING_SERVED",
            Self::Denied { verb, denied } => denied_reason(*verb, denied),
            Self::Conflict { .. } => "CHANGED_MEANWHILE",
            Self::KeyUsed => "IDEMPOTENCY_KEY_USED",
            Self::Busy(_) => "BUSY",
            Self::TooMany(_) => "LIMIT_REACHED",
            Self::CorruptRow { .. } => "CORRUPT_ROW",
            Self::Unavailable { .. } => "UNAVAILABLE",
            Self::Internal => "INTERNAL",
        }
    }
}

fn denied_reason(verb: Verb, denied: &Denied) -> &'static str {
    match denied {
        Denied::NotServed { .. } => "DEPLOYMENT_NOT_SERVED",
        Denied::RolloutUnderway(_) => "ROLLOUT_UNDERWAY",
        Denied::Unproven { .. } => "VERSION_NEVER_COMPLETED",
        Denied::NoSuchCondition { .. } => "CONDITION_NOT_BOUND",
        Denied::NotCustom { .. } => "CONDITION_NOT_CUSTOM",
        Denied::Decided { .. } => "CONDITION_ALREADY_DECIDED",
        Denied::Status(_) => match verb {
            Verb::Approve => "DEPLOYMENT_NOT_PENDING_APPROVAL",
            Verb::RollBack => "DEPLOYMENT_NOT_ROLLBACKABLE",
            Verb::Cancel => "DEPLOYMENT_NOT_CANCELLABLE",
            Verb::Measure | Verb::PassGates | Verb::FailGates | Verb::Start => {
                "DEPLOYMENT_NOT_PENDING_GATES"
            }
            Verb::Step | Verb::Complete | Verb::Fail => "DEPLOYMENT_NOT_IN_PROGRESS",
        },
    }
}

/// What a failure of the storage means to whoever asked for `what`.
pub(super) fn of_store(error: &store::Error, what: &'static str, id: impl Into<String>) -> Error {
    match error {
        store::Error::Conflict => Error::Conflict {
            what,
            id: id.into(),
        },
        store::Error::Unavailable(_) => {
            tracing::warn!(%error, "a request failed");
            Error::Unavailable {
                what: "the storage",
                retry_after: Duration::from_secs(1),
            }
        }
        // Its alarm has been given.
        store::Error::Corrupt(corrupt) => Error::CorruptRow {
            table: corrupt.table,
            key: corrupt.key.clone(),
            what: corrupt.what.clone(),
        },
        store::Error::Fenced
        | store::Error::Impossible(_)
        | store::Error::Panicked
        | store::Error::Internal(_) => {
            tracing::error!(%error, "a request failed");
            Error::Internal
        }
    }
}

fn count(number: usize, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}
