//! What is done with outcomes after a while: scores find outcomes that came at the same time
//! elsewhere, and what is old is forgotten.

use std::time::Duration;

use sea_orm::{
    ColumnTrait as _, EntityTrait as _, ExprTrait as _, QueryFilter as _, QueryOrder as _,
    QuerySelect as _,
    sea_query::{Expr, Query},
};
use uuid::Uuid;

use super::{Fate, ROWS_MAX, TakenIn};
use crate::{
    domain::{Timestamp, outcome::Score},
    store::{
        Store, Tx,
        entity::{
            cohort, cohort_latencies, cohort_sums, cohort_unit, outcome, traffic, waiting_score,
        },
        error::Error,
    },
};

/// How much is done at once, so that nobody waits for it.
const AT_ONCE: u64 = ROWS_MAX as u64;

impl Store {
    /// Scores that wait for an outcome that is there by now: the two came at the same time, to
    /// different replicas.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn scores_to_match(&self) -> Result<Vec<Score>, Error> {
        let stored = Query::select()
            .column(outcome::Column::Id)
            .from(outcome::Entity)
            .to_owned();
        let rows = waiting_score::Entity::find()
            .filter(waiting_score::Column::OutcomeId.in_subquery(stored))
            .limit(AT_ONCE)
            .all(self.reader()?)
            .await?;
        let score = |row: &waiting_score::Model| Score {
            outcome: row.outcome_id,
            quality: row.quality_score,
        };
        Ok(rows.iter().map(score).collect())
    }

    /// Forgets outcomes, units and cohorts that are older than `retention`, a piece at a time; says
    /// whether there may be more. What a rollout added up to is kept, and its units while it goes on.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn forget_outcomes(&self, retention: Duration) -> Result<bool, Error> {
        self.write(move |tx| {
            crate::store::boxed(async move {
                let before = tx.now().await? - retention;
                let outcomes = tx.forget_outcomes(before).await?;
                let units = tx.forget_units(before).await?;
                Ok(outcomes || units)
            })
        })
        .await
    }
}

impl Tx {
    /// Takes scores that have waited from where they waited.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn claim_scores(&self, scores: &[Score]) -> Result<Vec<Score>, Error> {
        let outcomes = scores.iter().map(|score| score.outcome);
        let waiting = self.waiting(outcomes).await?;
        let claimed = scores.iter().filter(|it| waiting.contains_key(&it.outcome));
        let claimed = claimed.copied().collect();
        self.forget_waiting(waiting.into_keys().collect()).await?;
        Ok(claimed)
    }

    /// Has scores wait on that were claimed and could not be given to their outcomes.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn return_scores(&self, scores: &[Score], taken: &TakenIn) -> Result<(), Error> {
        let fates = scores.iter().zip(&taken.scores);
        let refused = fates.filter(|(_, fate)| matches!(fate, Fate::Refused(_)));
        let refused: Vec<_> = refused.map(|(score, _)| *score).collect();
        if refused.is_empty() {
            return Ok(());
        }
        let now = self.now().await?;
        self.keep_waiting(refused, now).await
    }

    async fn forget_outcomes(&self, before: Timestamp) -> Result<bool, Error> {
        let old: Vec<Uuid> = outcome::Entity::find()
            .select_only()
            .column(outcome::Column::Id)
            .filter(outcome::Column::ReceivedAt.lt(before))
            .order_by_asc(outcome::Column::ReceivedAt)
            .limit(AT_ONCE)
            .into_tuple()
            .all(&self.db)
            .await?;
        let more = old.len() == ROWS_MAX;
        if !old.is_empty() {
            outcome::Entity::delete_many()
                .filter(self.is_one_of(outcome::Column::Id, &old))
                .exec(&self.db)
                .await?;
        }
        waiting_score::Entity::delete_many()
            .filter(waiting_score::Column::ReceivedAt.lt(before))
            .exec(&self.db)
            .await?;
        Ok(more)
    }

    /// Forgets the units of one scope that ended before a moment; then, where nothing was rolled out
    /// in it, all of it.
    async fn forget_units(&self, before: Timestamp) -> Result<bool, Error> {
        let goes_on = Query::select()
            .column(traffic::Column::CandidateDeploymentId)
            .from(traffic::Entity)
            .and_where(traffic::Column::CandidateDeploymentId.is_not_null())
            .to_owned();
        let over = cohort::Column::Rollout
            .is_null()
            .or(cohort::Column::Rollout.not_in_subquery(goes_on));
        let old = cohort::Entity::find()
            .filter(cohort::Column::BeganAt.lt(before))
            .filter(cohort::Column::HasUnits.eq(true))
            .filter(over)
            .order_by_asc(cohort::Column::BeganAt)
            .limit(1)
            .one(&self.db)
            .await?;
        let Some(old) = old else { return Ok(false) };
        let scope = old.rollout.unwrap_or(old.id);
        let units: Vec<Uuid> = cohort_unit::Entity::find()
            .select_only()
            .column(cohort_unit::Column::Unit)
            .filter(cohort_unit::Column::Scope.eq(scope))
            .limit(AT_ONCE)
            .into_tuple()
            .all(&self.db)
            .await?;
        let all = units.len() < ROWS_MAX;
        cohort_unit::Entity::delete_many()
            .filter(cohort_unit::Column::Scope.eq(scope))
            .filter(self.is_one_of(cohort_unit::Column::Unit, &units))
            .exec(&self.db)
            .await?;
        if all && let Some(rollout) = old.rollout {
            cohort::Entity::update_many()
                .col_expr(cohort::Column::HasUnits, Expr::value(false))
                .filter(cohort::Column::Rollout.eq(rollout))
                .exec(&self.db)
                .await?;
        } else if all {
            cohort_sums::Entity::delete_many()
                .filter(cohort_sums::Column::CohortId.eq(old.id))
                .exec(&self.db)
                .await?;
            cohort_latencies::Entity::delete_many()
                .filter(cohort_latencies::Column::CohortId.eq(old.id))
                .exec(&self.db)
                .await?;
            cohort::Entity::delete_by_id(old.id).exec(&self.db).await?;
        }
        Ok(true)
    }
}
