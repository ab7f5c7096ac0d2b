//! `replica_spreads`: how far a replica has spread the splits of an environment.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "replica_spreads")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub replica_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub environment: String,
    pub revision: i64,
    pub watchers: i32,
    pub watchers_behind: i32,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
