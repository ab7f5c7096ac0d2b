//! The database schema, as forward-only migrations. `README.md` has the rule that they keep.

pub use sea_orm_migration::prelude::*;

mod m20261124_000001_initial;
mod m20261125_000002_replicas;
mod m20261125_000003_condition_notes;
mod m20261125_000004_condition_baseline;
mod m20261125_000005_condition_urls;
mod m20261125_000006_outcomes;
mod m20261125_000007_idempotency;

/// Every migration, in order.
#[derive(Debug)]
pub struct Migrator;

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        vec![
            Box::new(m20261124_000001_initial::Migration),
            Box::new(m20261125_000002_replicas::Migration),
            Box::new(m20261125_000003_condition_notes::Migration),
            Box::new(m20261125_000004_condition_baseline::Migration),
            Box::new(m20261125_000005_condition_urls::Migration),
            Box::new(m20261125_000006_outcomes::Migration),
            Box::new(m20261125_000007_idempotency::Migration),
        ]
    }
}
