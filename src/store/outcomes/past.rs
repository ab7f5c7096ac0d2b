//! What is known before outcomes are counted: what is served, what was, and what came before.

use std::collections::{BTreeSet, HashMap, HashSet};

use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait as _, DbBackend, EntityTrait as _, ExprTrait as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _,
    sea_query::{Expr, Func, LockType, OnConflict, Query, SimpleExpr},
};
use uuid::Uuid;

use super::{
    Place, ROWS_MAX,
    rows::{self, COHORTS, read_cohort, read_side},
};
use crate::{
    domain::{
        Timestamp,
        outcome::{AGE_MAX, Cohort, Split, Tally},
    },
    store::{
        Tx,
        aside::Each,
        deployments::percent,
        entity::{cohort, cohort_unit, outcome, traffic},
        error::{Corrupt, Error},
        traffic::{TRAFFIC, name as name_of, read as read_split},
    },
};

/// How many splits of the past are looked through for the one that an outcome belongs to.
const PAST_MAX: u64 = 200;

const OUTCOMES: Each = Each {
    table: "outcomes",
    key: &["id"],
};
/// A unit is looked for in one scope at a time.
const UNITS: Each = Each {
    table: "cohort_units",
    key: &["unit"],
};

/// What can't be read of what is known before: what depends on it is not counted.
#[derive(Debug, Default)]
pub(super) struct Unreadable {
    /// What is served, by the names of the prompt and the environment.
    pub(super) splits: HashSet<String>,
    /// What was.
    pub(super) pasts: HashSet<Place>,
    pub(super) cohorts: HashSet<Uuid>,
    pub(super) outcomes: HashSet<Uuid>,
    /// By scope and key.
    pub(super) units: HashSet<(Uuid, Uuid)>,
}

/// The ids of the rows that can't be read.
fn ids_of<T>(rows: &[Result<T, Corrupt>]) -> impl Iterator<Item = Uuid> {
    let corrupt = rows.iter().filter_map(|row| row.as_ref().err());
    corrupt.filter_map(|corrupt| Uuid::try_parse(&corrupt.key).ok())
}

impl Tx {
    /// What is served of prompts, held until the transaction ends, where it can be read.
    pub(super) async fn hold_splits(
        &self,
        places: &BTreeSet<Place>,
        unreadable: &mut Unreadable,
    ) -> Result<HashMap<Place, Split>, Error> {
        let mut splits = HashMap::new();
        let places: Vec<_> = places.iter().collect();
        for places in places.chunks(ROWS_MAX) {
            let key = Expr::tuple([
                Expr::col(traffic::Column::PromptId),
                Expr::col(traffic::Column::Environment),
            ]);
            let wanted = places.iter().map(|(prompt, environment)| {
                Expr::tuple([prompt.as_str().into(), environment.as_str().into()])
            });
            let rows = traffic::Entity::find()
                .filter(key.is_in(wanted))
                .order_by_asc(traffic::Column::PromptId)
                .order_by_asc(traffic::Column::Environment)
                .lock(LockType::Update);
            let read = |row: traffic::Model| {
                let place = (row.prompt_id.clone(), row.environment.clone());
                Ok((place, row.updated_at, read_split(&row)))
            };
            for row in TRAFFIC.read(&self.db, rows, read).await? {
                let split = row.and_then(|(place, since, traffic)| {
                    let (traffic, past) = (traffic?, Vec::new());
                    let split = Split {
                        traffic,
                        since,
                        past,
                    };
                    Ok((place, split))
                });
                let name = |split: &Result<(Place, Split), Corrupt>| match split {
                    Ok(((prompt, environment), _)) => name_of(prompt, environment),
                    Err(corrupt) => corrupt.key.clone(),
                };
                self.aside.note(TRAFFIC.table, || name(&split), &split);
                match split {
                    Ok((place, split)) => _ = splits.insert(place, split),
                    Err(corrupt) => _ = unreadable.splits.insert(corrupt.key),
                }
            }
        }
        Ok(splits)
    }

    /// The outcomes of these ids that are stored and can be read.
    pub(super) async fn known(
        &self,
        ids: &[Uuid],
        unreadable: &mut Unreadable,
    ) -> Result<HashMap<Uuid, outcome::Model>, Error> {
        let mut known = HashMap::new();
        for ids in ids.chunks(ROWS_MAX) {
            let rows = outcome::Entity::find().filter(self.is_one_of(outcome::Column::Id, ids));
            let read = |row: outcome::Model| {
                read_side(&row.side)?;
                percent(row.band)?;
                Ok(row)
            };
            let rows = OUTCOMES.read(&self.db, rows, read).await?;
            unreadable.outcomes.extend(ids_of(&rows));
            let rows = self
                .aside
                .leave_out(OUTCOMES.table, rows, |row| row.id.to_string());
            known.extend(rows.into_iter().map(|row| (row.id, row)));
        }
        Ok(known)
    }

