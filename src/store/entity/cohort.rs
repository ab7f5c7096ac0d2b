//! `cohorts`: those who were served under one split.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "cohorts")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub prompt_id: String,
    pub environment: String,
    pub revision: i64,
    pub rollout: Option<Uuid>,
    pub stable_version: i32,
    pub candidate_version: i32,
    pub share: i16,
    pub began_at: DateTimeUtc,
    pub latency_limit_ms: Option<f64>,
    pub cost_limit_usd: Option<f64>,
    /// Whether units are kept that were seen first in it.
    pub has_units: bool,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {
    #[sea_orm(has_many = "super::cohort_sums::Entity")]
    Sums,
}

impl Related<super::cohort_sums::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Sums.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
