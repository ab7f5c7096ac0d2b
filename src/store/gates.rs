//! Quality gates, and the results of the gates that a deployment is bound to.

use std::collections::HashMap;

use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, ConnectionTrait, EntityTrait as _, PaginatorTrait as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _,
};
use uuid::Uuid;

use super::{
    Store, Tx,
    aside::{Aside, Each},
    entity::{condition_result, gate, gate_condition, gate_result},
    error::{Corrupt, Error},
};
use crate::domain::{
    endpoint::Endpoint,
    gate::{Condition, ConditionType, Gate, Operator, Source},
    ids::{Actor, PromptId},
    judgement::{Again, ConditionResult, GateResult, Verdict},
};

const GATES: Each = Each {
    table: "quality_gates",
    key: &["id"],
};
const GATE_CONDITIONS: Each = Each {
    table: "quality_gate_conditions",
    key: &["gate_id"],
};
const GATE_RESULTS: Each = Each {
    table: "deployment_gate_results",
    key: &["deployment_id"],
};
const CONDITION_RESULTS: Each = Each {
    table: "deployment_condition_results",
    key: &["deployment_id"],
};

/// Most gates of a prompt; what is bound to a deployment must stay readable.
pub(crate) const GATES_PER_PROMPT_MAX: usize = 100;

impl Store {
    /// The gates of a prompt, the oldest first: all of them, since one that can't be read is not
    /// passed by leaving it out.
    ///
    /// # Errors
    /// The storage failed, or one of them can't be read.
    pub async fn gates(&self, prompt_id: &PromptId) -> Result<Vec<Gate>, Error> {
        gates_of(self.reader()?, &self.aside, prompt_id).await
    }
}

impl Tx {
    /// The gates of a prompt, the oldest first: all of them, since one that can't be read is not
    /// passed by leaving it out.
    ///
    /// # Errors
    /// The storage failed, or one of them can't be read.
    pub async fn gates(&self, prompt_id: &PromptId) -> Result<Vec<Gate>, Error> {
        gates_of(&self.db, &self.aside, prompt_id).await
    }

