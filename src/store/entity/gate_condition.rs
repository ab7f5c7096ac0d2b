//! `quality_gate_conditions`: conditions of a gate, in order.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "quality_gate_conditions")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub gate_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: i16,
    pub r#type: String,
    pub operator: String,
    pub threshold: f64,
    pub eval_run_id: String,
    pub dataset_id: String,
    pub url: Option<String>,
    pub baseline: bool,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
