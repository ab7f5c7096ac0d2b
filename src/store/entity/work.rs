//! `deployment_work`: what the reconciler has to do, one row a deployment that is on its way.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "deployment_work")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub deployment_id: Uuid,
    pub prompt_id: String,
    pub environment: String,
    pub due_at: DateTimeUtc,
    pub lease_owner: Option<Uuid>,
    pub lease_epoch: i64,
    pub failures: i32,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
