//! Deployments with what belongs to them: strategy, rollout, metadata, gate results.

mod read;

use std::collections::BTreeSet;

use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, ConnectionTrait, DbErr, EntityTrait as _, ExprTrait as _,
    PaginatorTrait as _, QueryFilter as _, QueryOrder as _, QuerySelect as _, QueryTrait as _,
    Select,
    sea_query::{Expr, LockType, OnConflict},
};
use uuid::Uuid;

use super::{
    Store, Tx,
    aside::Each,
    entity::{deployment, metadata, rollout, strategy},
    error::Error,
    policy,
};
use crate::{
    domain::{decide::Ahead, deployment::Deployment, state::Status, strategy::StrategyType},
    faults::Bug,
};
use read::load;

const DEPLOYMENTS: Each = Each {
    table: "deployments",
    key: &["id"],
};

/// Which deployments to list.
#[derive(Debug, Clone, Default)]
pub struct DeploymentFilter {
    /// Only of this prompt.
    pub prompt_id: Option<String>,
    /// Only to this environment.
    pub environment: Option<String>,
    /// Only in this status.
    pub status: Option<Status>,
}

impl Store {
    /// A deployment by its id.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn deployment(&self, id: Uuid) -> Result<Option<Deployment>, Error> {
        let one = deployment::Entity::find_by_id(id);
        let mut found = load(self.reader()?, &self.aside, one).await?;
        Ok(found.pop().transpose()?)
    }

    /// Who stands before a deployment in line; see [`Tx::ahead_of`].
    ///
    /// # Errors
    /// The storage failed.
    pub async fn ahead_of(&self, deployment: &Deployment) -> Result<Option<Ahead>, Error> {
        ahead_of(self.reader()?, deployment).await
    }

    /// The deployments that match, the newest first, and how many match in all. Those that can't be
    /// read are counted and left out.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn deployments(
        &self,
        filter: &DeploymentFilter,
        limit: u64,
        offset: u64,
    ) -> Result<(Vec<Deployment>, u64), Error> {
        let query = filter.apply(deployment::Entity::find());
        let total = query.clone().count(self.reader()?).await?;
        let page = query
            .order_by_desc(deployment::Column::CreatedAt)
            .order_by_desc(deployment::Column::Id)
            .limit(limit)
            .offset(offset);
        let found = load(self.reader()?, &self.aside, page).await?;
        Ok((found.into_iter().filter_map(Result::ok).collect(), total))
    }
}

impl DeploymentFilter {
    fn apply(&self, mut query: Select<deployment::Entity>) -> Select<deployment::Entity> {
        if let Some(prompt_id) = &self.prompt_id {
            query = query.filter(deployment::Column::PromptId.eq(prompt_id));
        }
        if let Some(environment) = &self.environment {
            query = query.filter(deployment::Column::Environment.eq(environment));
        }
        if let Some(status) = self.status {
            query = query.filter(deployment::Column::Status.eq(status.as_str()));
        }
        query
    }
}

