//! `cohort_sums`: what the outcomes of one side of a cohort add up to, by band.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "cohort_sums")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub cohort_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub side: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub band: i16,
    pub units: i64,
    pub calls: i64,
    pub failures: i64,
    pub latency_n: i64,
    pub latency_sum: f64,
    pub cost_n: i64,
    pub cost_sum: f64,
    pub quality_n: i64,
    pub quality_sum: f64,
    pub quality_units: i64,
    pub quality_unit_sum: f64,
    pub quality_unit_squares: f64,
    pub success_units: i64,
    pub success_unit_sum: f64,
    pub success_unit_squares: f64,
    pub latency_units: i64,
    pub latency_unit_sum: f64,
    pub latency_unit_squares: f64,
    pub cost_units: i64,
    pub cost_unit_sum: f64,
    pub cost_unit_squares: f64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {
    #[sea_orm(
        belongs_to = "super::cohort::Entity",
        from = "Column::CohortId",
        to = "super::cohort::Column::Id"
    )]
    Cohort,
}

impl Related<super::cohort::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Cohort.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
