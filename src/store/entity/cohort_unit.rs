//! `cohort_units`: what is known of each unit, by a digest of its name.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "cohort_units")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub scope: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub unit: Uuid,
    pub cohort_id: Uuid,
    pub side: String,
    pub band: i16,
    pub has_moved: bool,
    pub quality_n: i32,
    pub quality_sum: f64,
    pub success_n: i32,
    pub success_sum: f64,
    pub latency_n: i32,
    pub latency_sum: f64,
    pub cost_n: i32,
    pub cost_sum: f64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