impl Tx {
    /// A deployment, held until the transaction ends.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn hold_deployment(&self, id: Uuid) -> Result<Option<Deployment>, Error> {
        let held = deployment::Entity::find_by_id(id)
            .select_only()
            .column(deployment::Column::Id)
            .lock(LockType::Update)
            .into_tuple::<Uuid>()
            .one(&self.db)
            .await?;
        if held.is_none() {
            return Ok(None);
        }
        let one = deployment::Entity::find_by_id(id);
        let mut found = load(&self.db, &self.aside, one).await?;
        Ok(found.pop().transpose()?)
    }

    /// Who stands before a deployment in line: the one that is rolling out to its prompt and
    /// environment, one that may be, since its status can't be read, or an older one whose gates have
    /// passed too. Hold the traffic before asking.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn ahead_of(&self, deployment: &Deployment) -> Result<Option<Ahead>, Error> {
        ahead_of(&self.db, deployment).await
    }

    /// Deployments as they are, without holding them; those of them that there are and can be read.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn deployments(&self, ids: &BTreeSet<Uuid>) -> Result<Vec<Deployment>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = deployment::Column::Id.is_in(ids.iter().copied());
        let wanted = deployment::Entity::find().filter(wanted);
        let found = load(&self.db, &self.aside, wanted).await?;
        Ok(found.into_iter().filter_map(Result::ok).collect())
    }

    /// Stores a new deployment with all that belongs to it.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn insert_deployment(&self, new: &Deployment) -> Result<(), Error> {
        deployment::Entity::insert(row(new))
            .exec_without_returning(&self.db)
            .await?;
        strategy::Entity::insert(strategy_row(new))
            .exec_without_returning(&self.db)
            .await?;
        let metadata = new
            .metadata
            .iter()
            .map(|(key, value)| metadata::ActiveModel {
                deployment_id: Set(new.id),
                key: Set(key.clone()),
                value: Set(value.clone()),
            });
        if !new.metadata.is_empty() {
            metadata::Entity::insert_many(metadata)
                .exec_without_returning(&self.db)
                .await?;
        }
        self.put_rollout(new).await?;
        self.insert_gate_results(new.id, &new.gates).await
    }

    /// Stores what has changed of a deployment, where nobody else has changed it since it was read.
    ///
    /// # Errors
    /// [`Error::Conflict`] where somebody has; the transaction must then not be committed.
    pub async fn update_deployment(
        &self,
        before: &Deployment,
        after: &Deployment,
    ) -> Result<(), Error> {
        let mut update = deployment::Entity::update_many()
            .set(deployment::ActiveModel {
                id: sea_orm::ActiveValue::NotSet,
                revision: Set(before.revision + 1),
                ..row(after)
            })
            .filter(deployment::Column::Id.eq(before.id));
        if !self.faults.has(Bug::SkipsFence) {
            update = update.filter(deployment::Column::Revision.eq(before.revision));
        }
        let updated = update.exec(&self.db).await?;
        if updated.rows_affected != 1 {
            return Err(Error::Conflict);
        }
        if before.rollout != after.rollout {
            self.put_rollout(after).await?;
        }
        if before.gates != after.gates {
            self.put_gate_results(after.id, &after.gates).await?;
        }
        Ok(())
    }

    /// Stores how many events a deployment has and when it last had one, where nothing else of it
    /// changes.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn put_event_count(&self, deployment: &Deployment) -> Result<(), Error> {
        deployment::Entity::update_many()
            .col_expr(
                deployment::Column::EventCount,
                Expr::value(deployment.event_count),
            )
            .col_expr(
                deployment::Column::UpdatedAt,
                Expr::value(deployment.updated_at),
            )
            .filter(deployment::Column::Id.eq(deployment.id))
            .exec(&self.db)
            .await?;
        Ok(())
    }

    async fn put_rollout(&self, deployment: &Deployment) -> Result<(), Error> {
        let Some(rollout) = &deployment.rollout else {
            return Ok(());
        };
        let row = rollout::ActiveModel {
            deployment_id: Set(deployment.id),
            // A plan has at most 101 steps.
            stage: Set(i16::try_from(rollout.stage).unwrap_or(i16::MAX)),
            current_percentage: Set(rollout.current_percentage.into()),
            target_percentage: Set(rollout.target_percentage.into()),
            last_increment_at: Set(rollout.last_increment_at),
            next_increment_at: Set(rollout.next_increment_at),
        };
        let again = OnConflict::column(rollout::Column::DeploymentId)
            .update_columns([
                rollout::Column::Stage,
                rollout::Column::CurrentPercentage,
                rollout::Column::TargetPercentage,
                rollout::Column::LastIncrementAt,
                rollout::Column::NextIncrementAt,
            ])
            .to_owned();
        rollout::Entity::insert(row)
            .on_conflict(again)
            .exec_without_returning(&self.db)
            .await?;
        Ok(())
    }
}

