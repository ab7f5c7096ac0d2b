//! `deployment_details`: a view of what belongs to a deployment, one row each.

use sea_orm::entity::prelude::*;

#[derive(Clone, Debug, PartialEq, DeriveEntityModel)]
#[sea_orm(table_name = "deployment_details")]
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
    /// An object of strings; none where there is no metadata.
    pub metadata: Option<Json>,
    pub has_gates: bool,
}

#[derive(Copy, Clone, Debug, EnumIter, DeriveRelation)]
pub(crate) enum Relation {
    #[sea_orm(
        belongs_to = "super::deployment::Entity",
        from = "Column::DeploymentId",
        to = "super::deployment::Column::Id"
    )]
    Deployment,
}

impl Related<super::deployment::Entity> for Entity {
    fn to() -> RelationDef {
        Relation::Deployment.def()
    }
}

impl ActiveModelBehavior for ActiveModel {}
