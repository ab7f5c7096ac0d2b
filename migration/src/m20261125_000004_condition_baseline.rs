//! Whether a condition compares the new version with the one that is served.

use sea_orm_migration::{prelude::*, schema::*};

/// See the module.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in ["quality_gate_conditions", "deployment_condition_results"] {
            let baseline = Table::alter()
                .table(table)
                .add_column(boolean("baseline").default(false))
                .to_owned();
            manager.alter_table(baseline).await?;
        }
        Ok(())
    }
}