async fn ahead_of<C: ConnectionTrait>(
    db: &C,
    deployment: &Deployment,
) -> Result<Option<Ahead>, Error> {
    let rolling_out = deployment::Column::Status.eq(Status::InProgress.as_str());
    let unknown = deployment::Column::Status.is_not_in(Status::ALL.map(Status::as_str));
    let older =
        deployment::Column::CreatedAt
            .lt(deployment.created_at)
            .or(deployment::Column::CreatedAt
                .eq(deployment.created_at)
                .and(deployment::Column::Id.lt(deployment.id)));
    let waiting = deployment::Column::Status
        .eq(Status::PendingGates.as_str())
        .and(deployment::Column::GatesPassed.eq(true))
        .and(older);
    // Only what names it: of a row that can't be read as a whole that much is enough.
    let first = deployment::Entity::find()
        .select_only()
        .columns([
            deployment::Column::Id,
            deployment::Column::ToVersion,
            deployment::Column::Status,
        ])
        .filter(deployment::Column::PromptId.eq(deployment.prompt_id.as_str()))
        .filter(deployment::Column::Environment.eq(deployment.environment.as_str()))
        .filter(deployment::Column::Id.ne(deployment.id))
        .filter(rolling_out.or(waiting).or(unknown))
        // IN_PROGRESS sorts before PENDING_GATES.
        .order_by_asc(deployment::Column::Status)
        .order_by_asc(deployment::Column::CreatedAt)
        .order_by_asc(deployment::Column::Id)
        .limit(1)
        .into_query();
    let Some(row) = db.query_one(&first).await? else {
        return Ok(None);
    };
    let named = |error: DbErr| DEPLOYMENTS.corrupt(&row, "", error.to_string());
    let name: String = row.try_get("", "status").map_err(named)?;
    Ok(Some(Ahead {
        id: row.try_get("", "id").map_err(named)?,
        version: row.try_get("", "to_version").map_err(named)?,
        status: status(&name).ok(),
    }))
}

fn row(deployment: &Deployment) -> deployment::ActiveModel {
    deployment::ActiveModel {
        id: Set(deployment.id),
        prompt_id: Set(deployment.prompt_id.to_string()),
        environment: Set(deployment.environment.to_string()),
        from_version: Set(deployment.from_version),
        from_version_proven: Set(deployment.from_version_proven),
        to_version: Set(deployment.to_version),
        status: Set(deployment.status.as_str().to_owned()),
        status_message: Set(deployment.status_message.clone()),
        warning: Set(deployment.warning.clone()),
        gates_passed: Set(deployment.gates_passed),
        gates_due_at: Set(deployment.gates_due_at),
        created_at: Set(deployment.created_at),
        started_at: Set(deployment.started_at),
        completed_at: Set(deployment.completed_at),
        created_by: Set(deployment.created_by.clone()),
        approved_by: Set(deployment.approved_by.clone()),
        updated_at: Set(deployment.updated_at),
        revision: Set(deployment.revision),
        event_count: Set(deployment.event_count),
    }
}

fn strategy_row(deployment: &Deployment) -> strategy::ActiveModel {
    let strategy = &deployment.strategy;
    strategy::ActiveModel {
        deployment_id: Set(deployment.id),
        r#type: Set(strategy_name(strategy.kind).to_owned()),
        initial_percentage: Set(strategy.initial_percentage.into()),
        increment: Set(strategy.increment.into()),
        // At most a year.
        interval_seconds: Set(i32::try_from(strategy.interval.as_secs()).unwrap_or(i32::MAX)),
        auto_rollback: Set(strategy.auto_rollback),
        rollback_threshold: Set(strategy.rollback_threshold),
        analysis: Set(Some(policy::write(&strategy.analysis))),
    }
}

fn strategy_name(kind: StrategyType) -> &'static str {
    match kind {
        StrategyType::Immediate => "IMMEDIATE",
        StrategyType::Gradual => "GRADUAL",
        StrategyType::Canary => "CANARY",
        StrategyType::BlueGreen => "BLUE_GREEN",
    }
}

pub(super) fn status(name: &str) -> Result<Status, String> {
    Status::ALL
        .into_iter()
        .find(|status| status.as_str() == name)
        .ok_or_else(|| format!("status '{name}'"))
}

pub(super) fn percent(percent: i16) -> Result<u8, String> {
    u8::try_from(percent)
        .ok()
        .filter(|percent| *percent <= 100)
        .ok_or_else(|| format!("percentage {percent}"))
}
