//! The replicas that serve, and how far each has spread the splits of each environment.

use sea_orm_migration::{prelude::*, schema::*};

/// See the module.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        let replicas = Table::create()
            .table("replicas")
            .col(uuid("id").primary_key())
            .col(timestamp_with_time_zone("seen_at"))
            .to_owned();
        let mut of_replica = ForeignKey::create()
            .from("replica_spreads", "replica_id")
            .to("replicas", "id")
            .on_delete(ForeignKeyAction::Cascade)
            .to_owned();
        let spreads = Table::create()
            .table("replica_spreads")
            .col(uuid("replica_id"))
            .col(text("environment"))
            .col(big_integer("revision"))
            .col(integer("watchers"))
            .col(integer("watchers_behind"))
            .primary_key(Index::create().col("replica_id").col("environment"))
            .foreign_key(&mut of_replica)
            .to_owned();
        manager.create_table(replicas).await?;
        manager.create_table(spreads).await
    }
}
