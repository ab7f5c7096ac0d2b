//! `traffic`: which versions are served, in which shares.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "traffic")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub prompt_id: String,
    #[sea_orm(primary_key, auto_increment = false)]
    pub environment: String,
    pub stable_version: Option<i32>,
    pub stable_deployment_id: Option<Uuid>,
    pub candidate_version: Option<i32>,
    pub candidate_percentage: Option<i16>,
    pub candidate_deployment_id: Option<Uuid>,
    pub revision: i64,
    pub updated_at: DateTimeUtc,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {}

impl ActiveModelBehavior for ActiveModel {}
