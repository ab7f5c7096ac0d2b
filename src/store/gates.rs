//! Quality gates, and the results of the gates that a deployment is bound to.

use std::collections::HashMap;

use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, ConnectionTrait, EntityTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
};
use uuid::Uuid;

use super::{
    Store, Tx,
    entity::{condition_result, gate, gate_condition, gate_result},
    error::Error,
};
use crate::domain::{
    endpoint::Endpoint,
    gate::{Condition, ConditionType, Gate, Operator, Source},
    ids::{Actor, PromptId},
    judgement::{Again, ConditionResult, GateResult, Verdict},
};

/// Most gates of a prompt; what is bound to a deployment must stay readable.
pub(crate) const GATES_PER_PROMPT_MAX: usize = 100;

impl Store {
    /// The gates of a prompt, the oldest first.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn gates(&self, prompt_id: &PromptId) -> Result<Vec<Gate>, Error> {
        gates_of(self.reader()?, prompt_id).await
    }
}

impl Tx {
    /// The gates of a prompt, the oldest first.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn gates(&self, prompt_id: &PromptId) -> Result<Vec<Gate>, Error> {
        gates_of(&self.db, prompt_id).await
    }

    /// Stores a new gate.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn insert_gate(&self, gate: &Gate) -> Result<(), Error> {
        let row = gate::ActiveModel {
            id: Set(gate.id),
            name: Set(gate.name.clone()),
            prompt_id: Set(gate.prompt_id.to_string()),
            required: Set(gate.required),
            created_at: Set(gate.created_at),
            created_by: Set(gate.created_by.as_str().to_owned()),
        };
        gate::Entity::insert(row)
            .exec_without_returning(&self.db)
            .await?;
        let conditions = gate
            .conditions
            .iter()
            .zip(0_i16..)
            .map(|(condition, position)| {
                let source = SourceColumns::of(&condition.source);
                gate_condition::ActiveModel {
                    gate_id: Set(gate.id),
                    position: Set(position),
                    r#type: Set(condition.kind.as_str().to_owned()),
                    operator: Set(condition.operator.as_str().to_owned()),
                    threshold: Set(condition.threshold),
                    eval_run_id: Set(source.eval_run_id),
                    dataset_id: Set(source.dataset_id),
                    url: Set(source.url),
                    baseline: Set(source.baseline),
                }
            });
        gate_condition::Entity::insert_many(conditions)
            .exec_without_returning(&self.db)
            .await?;
        Ok(())
    }

    /// Stores the gate results of a deployment anew.
    pub(super) async fn put_gate_results(
        &self,
        deployment_id: Uuid,
        gates: &[GateResult],
    ) -> Result<(), Error> {
        condition_result::Entity::delete_many()
            .filter(condition_result::Column::DeploymentId.eq(deployment_id))
            .exec(&self.db)
            .await?;
        gate_result::Entity::delete_many()
            .filter(gate_result::Column::DeploymentId.eq(deployment_id))
            .exec(&self.db)
            .await?;
        self.insert_gate_results(deployment_id, gates).await
    }

    pub(super) async fn insert_gate_results(
        &self,
        deployment_id: Uuid,
        gates: &[GateResult],
    ) -> Result<(), Error> {
        if gates.is_empty() {
            return Ok(());
        }
        let rows = gates
            .iter()
            .zip(0_i16..)
            .map(|(gate, position)| gate_result::ActiveModel {
                deployment_id: Set(deployment_id),
                gate_id: Set(gate.gate_id),
                position: Set(position),
                gate_name: Set(gate.gate_name.clone()),
                required: Set(gate.required),
                verdict: Set(verdict_name(gate.verdict).to_owned()),
                message: Set(gate.message.clone()),
            });
        gate_result::Entity::insert_many(rows)
            .exec_without_returning(&self.db)
            .await?;
        let rows = gates.iter().flat_map(|gate| {
            gate.conditions
                .iter()
                .zip(0_i16..)
                .map(move |(condition, position)| {
                    condition_row(deployment_id, gate.gate_id, position, condition)
                })
        });
        // In portions, since a statement takes a limited number of parameters.
        let rows: Vec<_> = rows.collect();
        for portion in rows.chunks(500) {
            condition_result::Entity::insert_many(portion.to_vec())
                .exec_without_returning(&self.db)
                .await?;
        }
        Ok(())
    }
}

