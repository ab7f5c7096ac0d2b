//! Deployments with what belongs to them: strategy, rollout, metadata, gate results.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, ExprTrait as _, PaginatorTrait as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, Select,
    sea_query::{Expr, LockType, OnConflict},
};
use uuid::Uuid;

use super::{
    Store, Tx,
    entity::{deployment, details, metadata, rollout, strategy},
    error::Error,
    gates::gate_results,
    policy,
};
use crate::{
    domain::{
        decide::Ahead,
        deployment::{Deployment, Rollout},
        ids::{Environment, PromptId},
        state::Status,
        strategy::{Strategy, StrategyType},
    },
    faults::Bug,
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
        let found = load(self.reader()?, deployment::Entity::find_by_id(id)).await;
        Ok(found?.pop())
    }

    /// Who stands before a deployment in line; see [`Tx::ahead_of`].
    ///
    /// # Errors
    /// The storage failed.
    pub async fn ahead_of(&self, deployment: &Deployment) -> Result<Option<Ahead>, Error> {
        ahead_of(self.reader()?, deployment).await
    }

    /// The deployments that match, the newest first, and how many match in all.
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
        Ok((load(self.reader()?, page).await?, total))
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
        let found = load(&self.db, deployment::Entity::find_by_id(id)).await;
        Ok(found?.pop())
    }

    /// Who stands before a deployment in line: the one that is rolling out to its prompt and
    /// environment, or an older one whose gates have passed too. Hold the traffic before asking.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn ahead_of(&self, deployment: &Deployment) -> Result<Option<Ahead>, Error> {
        ahead_of(&self.db, deployment).await
    }

    /// Deployments as they are, without holding them; those of them that there are.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn deployments(&self, ids: &BTreeSet<Uuid>) -> Result<Vec<Deployment>, Error> {
        if ids.is_empty() {
            return Ok(Vec::new());
        }
        let wanted = deployment::Column::Id.is_in(ids.iter().copied());
        load(&self.db, deployment::Entity::find().filter(wanted)).await
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

    /// Stores how many events a deployment has, where nothing else of it changes.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn put_event_count(&self, deployment: &Deployment) -> Result<(), Error> {
        deployment::Entity::update_many()
            .col_expr(
                deployment::Column::EventCount,
                Expr::value(deployment.event_count),
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
    let row = deployment::Entity::find()
        .filter(deployment::Column::PromptId.eq(deployment.prompt_id.as_str()))
        .filter(deployment::Column::Environment.eq(deployment.environment.as_str()))
        .filter(deployment::Column::Id.ne(deployment.id))
        .filter(rolling_out.or(waiting))
        // IN_PROGRESS sorts before PENDING_GATES.
        .order_by_asc(deployment::Column::Status)
        .order_by_asc(deployment::Column::CreatedAt)
        .order_by_asc(deployment::Column::Id)
        .limit(1)
        .one(db)
        .await?;
    row.map(|row| {
        Ok(Ahead {
            id: row.id,
            version: row.to_version,
            status: status("deployments", &row.status)?,
        })
    })
    .transpose()
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

/// Reads deployments with what belongs to them, in the order of the query.
async fn load<C: ConnectionTrait>(
    db: &C,
    query: Select<deployment::Entity>,
) -> Result<Vec<Deployment>, Error> {
    let rows = query
        .find_also_related(details::Entity)
        .find_also_related(rollout::Entity)
        .all(db)
        .await?;
    let gated: Vec<Uuid> = rows
        .iter()
        .filter(|(_, details, _)| details.as_ref().is_some_and(|row| row.has_gates))
        .map(|(row, ..)| row.id)
        .collect();
    let mut gates = if gated.is_empty() {
        HashMap::new()
    } else {
        gate_results(db, &gated).await?
    };
    rows.into_iter()
        .map(|(row, details, rollout)| {
            let id = row.id;
            let details = details.ok_or_else(|| Error::Corrupt {
                table: "deployment_strategies",
                what: format!("no row for deployment {id}"),
            })?;
            let strategy = read_strategy(&details)?;
            let mut deployment = read(row, strategy, rollout.as_ref())?;
            deployment.metadata = read_metadata(details.metadata)?;
            deployment.gates = gates.remove(&id).unwrap_or_default();
            Ok(deployment)
        })
        .collect()
}

fn read_metadata(object: Option<serde_json::Value>) -> Result<BTreeMap<String, String>, Error> {
    // Without an entry PostgreSQL makes no object, and SQLite an empty one.
    let object = object.map(serde_json::from_value).transpose();
    let object = object.map_err(|error| Error::Corrupt {
        table: "deployment_metadata",
        what: error.to_string(),
    })?;
    Ok(object.unwrap_or_default())
}

fn read(
    row: deployment::Model,
    strategy: Strategy,
    rollout: Option<&rollout::Model>,
) -> Result<Deployment, Error> {
    let corrupt = |what| Error::Corrupt {
        table: "deployments",
        what,
    };
    Ok(Deployment {
        id: row.id,
        prompt_id: PromptId::parse(&row.prompt_id).map_err(corrupt)?,
        environment: Environment::parse(&row.environment).map_err(corrupt)?,
        from_version: row.from_version,
        from_version_proven: row.from_version_proven,
        to_version: row.to_version,
        strategy,
        status: status("deployments", &row.status)?,
        status_message: row.status_message,
        warning: row.warning,
        gates: Vec::new(),
        gates_passed: row.gates_passed,
        gates_due_at: row.gates_due_at,
        rollout: rollout.map(read_rollout).transpose()?,
        created_at: row.created_at,
        started_at: row.started_at,
        completed_at: row.completed_at,
        created_by: row.created_by,
        approved_by: row.approved_by,
        metadata: BTreeMap::new(),
        updated_at: row.updated_at,
        revision: row.revision,
        event_count: row.event_count,
    })
}

fn read_strategy(row: &details::Model) -> Result<Strategy, Error> {
    const TABLE: &str = "deployment_strategies";
    let kinds = [
        StrategyType::Immediate,
        StrategyType::Gradual,
        StrategyType::Canary,
        StrategyType::BlueGreen,
    ];
    let corrupt = |what| Error::Corrupt { table: TABLE, what };
    let kind = kinds
        .into_iter()
        .find(|kind| strategy_name(*kind) == row.r#type);
    let seconds = u64::try_from(row.interval_seconds)
        .map_err(|_| corrupt(format!("interval_seconds {}", row.interval_seconds)))?;
    Ok(Strategy {
        kind: kind.ok_or_else(|| corrupt(format!("type '{}'", row.r#type)))?,
        initial_percentage: percent(TABLE, row.initial_percentage)?,
        increment: percent(TABLE, row.increment)?,
        interval: Duration::from_secs(seconds),
        auto_rollback: row.auto_rollback,
        rollback_threshold: row.rollback_threshold,
        analysis: policy::read(row.analysis.clone(), row.rollback_threshold)?,
    })
}

fn read_rollout(row: &rollout::Model) -> Result<Rollout, Error> {
    const TABLE: &str = "deployment_rollouts";
    Ok(Rollout {
        stage: usize::try_from(row.stage).map_err(|_| Error::Corrupt {
            table: TABLE,
            what: format!("stage {}", row.stage),
        })?,
        current_percentage: percent(TABLE, row.current_percentage)?,
        target_percentage: percent(TABLE, row.target_percentage)?,
        last_increment_at: row.last_increment_at,
        next_increment_at: row.next_increment_at,
    })
}

fn strategy_name(kind: StrategyType) -> &'static str {
    match kind {
        StrategyType::Immediate => "IMMEDIATE",
        StrategyType::Gradual => "GRADUAL",
        StrategyType::Canary => "CANARY",
        StrategyType::BlueGreen => "BLUE_GREEN",
    }
}

pub(super) fn status(table: &'static str, name: &str) -> Result<Status, Error> {
    Status::ALL
        .into_iter()
        .find(|status| status.as_str() == name)
        .ok_or_else(|| Error::Corrupt {
            table,
            what: format!("status '{name}'"),
        })
}

pub(super) fn percent(table: &'static str, percent: i16) -> Result<u8, Error> {
    u8::try_from(percent)
        .ok()
        .filter(|percent| *percent <= 100)
        .ok_or_else(|| Error::Corrupt {
            table,
            what: format!("percentage {percent}"),
        })
}
