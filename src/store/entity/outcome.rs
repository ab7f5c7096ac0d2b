//! `outcomes`: what became of each request, by a digest of its id.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "outcomes")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub scope: Uuid,
    pub cohort_id: Uuid,
    pub side: String,
    pub unit: Option<Uuid>,
    pub band: i16,
    pub at: DateTimeUtc,
    pub received_at: DateTimeUtc,
    pub error: bool,
    pub latency_ms: Option<f64>,
    pub quality_score: Option<f64>,
    pub cost_usd: Option<f64>,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
