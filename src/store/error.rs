//! What can go wrong with the storage, by what the caller can do about it.

use sea_orm::{DbErr, RuntimeErr, SqlErr};

use crate::faults::Lost;

/// A failure of the storage.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage can't be reached or does not answer in time. A write may or may not have happened.
    #[error("the storage is unavailable: {0}")]
    Unavailable(#[source] DbErr),
    /// Somebody else changed what the write was based on, each time it was tried.
    #[error("changed by somebody else meanwhile")]
    Conflict,
    /// The reconciler's claim on the deployment has passed to another replica.
    #[error("the claim on the deployment has passed on")]
    Fenced,
    /// A row holds what the service never writes.
    #[error(transparent)]
    Corrupt(#[from] Corrupt),
    /// What was decided can't be done: a bug of ours. Nothing was changed.
    #[error("{0}")]
    Impossible(String),
    /// The write panicked; nothing was changed.
    #[error("a write panicked")]
    Panicked,
    /// Anything else: a bug of ours.
    #[error("the storage refused: {0}")]
    Internal(#[source] DbErr),
}

/// A row that holds what the service never writes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the row {key} of {table} can't be read: {what}")]
pub struct Corrupt {
    /// The table.
    pub table: &'static str,
    /// What the row belongs to: an id, or the names of a prompt and an environment.
    pub key: String,
    /// What is wrong with it.
    pub what: String,
}

impl Error {
    /// Whether trying the whole transaction again may succeed.
    pub(super) fn is_worth_a_retry(&self) -> bool {
        matches!(self, Self::Conflict)
    }
}

impl From<Lost> for Error {
    fn from(lost: Lost) -> Self {
        Self::Unavailable(DbErr::Conn(RuntimeErr::Internal(lost.to_string())))
    }
}

impl From<DbErr> for Error {
    fn from(error: DbErr) -> Self {
        if matches!(error.sql_err(), Some(SqlErr::UniqueConstraintViolation(_))) {
            // Two writers came to the same row; who reads again sees what the other one wrote.
            return Self::Conflict;
        }
        match kind(&error) {
            Kind::Conflict => Self::Conflict,
            Kind::Unavailable => Self::Unavailable(error),
            Kind::Other => Self::Internal(error),
        }
    }
}

enum Kind {
    Conflict,
    Unavailable,
    Other,
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "both enums are foreign and grow"
)]
fn kind(error: &DbErr) -> Kind {
    let inner = match error {
        DbErr::ConnectionAcquire(_) => return Kind::Unavailable,
        DbErr::Conn(RuntimeErr::SqlxError(inner))
        | DbErr::Exec(RuntimeErr::SqlxError(inner))
        | DbErr::Query(RuntimeErr::SqlxError(inner)) => inner,
        _ => return Kind::Other,
    };
    match inner.as_ref() {
        sqlx::Error::Database(database) => {
            database.code().map_or(Kind::Other, |code| of_code(&code))
        }
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => Kind::Unavailable,
        _ => Kind::Other,
    }
}

/// By SQLSTATE (PostgreSQL, appendix A) or by extended result code (SQLite).
fn of_code(code: &str) -> Kind {
    match code {
        // serialization_failure, deadlock_detected; SQLITE_BUSY and its kinds.
        "40001" | "40P01" | "5" | "261" | "517" | "773" => Kind::Conflict,
        // query_canceled (our statement_timeout), lock_not_available, too_many_connections,
        // read_only_sql_transaction, shutdowns, and a session that was cut for idling.
        "57014" | "55P03" | "53300" | "25006" | "57P01" | "57P02" | "57P03" | "25P03" => {
            Kind::Unavailable
        }
        // The database turns new sessions away: it is closed, gone, or no longer knows us.
        "55000" | "3D000" => Kind::Unavailable,
        code if code.starts_with("08") || code.starts_with("28") => Kind::Unavailable,
        _ => Kind::Other,
    }
}
