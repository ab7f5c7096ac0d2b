//! The storage's time.

use sea_orm::{ConnectionTrait, DbBackend, DbErr, Statement};

use super::error::Error;
use crate::{clock::Clock, domain::Timestamp};

/// The time that decides what is due. On PostgreSQL it is the server's, so that replicas whose
/// clocks differ agree; a clock that a test moves goes before it.
pub(super) async fn now<C: ConnectionTrait>(db: &C, clock: &Clock) -> Result<Timestamp, Error> {
    let backend = db.get_database_backend();
    if matches!(clock, Clock::Manual(_)) || backend != DbBackend::Postgres {
        return Ok(clock.now());
    }
    let row = db
        .query_one_raw(Statement::from_string(backend, "SELECT clock_timestamp()"))
        .await?;
    match row {
        Some(row) => Ok(row.try_get_by_index(0)?),
        None => Err(DbErr::RecordNotFound("clock_timestamp()".into()).into()),
    }
}
