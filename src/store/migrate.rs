//! Brings the schema up to date.

use migration::{Migrator, MigratorTrait as _};
use sea_orm::{
    ConnectionTrait as _, DatabaseConnection, DatabaseTransaction, DbBackend,
    SqliteTransactionMode, TransactionOptions, TransactionTrait as _,
};

use super::error::Error;

/// Key of the advisory lock that migrations run under; any number does that nobody else uses.
const LOCK: i64 = 0x0de1_05de_9107;

/// Runs the migrations that are missing, in one transaction and under a lock, so that replicas
/// that start together on one database run each of them once.
///
/// # Errors
/// The storage failed, or a migration did; then nothing has changed.
#[expect(
    clippy::disallowed_methods,
    reason = "runs before there is a store to write through"
)]
pub(super) async fn migrate(db: &DatabaseConnection) -> Result<(), Error> {
    let options = TransactionOptions {
        sqlite_transaction_mode: Some(SqliteTransactionMode::Immediate),
        ..Default::default()
    };
    let tx = db.begin_with_options(options).await?;
    if tx.get_database_backend() == DbBackend::Postgres {
        // Others may wait for this one for longer than a statement may otherwise take.
        tx.execute_unprepared("SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = 0")
            .await?;
        tx.execute_unprepared(&format!("SELECT pg_advisory_xact_lock({LOCK})"))
            .await?;
    }
    if lacks_a_migration(&tx).await? {
        Migrator::up(&tx, None).await?;
    }
    tx.commit().await?;
    Ok(())
}

/// Whether one of our migrations has not run. A schema that is newer than this binary lacks none: a
/// migration takes nothing away that the binary before it uses, so that one can be started again
/// during an upgrade, and after one that is taken back.
async fn lacks_a_migration(tx: &DatabaseTransaction) -> Result<bool, Error> {
    Migrator::install(tx).await?;
    let applied = Migrator::get_migration_models(tx).await?;
    let is_applied = |name: &str| applied.iter().any(|row| row.version == name);
    Ok(Migrator::migrations()
        .iter()
        .any(|migration| !is_applied(migration.name())))
}
