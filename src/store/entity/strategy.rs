//! `deployment_strategies`: how traffic shifts, one row a deployment.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "deployment_strategies")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub deployment_id: Uuid,
    pub r#type: String,
    pub initial_percentage: i16,
    pub increment: i16,
    pub interval_seconds: i32,
    pub auto_rollback: bool,
    pub rollback_threshold: f64,
    /// None in rows from before there were policies.
    pub analysis: Option<Json>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
