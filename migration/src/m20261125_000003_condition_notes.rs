//! Where the measure of a condition comes from, or why there is none.

use sea_orm_migration::{prelude::*, schema::*};

/// See the module.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let note = Table::alter()
            .table("deployment_condition_results")
            .add_column(text("note").default(""))
            .to_owned();
        manager.alter_table(note).await
    }
}