    /// The cohorts of these ids that are stored and can be read.
    pub(super) async fn cohorts(
        &self,
        ids: HashSet<Uuid>,
        unreadable: &mut Unreadable,
    ) -> Result<HashMap<Uuid, Cohort>, Error> {
        let mut cohorts = HashMap::new();
        let ids: Vec<_> = ids.into_iter().collect();
        for ids in ids.chunks(ROWS_MAX) {
            let rows = cohort::Entity::find().filter(self.is_one_of(cohort::Column::Id, ids));
            let rows = COHORTS.read(&self.db, rows, read_cohort).await?;
            unreadable.cohorts.extend(ids_of(&rows));
            let rows = self
                .aside
                .leave_out(COHORTS.table, rows, |cohort| cohort.id.to_string());
            cohorts.extend(rows.into_iter().map(|cohort| (cohort.id, cohort)));
        }
        Ok(cohorts)
    }

    /// What was served of a prompt for as long as outcomes may be old, the latest first; none where a
    /// part of it can't be read.
    pub(super) async fn past_cohorts(
        &self,
        (prompt, environment): &Place,
        now: Timestamp,
    ) -> Result<Option<Vec<Cohort>>, Error> {
        let rows = cohort::Entity::find()
            .filter(cohort::Column::PromptId.eq(prompt))
            .filter(cohort::Column::Environment.eq(environment))
            // One that began before may still have been served then.
            .filter(cohort::Column::BeganAt.gt(now - AGE_MAX - AGE_MAX))
            .order_by_desc(cohort::Column::BeganAt)
            .limit(PAST_MAX);
        let rows = COHORTS.read(&self.db, rows, read_cohort).await?;
        let is_whole = rows.iter().all(Result::is_ok);
        let rows = self
            .aside
            .leave_out(COHORTS.table, rows, |cohort| cohort.id.to_string());
        Ok(is_whole.then_some(rows))
    }

    /// Stores cohorts, where nobody has before.
    pub(super) async fn insert_cohorts(&self, rows: Vec<cohort::ActiveModel>) -> Result<(), Error> {
        if rows.is_empty() {
            return Ok(());
        }
        let unless_there = OnConflict::column(cohort::Column::Id)
            .do_nothing()
            .to_owned();
        cohort::Entity::insert_many(rows)
            .on_conflict(unless_there)
            .exec_without_returning(&self.db)
            .await?;
        Ok(())
    }

    /// Stores a cohort before anybody comes to it.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn open_cohort(&self, cohort: &Cohort) -> Result<(), Error> {
        self.insert_cohorts(vec![rows::cohort_row(cohort)]).await
    }

    /// What is known of units, by scope and key, where it can be read.
    pub(super) async fn tallies(
        &self,
        units: impl Iterator<Item = (Uuid, Uuid)>,
        unreadable: &mut Unreadable,
    ) -> Result<HashMap<(Uuid, Uuid), Tally>, Error> {
        let mut by_scope: HashMap<Uuid, HashSet<Uuid>> = HashMap::new();
        for (scope, unit) in units {
            by_scope.entry(scope).or_default().insert(unit);
        }
        let mut tallies = HashMap::new();
        for (scope, units) in by_scope {
            let units: Vec<_> = units.into_iter().collect();
            for units in units.chunks(ROWS_MAX) {
                let wanted = Condition::all()
                    .add(cohort_unit::Column::Scope.eq(scope))
                    .add(self.is_one_of(cohort_unit::Column::Unit, units));
                let rows = cohort_unit::Entity::find().filter(wanted);
                let read = |row: cohort_unit::Model| Ok((row.unit, rows::read_tally(&row)?));
                let rows = UNITS.read(&self.db, rows, read).await?;
                let bad = ids_of(&rows).map(|unit| (scope, unit));
                unreadable.units.extend(bad);
                let rows = self
                    .aside
                    .leave_out(UNITS.table, rows, |(unit, _)| unit.to_string());
                tallies.extend(rows.into_iter().map(|(unit, tally)| ((scope, unit), tally)));
            }
        }
        Ok(tallies)
    }

    /// Whether a column has one of these ids.
    ///
    /// PostgreSQL keeps the plan of a statement that it has run a few times. Of one with a parameter
    /// for each id that plan compares every row with every id, where it is made while the table is
    /// small; joined with an array the ids are looked up one by one, however small it was.
    pub(super) fn is_one_of<C: ColumnTrait>(&self, column: C, ids: &[Uuid]) -> SimpleExpr {
        if self.db.get_database_backend() == DbBackend::Postgres {
            let unnested = Func::cust("unnest").arg(ids.to_vec());
            column.in_subquery(Query::select().expr(unnested).to_owned())
        } else {
            column.is_in(ids.iter().copied())
        }
    }
}