async fn gates_of<C: ConnectionTrait>(db: &C, prompt_id: &PromptId) -> Result<Vec<Gate>, Error> {
    let rows = gate::Entity::find()
        .filter(gate::Column::PromptId.eq(prompt_id.as_str()))
        .order_by_asc(gate::Column::CreatedAt)
        .order_by_asc(gate::Column::Id)
        .limit(GATES_PER_PROMPT_MAX as u64)
        .all(db)
        .await?;
    if rows.is_empty() {
        return Ok(Vec::new());
    }
    let mut conditions: HashMap<Uuid, Vec<Condition>> = HashMap::new();
    let condition_rows = gate_condition::Entity::find()
        .filter(gate_condition::Column::GateId.is_in(rows.iter().map(|row| row.id)))
        .order_by_asc(gate_condition::Column::Position)
        .all(db)
        .await?;
    for row in condition_rows {
        let columns = ConditionColumns {
            table: "quality_gate_conditions",
            kind: &row.r#type,
            operator: &row.operator,
            threshold: row.threshold,
            source: SourceColumns {
                eval_run_id: row.eval_run_id,
                dataset_id: row.dataset_id,
                url: row.url,
                baseline: row.baseline,
            },
        };
        conditions
            .entry(row.gate_id)
            .or_default()
            .push(columns.read()?);
    }
    rows.into_iter()
        .map(|row| {
            Ok(Gate {
                id: row.id,
                name: row.name,
                prompt_id: prompt_id.clone(),
                conditions: conditions.remove(&row.id).unwrap_or_default(),
                required: row.required,
                created_at: row.created_at,
                created_by: actor(&row.created_by),
            })
        })
        .collect()
}

/// The gate results of several deployments.
pub(super) async fn gate_results<C: ConnectionTrait>(
    db: &C,
    deployments: &[Uuid],
) -> Result<HashMap<Uuid, Vec<GateResult>>, Error> {
    let gates = gate_result::Entity::find()
        .filter(gate_result::Column::DeploymentId.is_in(deployments.iter().copied()))
        .order_by_asc(gate_result::Column::Position)
        .all(db)
        .await?;
    if gates.is_empty() {
        return Ok(HashMap::new());
    }
    let mut conditions: HashMap<(Uuid, Uuid), Vec<ConditionResult>> = HashMap::new();
    let rows = condition_result::Entity::find()
        .filter(condition_result::Column::DeploymentId.is_in(deployments.iter().copied()))
        .order_by_asc(condition_result::Column::Position)
        .all(db)
        .await?;
    for row in rows {
        let columns = ConditionColumns {
            table: "deployment_condition_results",
            kind: &row.r#type,
            operator: &row.operator,
            threshold: row.expected,
            source: SourceColumns {
                eval_run_id: row.eval_run_id,
                dataset_id: row.dataset_id,
                url: row.url,
                baseline: row.baseline,
            },
        };
        let result = ConditionResult {
            condition: columns.read()?,
            actual: row.actual,
            verdict: verdict("deployment_condition_results", &row.verdict)?,
            note: row.note,
            again: match row.ask_after {
                _ if row.ask_ended => Again::Never,
                Some(at) => Again::After(at),
                None => Again::Soon,
            },
        };
        conditions
            .entry((row.deployment_id, row.gate_id))
            .or_default()
            .push(result);
    }
    let mut results: HashMap<Uuid, Vec<GateResult>> = HashMap::new();
    for row in gates {
        let result = GateResult {
            gate_id: row.gate_id,
            gate_name: row.gate_name,
            required: row.required,
            verdict: verdict("deployment_gate_results", &row.verdict)?,
            message: row.message,
            conditions: conditions
                .remove(&(row.deployment_id, row.gate_id))
                .unwrap_or_default(),
        };
        results.entry(row.deployment_id).or_default().push(result);
    }
    Ok(results)
}

