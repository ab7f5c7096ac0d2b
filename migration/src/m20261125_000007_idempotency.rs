//! Requests that count once: the key of each, and what was answered.

use sea_orm_migration::{prelude::*, schema::*};

/// See the module.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let answers = Table::create()
            .table("first_answers")
            .col(uuid("key").primary_key())
            .col(uuid("content"))
            .col(binary("answer"))
            .col(timestamp_with_time_zone("at"))
            .to_owned();
        manager.create_table(answers).await?;
        let by_age = Index::create()
            .name("first_answers_by_age")
            .table("first_answers")
            .col("at")
            .to_owned();
        manager.create_index(by_age).await
    }
}
