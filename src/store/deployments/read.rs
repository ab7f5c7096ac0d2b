//! Reads a deployment off its rows: all that it takes can be read, or it can't be.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use sea_orm::{ConnectionTrait, DbErr, FromQueryResult as _, QueryResult, QueryTrait as _, Select};
use uuid::Uuid;

use super::{DEPLOYMENTS, percent, status, strategy_name};
use crate::{
    domain::{
        deployment::{Deployment, Rollout},
        ids::{Environment, PromptId},
        judgement::GateResult,
        strategy::{Strategy, StrategyType},
    },
    store::{
        aside::Aside,
        entity::{deployment, details, rollout},
        error::{Corrupt, Error},
        gates::gate_results,
        policy,
    },
};

const STRATEGIES: &str = "deployment_strategies";
const ROLLOUTS: &str = "deployment_rollouts";

/// Reads deployments with what belongs to them, in the order of the query; one that can't be read
/// harms none of the others.
pub(super) async fn load<C: ConnectionTrait>(
    db: &C,
    aside: &Aside,
    query: Select<deployment::Entity>,
) -> Result<Vec<Result<Deployment, Corrupt>>, Error> {
    let query = query
        .find_also_related(details::Entity)
        .find_also_related(rollout::Entity)
        .into_query();
    let rows = db.query_all(&query).await?;
    let rows: Vec<_> = rows.iter().map(Loaded::read).collect();
    let gated: Vec<Uuid> = rows
        .iter()
        .flatten()
        .filter(|loaded| loaded.details.has_gates)
        .map(|loaded| loaded.row.id)
        .collect();
    let mut gates = if gated.is_empty() {
        HashMap::new()
    } else {
        gate_results(db, &gated).await?
    };
    let whole = rows.into_iter().map(|loaded| {
        let (id, read) = match loaded {
            Ok(loaded) => (loaded.row.id.to_string(), loaded.whole(&mut gates)),
            Err(corrupt) => (corrupt.key.clone(), Err(corrupt)),
        };
        aside.note(DEPLOYMENTS.table, || id, &read);
        read
    });
    Ok(whole.collect())
}

/// The rows of a deployment.
struct Loaded {
    row: deployment::Model,
    details: details::Model,
    rollout: Option<rollout::Model>,
}

impl Loaded {
    fn read(row: &QueryResult) -> Result<Self, Corrupt> {
        // By the prefixes that columns have in a query of three tables.
        let of = |table, error: DbErr| Corrupt {
            table,
            ..DEPLOYMENTS.corrupt(row, "A_", error.to_string())
        };
        let details = Option::<details::Model>::from_query_result(row, "B_");
        let details = details.map_err(|error| of(STRATEGIES, error))?;
        let missing = || DbErr::RecordNotFound("there is no such row".to_owned());
        let rollout = Option::<rollout::Model>::from_query_result(row, "C_");
        Ok(Self {
            row: deployment::Model::from_query_result(row, "A_")
                .map_err(|error| of(DEPLOYMENTS.table, error))?,
            details: details.ok_or_else(|| of(STRATEGIES, missing()))?,
            rollout: rollout.map_err(|error| of(ROLLOUTS, error))?,
        })
    }

    fn whole(
        self,
        gates: &mut HashMap<Uuid, Result<Vec<GateResult>, Corrupt>>,
    ) -> Result<Deployment, Corrupt> {
        let id = self.row.id;
        let of = |table| {
            move |what| Corrupt {
                table,
                key: id.to_string(),
                what,
            }
        };
        let strategy = read_strategy(&self.details).map_err(of(STRATEGIES))?;
        let rollout = self.rollout.as_ref().map(read_rollout).transpose();
        let rollout = rollout.map_err(of(ROLLOUTS))?;
        let metadata = read_metadata(self.details.metadata);
        let metadata = metadata.map_err(of("deployment_metadata"))?;
        let read = read(self.row, strategy).map_err(of(DEPLOYMENTS.table))?;
        Ok(Deployment {
            rollout,
            metadata,
            gates: gates.remove(&id).transpose()?.unwrap_or_default(),
            ..read
        })
    }
}

fn read_metadata(object: Option<serde_json::Value>) -> Result<BTreeMap<String, String>, String> {
    // Without an entry PostgreSQL makes no object, and SQLite an empty one.
    let object = object.map(serde_json::from_value).transpose();
    Ok(object
        .map_err(|error| error.to_string())?
        .unwrap_or_default())
}

fn read(row: deployment::Model, strategy: Strategy) -> Result<Deployment, String> {
    Ok(Deployment {
        id: row.id,
        prompt_id: PromptId::parse(&row.prompt_id)
            .map_err(|why| format!("prompt_id '{}' {why}", row.prompt_id))?,
        environment: Environment::parse(&row.environment)
            .map_err(|why| format!("environment '{}' {why}", row.environment))?,
        from_version: row.from_version,
        from_version_proven: row.from_version_proven,
        to_version: row.to_version,
        strategy,
        status: status(&row.status)?,
        status_message: row.status_message,
        warning: row.warning,
        gates: Vec::new(),
        gates_passed: row.gates_passed,
        gates_due_at: row.gates_due_at,
        rollout: None,
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

fn read_strategy(row: &details::Model) -> Result<Strategy, String> {
    let kinds = [
        StrategyType::Immediate,
        StrategyType::Gradual,
        StrategyType::Canary,
        StrategyType::BlueGreen,
    ];
    let kind = kinds
        .into_iter()
        .find(|kind| strategy_name(*kind) == row.r#type);
    let seconds = u64::try_from(row.interval_seconds)
        .map_err(|_| format!("interval_seconds {}", row.interval_seconds))?;
    Ok(Strategy {
        kind: kind.ok_or_else(|| format!("type '{}'", row.r#type))?,
        initial_percentage: percent(row.initial_percentage)?,
        increment: percent(row.increment)?,
        interval: Duration::from_secs(seconds),
        auto_rollback: row.auto_rollback,
        rollback_threshold: row.rollback_threshold,
        analysis: policy::read(row.analysis.clone(), row.rollback_threshold)?,
    })
}

fn read_rollout(row: &rollout::Model) -> Result<Rollout, String> {
    Ok(Rollout {
        stage: usize::try_from(row.stage).map_err(|_| format!("stage {}", row.stage))?,
        current_percentage: percent(row.current_percentage)?,
        target_percentage: percent(row.target_percentage)?,
        last_increment_at: row.last_increment_at,
        next_increment_at: row.next_increment_at,
    })
}
