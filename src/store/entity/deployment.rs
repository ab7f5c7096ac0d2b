//! `deployments`: deployments.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, Eq, DeriveEntityModel)]
#[sea_orm(table_name = "deployments")]
pub(crate) struct Model {
    #[sea_orm(primary_key, auto_increment = false)]
    pub id: Uuid,
    pub prompt_id: String,
    pub environment: String,
    pub from_version: i32,
    pub from_version_proven: bool,
    pub to_version: i32,
    pub status: String,
    pub status_message: String,
    pub warning: String,
    pub gates_passed: bool,
    pub gates_due_at: Option<DateTimeUtc>,
    pub created_at: DateTimeUtc,
    pub started_at: Option<DateTimeUtc>,
    pub completed_at: Option<DateTimeUtc>,
    pub created_by: String,
    pub approved_by: String,
    pub updated_at: DateTimeUtc,
    pub revision: i64,
    pub event_count: i64,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {
    #[sea_orm(has_one = "super::rollout::Entity")]
    Rollout,
    #[sea_orm(has_one = "super::details::Entity")]
    Details,
}

impl Related<super::details::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Details.def()
    }
}

impl Related<super::rollout::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Rollout.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
