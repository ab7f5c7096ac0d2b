//! What is known before outcomes are counted: what is served, what was, and what came before.

use std::collections::{BTreeSet, HashMap, HashSet};

use sea_orm::{
    ColumnTrait, Condition, ConnectionTrait as _, DbBackend, EntityTrait as _, ExprTrait as _,
    QueryFilter as _, QueryOrder as _, QuerySelect as _,
    sea_query::{Expr, Func, LockType, OnConflict, Query, SimpleExpr},
};
use uuid::Uuid;

use super::{Place, ROWS_MAX, read_cohort, rows};
use crate::{
    domain::{
        Timestamp,
        outcome::{AGE_MAX, Cohort, Split, Tally},
    },
    store::{
        Tx,
        entity::{cohort, cohort_unit, outcome, traffic},
        error::Error,
        traffic::read_row,
    },
};

/// How many splits of the past are looked through for the one that an outcome belongs to.
const PAST_MAX: u64 = 200;

impl Tx {
    /// What is served of prompts, held until the transaction ends.
    pub(super) async fn hold_splits(
        &self,
        places: &BTreeSet<Place>,
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
                .lock(LockType::Update)
                .all(&self.db)
                .await?;
            for row in rows {
                let since = row.updated_at;
                let place = (row.prompt_id.clone(), row.environment.clone());
                let traffic = read_row(row)?;
                let past = Vec::new();
                splits.insert(
                    place,
                    Split {
                        traffic,
                        since,
                        past,
                    },
                );
            }
        }
        Ok(splits)
    }

    /// The outcomes of these ids that are stored.
    pub(super) async fn known(&self, ids: &[Uuid]) -> Result<HashMap<Uuid, outcome::Model>, Error> {
        let mut known = HashMap::new();
        for ids in ids.chunks(ROWS_MAX) {
            let rows = outcome::Entity::find()
                .filter(self.is_one_of(outcome::Column::Id, ids))
                .all(&self.db)
                .await?;
            known.extend(rows.into_iter().map(|row| (row.id, row)));
        }
        Ok(known)
    }

    /// The cohorts that outcomes belong to.
    pub(super) async fn cohorts_of(
        &self,
        outcomes: impl Iterator<Item = &outcome::Model>,
    ) -> Result<HashMap<Uuid, Cohort>, Error> {
        let ids: HashSet<Uuid> = outcomes.map(|row| row.cohort_id).collect();
        self.cohorts(ids.into_iter().collect()).await
    }

    /// The cohorts of these ids that are stored.
    pub(super) async fn cohorts(&self, ids: Vec<Uuid>) -> Result<HashMap<Uuid, Cohort>, Error> {
        let mut cohorts = HashMap::new();
        for ids in ids.chunks(ROWS_MAX) {
            let rows = cohort::Entity::find()
                .filter(self.is_one_of(cohort::Column::Id, ids))
                .all(&self.db)
                .await?;
            for row in rows {
                cohorts.insert(row.id, read_cohort(row)?);
            }
        }
        Ok(cohorts)
    }

    /// What was served of a prompt for as long as outcomes may be old, the latest first.
    pub(super) async fn past_cohorts(
        &self,
        (prompt, environment): &Place,
        now: Timestamp,
    ) -> Result<Vec<Cohort>, Error> {
        let rows = cohort::Entity::find()
            .filter(cohort::Column::PromptId.eq(prompt))
            .filter(cohort::Column::Environment.eq(environment))
            // One that began before may still have been served then.
            .filter(cohort::Column::BeganAt.gt(now - AGE_MAX - AGE_MAX))
            .order_by_desc(cohort::Column::BeganAt)
            .limit(PAST_MAX)
            .all(&self.db)
            .await?;
        rows.into_iter().map(read_cohort).collect()
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

    /// What is known of units, by scope and key.
    pub(super) async fn tallies(
        &self,
        units: impl Iterator<Item = (Uuid, Uuid)>,
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
                let rows = cohort_unit::Entity::find()
                    .filter(wanted)
                    .all(&self.db)
                    .await?;
                for row in rows {
                    tallies.insert((row.scope, row.unit), rows::read_tally(&row)?);
                }
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