fn condition_row(
    deployment_id: Uuid,
    gate_id: Uuid,
    position: i16,
    result: &ConditionResult,
) -> condition_result::ActiveModel {
    let source = SourceColumns::of(&result.condition.source);
    let (ask_after, ask_ended) = match result.again {
        Again::Soon => (None, false),
        Again::After(at) => (Some(at), false),
        Again::Never => (None, true),
    };
    condition_result::ActiveModel {
        deployment_id: Set(deployment_id),
        gate_id: Set(gate_id),
        position: Set(position),
        r#type: Set(result.condition.kind.as_str().to_owned()),
        operator: Set(result.condition.operator.as_str().to_owned()),
        expected: Set(result.condition.threshold),
        eval_run_id: Set(source.eval_run_id),
        dataset_id: Set(source.dataset_id),
        url: Set(source.url),
        baseline: Set(source.baseline),
        actual: Set(result.actual),
        verdict: Set(verdict_name(result.verdict).to_owned()),
        note: Set(result.note.clone()),
        ask_after: Set(ask_after),
        ask_ended: Set(ask_ended),
    }
}

/// A condition as two tables hold it.
struct ConditionColumns<'a> {
    table: &'static str,
    kind: &'a str,
    operator: &'a str,
    threshold: f64,
    source: SourceColumns,
}

/// The source of a condition as two tables hold it.
#[derive(Default)]
struct SourceColumns {
    eval_run_id: String,
    dataset_id: String,
    url: Option<String>,
    baseline: bool,
}

impl ConditionColumns<'_> {
    fn read(self) -> Result<Condition, Error> {
        let corrupt = |what: String| Error::Corrupt {
            table: self.table,
            what,
        };
        let kind = ConditionType::ALL
            .into_iter()
            .find(|kind| kind.as_str() == self.kind)
            .ok_or_else(|| corrupt(format!("type '{}'", self.kind)))?;
        let operator = Operator::ALL
            .into_iter()
            .find(|operator| operator.as_str() == self.operator)
            .ok_or_else(|| corrupt(format!("operator '{}'", self.operator)))?;
        let source = self.source.read(kind).map_err(corrupt)?;
        Ok(Condition {
            kind,
            operator,
            threshold: self.threshold,
            source,
        })
    }
}

impl SourceColumns {
    fn of(source: &Source) -> Self {
        let mut columns = Self::default();
        match source {
            Source::Run(id) => columns.eval_run_id.clone_from(id),
            Source::Dataset(id) => columns.dataset_id.clone_from(id),
            Source::Webhook(endpoint) => columns.url = Some(endpoint.as_str().to_owned()),
            Source::BothVersions(id) => {
                columns.dataset_id.clone_from(id);
                columns.baseline = true;
            }
            Source::SameGate | Source::Outside => {}
        }
        columns
    }

    fn read(self, kind: ConditionType) -> Result<Source, String> {
        Ok(
            match (kind, self.eval_run_id.as_str(), self.dataset_id.as_str()) {
                (ConditionType::Custom, _, _) => match self.url {
                    Some(url) => {
                        let endpoint = Endpoint::parse(&url);
                        Source::Webhook(endpoint.map_err(|why| format!("a url that {why}"))?)
                    }
                    None => Source::Outside,
                },
                (_, "", _) if self.baseline => Source::BothVersions(self.dataset_id),
                (_, "", "") => Source::SameGate,
                (_, "", _) => Source::Dataset(self.dataset_id),
                (_, _, _) => Source::Run(self.eval_run_id),
            },
        )
    }
}

fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Waiting => "WAITING",
        Verdict::Passed => "PASSED",
        Verdict::Failed => "FAILED",
    }
}

fn verdict(table: &'static str, name: &str) -> Result<Verdict, Error> {
    [Verdict::Waiting, Verdict::Passed, Verdict::Failed]
        .into_iter()
        .find(|verdict| verdict_name(*verdict) == name)
        .ok_or_else(|| Error::Corrupt {
            table,
            what: format!("verdict '{name}'"),
        })
}

fn actor(name: &str) -> Actor {
    Actor::parse(name).unwrap_or_else(|_| Actor::system())
}