    /// How many gates a prompt has, whether they can be read or not.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn gate_count(&self, prompt_id: &PromptId) -> Result<u64, Error> {
        let gates = gate::Entity::find().filter(gate::Column::PromptId.eq(prompt_id.as_str()));
        Ok(gates.count(&self.db).await?)
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

async fn gates_of<C: ConnectionTrait>(
    db: &C,
    aside: &Aside,
    prompt_id: &PromptId,
) -> Result<Vec<Gate>, Error> {
    let gates = gate::Entity::find()
        .filter(gate::Column::PromptId.eq(prompt_id.as_str()))
        .order_by_asc(gate::Column::CreatedAt)
        .order_by_asc(gate::Column::Id)
        .limit(GATES_PER_PROMPT_MAX as u64);
    let rows = GATES.read(db, gates, Ok::<gate::Model, String>).await?;
    let ids = rows.iter().flatten().map(|row| row.id);
    let ids: Vec<Uuid> = ids.collect();
    let mut conditions = conditions_of(db, &ids).await?;
    let gates: Vec<_> = rows
        .into_iter()
        .map(|row| {
            let (key, gate) = match row {
                Ok(row) => {
                    let key = row.id.to_string();
                    let conditions = conditions.remove(&key);
                    (key, read_gate(row, prompt_id, conditions))
                }
                Err(corrupt) => (corrupt.key.clone(), Err(corrupt)),
            };
            aside.note(GATES.table, || key, &gate);
            gate
        })
        .collect();
    Ok(gates.into_iter().collect::<Result<_, _>>()?)
}

/// The conditions of gates, where all of a gate can be read.
async fn conditions_of<C: ConnectionTrait>(
    db: &C,
    gates: &[Uuid],
) -> Result<HashMap<String, Result<Vec<Condition>, Corrupt>>, Error> {
    if gates.is_empty() {
        return Ok(HashMap::new());
    }
    let rows = gate_condition::Entity::find()
        .filter(gate_condition::Column::GateId.is_in(gates.iter().copied()))
        .order_by_asc(gate_condition::Column::Position);
    let read = |row: gate_condition::Model| {
        let columns = ConditionColumns {
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
        Ok((row.gate_id, columns.read()?))
    };
    let rows = GATE_CONDITIONS.read(db, rows, read).await?;
    Ok(grouped(rows))
}

fn read_gate(
    row: gate::Model,
    prompt_id: &PromptId,
    conditions: Option<Result<Vec<Condition>, Corrupt>>,
) -> Result<Gate, Corrupt> {
    let nothing = || Corrupt {
        table: GATE_CONDITIONS.table,
        key: row.id.to_string(),
        what: "the gate has no conditions".to_owned(),
    };
    Ok(Gate {
        conditions: conditions.unwrap_or_else(|| Err(nothing()))?,
        id: row.id,
        name: row.name,
        prompt_id: prompt_id.clone(),
        required: row.required,
        created_at: row.created_at,
        created_by: actor(&row.created_by),
    })
}

/// Rows by the id of what they belong to, in their order. What has one that can't be read can't be
/// read.
fn grouped<T>(rows: Vec<Result<(Uuid, T), Corrupt>>) -> HashMap<String, Result<Vec<T>, Corrupt>> {
    let mut groups: HashMap<String, Result<Vec<T>, Corrupt>> = HashMap::new();
    for row in rows {
        match row {
            Ok((id, value)) => {
                let group = groups.entry(id.to_string());
                if let Ok(group) = group.or_insert_with(|| Ok(Vec::new())) {
                    group.push(value);
                }
            }
            Err(corrupt) => {
                groups.insert(corrupt.key.clone(), Err(corrupt));
            }
        }
    }
    groups
}

/// The gate results of several deployments, where all of a deployment's can be read.
pub(super) async fn gate_results<C: ConnectionTrait>(
    db: &C,
    deployments: &[Uuid],
) -> Result<HashMap<Uuid, Result<Vec<GateResult>, Corrupt>>, Error> {
    let gates = gate_result::Entity::find()
        .filter(gate_result::Column::DeploymentId.is_in(deployments.iter().copied()))
        .order_by_asc(gate_result::Column::Position);
    let read = |row: gate_result::Model| {
        let gate = GateResult {
            gate_id: row.gate_id,
            gate_name: row.gate_name,
            required: row.required,
            verdict: verdict(&row.verdict)?,
            message: row.message,
            conditions: Vec::new(),
        };
        Ok((row.deployment_id, gate))
    };
    let mut gates = grouped(GATE_RESULTS.read(db, gates, read).await?);
    let rows = condition_result::Entity::find()
        .filter(condition_result::Column::DeploymentId.is_in(deployments.iter().copied()))
        .order_by_asc(condition_result::Column::Position);
    let rows = CONDITION_RESULTS.read(db, rows, read_condition).await?;
    let mut conditions = grouped(rows);
    let of_each = deployments.iter().filter_map(|id| {
        let key = id.to_string();
        let gates = gates.remove(&key)?;
        let conditions = conditions.remove(&key).unwrap_or_else(|| Ok(Vec::new()));
        Some((*id, bound(gates, conditions)))
    });
    Ok(of_each.collect())
}

/// Gates with their conditions.
fn bound(
    gates: Result<Vec<GateResult>, Corrupt>,
    conditions: Result<Vec<(Uuid, ConditionResult)>, Corrupt>,
) -> Result<Vec<GateResult>, Corrupt> {
    let mut gates = gates?;
    for (gate_id, condition) in conditions? {
        let gate = gates.iter_mut().find(|gate| gate.gate_id == gate_id);
        if let Some(gate) = gate {
            gate.conditions.push(condition);
        }
    }
    Ok(gates)
}

/// A condition with its gate, by the deployment.
fn read_condition(row: condition_result::Model) -> Result<(Uuid, (Uuid, ConditionResult)), String> {
    let columns = ConditionColumns {
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
        verdict: verdict(&row.verdict)?,
        note: row.note,
        again: match row.ask_after {
            _ if row.ask_ended => Again::Never,
            Some(at) => Again::After(at),
            None => Again::Soon,
        },
    };
    Ok((row.deployment_id, (row.gate_id, result)))
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
    fn read(self) -> Result<Condition, String> {
        let kind = ConditionType::ALL
            .into_iter()
            .find(|kind| kind.as_str() == self.kind)
            .ok_or_else(|| format!("type '{}'", self.kind))?;
        let operator = Operator::ALL
            .into_iter()
            .find(|operator| operator.as_str() == self.operator)
            .ok_or_else(|| format!("operator '{}'", self.operator))?;
        // PostgreSQL knows numbers that are none.
        if !self.threshold.is_finite() {
            return Err(format!("threshold {}", self.threshold));
        }
        Ok(Condition {
            kind,
            operator,
            threshold: self.threshold,
            source: self.source.read(kind)?,
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

fn verdict(name: &str) -> Result<Verdict, String> {
    [Verdict::Waiting, Verdict::Passed, Verdict::Failed]
        .into_iter()
        .find(|verdict| verdict_name(*verdict) == name)
        .ok_or_else(|| format!("verdict '{name}'"))
}

fn actor(name: &str) -> Actor {
    Actor::parse(name).unwrap_or_else(|_| Actor::system())
}
