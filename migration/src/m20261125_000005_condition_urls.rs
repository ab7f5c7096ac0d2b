//! Where a condition that is decided outside is asked for, and whether and when it is asked again.
//!
//! The binary before this one writes the conditions of a deployment anew without these columns: a
//! condition that it does this to is not asked for any more, and waits to be reported.

use sea_orm_migration::{prelude::*, schema::*};

/// See the module.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let results = "deployment_condition_results";
        // SQLite adds one column a statement.
        for (table, column) in [
            ("quality_gate_conditions", text_null("url")),
            (results, text_null("url")),
            (results, timestamp_with_time_zone_null("ask_after")),
            (results, boolean("ask_ended").default(false).take()),
        ] {
            let added = Table::alter().table(table).add_column(column).to_owned();
            manager.alter_table(added).await?;
        }
        Ok(())
    }
}
