//! `deployment_condition_results`: conditions bound to a deployment, and what was measured.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "deployment_condition_results")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub deployment_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub gate_id: Uuid,
    #[sea_orm(primary_key, auto_increment = false)]
    pub position: i16,
    pub r#type: String,
    pub operator: String,
    pub expected: f64,
    pub eval_run_id: String,
    pub dataset_id: String,
    pub url: Option<String>,
    pub baseline: bool,
    pub actual: Option<f64>,
    pub verdict: String,
    pub note: String,
    pub ask_after: Option<DateTimeUtc>,
    pub ask_ended: bool,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
