//! What a simulation needs of the storage beside places to stop at.

use sea_orm::{ConnectionTrait as _, Statement};

use super::{Error, Store};
use crate::clock::Clock;

impl Store {
    /// The same storage, as it is where its clock shows something else.
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Removes every row; SQLite only.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn clear(&self) -> Result<(), Error> {
        let db = self.writer()?;
        let tables = "SELECT name FROM sqlite_master WHERE type = 'table' \
             AND name NOT LIKE 'sqlite_%' AND name <> 'seaql_migrations'";
        let tables = Statement::from_string(db.get_database_backend(), tables);
        let mut statements = String::from("PRAGMA foreign_keys = OFF;");
        for row in db.query_all_raw(tables).await? {
            let name: String = row.try_get_by_index(0)?;
            statements.push_str(&format!("DELETE FROM \"{name}\";"));
        }
        statements.push_str("PRAGMA foreign_keys = ON;");
        db.execute_unprepared(&statements).await?;
        Ok(())
    }
}
