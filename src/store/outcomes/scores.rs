//! Scores: given to the outcomes that they are of, whenever they come.

use std::collections::{HashMap, HashSet};

use sea_orm::{EntityTrait as _, QueryFilter as _};
use uuid::Uuid;

use super::{Before, Fate, Late, New, ROWS_MAX, TakenIn, rows};
use crate::{
    domain::{Timestamp, outcome::Score},
    store::{Tx, entity::waiting_score, error::Error},
};

impl Tx {
    /// Gives scores to the outcomes that they are of. Those of outcomes that were stored before are
    /// returned with them, and those whose outcome is yet to come.
    pub(super) async fn assign_scores(
        &self,
        scores: &[Score],
        before: &Before,
        seen: &HashMap<Uuid, usize>,
        new: &mut [New<'_>],
        taken: &mut TakenIn,
    ) -> Result<(Vec<Late>, Vec<Score>), Error> {
        self.take_waiting(new).await?;
        let (mut late, mut early) = (Vec::new(), Vec::new());
        let mut scored = HashSet::new();
        for score in scores {
            let of_new = seen.get(&score.outcome).map(|at| &mut new[*at]);
            let known = before.known.get(&score.outcome);
            let fate = if let Some(new) = of_new {
                if new.quality.is_some() {
                    Fate::Known
                } else {
                    new.quality = Some(score.quality);
                    Fate::Stored
                }
            } else if !scored.insert(score.outcome) {
                Fate::Known
            } else if let Some(refusal) = before.refusal(score) {
                Fate::Refused(refusal)
            } else if let Some((row, cohort)) = known.and_then(|row| before.held(row)) {
                if row.quality_score.is_some() {
                    Fate::Known
                } else {
                    late.push((row.clone(), cohort.clone(), score.quality));
                    Fate::Stored
                }
            } else {
                early.push(*score);
                Fate::Stored
            };
            taken.scores.push(fate);
        }
        self.settle_waiting(scores, &mut late, &mut early, taken)
            .await?;
        Ok((late, early))
    }

    /// Scores that wait already, since they came at the same time as their outcomes to different
    /// replicas, were there first.
    async fn settle_waiting(
        &self,
        scores: &[Score],
        late: &mut [Late],
        early: &mut Vec<Score>,
        taken: &mut TakenIn,
    ) -> Result<(), Error> {
        let outcomes = late.iter().map(|(row, ..)| row.id);
        let outcomes = outcomes.chain(early.iter().map(|score| score.outcome));
        let waiting = self.waiting(outcomes).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        let mut found = Vec::new();
        for (row, _, quality) in late {
            if let Some(first) = waiting.get(&row.id) {
                *quality = *first;
                found.push(row.id);
            }
        }
        early.retain(|score| !waiting.contains_key(&score.outcome));
        for (score, fate) in scores.iter().zip(&mut taken.scores) {
            if waiting.contains_key(&score.outcome) {
                *fate = Fate::Known;
            }
        }
        self.forget_waiting(found).await
    }

    /// Notes scores whose outcome is yet to come.
    pub(super) async fn keep_waiting(
        &self,
        scores: Vec<Score>,
        now: Timestamp,
    ) -> Result<(), Error> {
        let rows = scores.into_iter().map(|score| {
            rows::all_set(waiting_score::Model {
                outcome_id: score.outcome,
                quality_score: score.quality,
                received_at: now,
            })
        });
        let rows: Vec<_> = rows.collect();
        for rows in rows.chunks(ROWS_MAX) {
            waiting_score::Entity::insert_many(rows.iter().cloned())
                .exec_without_returning(&self.db)
                .await?;
        }
        Ok(())
    }

    /// The scores of outcomes that came before them.
    pub(super) async fn waiting(
        &self,
        outcomes: impl Iterator<Item = Uuid>,
    ) -> Result<HashMap<Uuid, f64>, Error> {
        let ids: Vec<_> = outcomes.collect();
        let mut waiting = HashMap::new();
        for ids in ids.chunks(ROWS_MAX) {
            let rows = waiting_score::Entity::find()
                .filter(self.is_one_of(waiting_score::Column::OutcomeId, ids))
                .all(&self.db)
                .await?;
            waiting.extend(rows.iter().map(|row| (row.outcome_id, row.quality_score)));
        }
        Ok(waiting)
    }

    /// Gives new outcomes the scores that came before them.
    async fn take_waiting(&self, new: &mut [New<'_>]) -> Result<(), Error> {
        let keys = new.iter().filter(|new| new.quality.is_none());
        let keys: Vec<_> = keys.map(|new| new.outcome.key).collect();
        let waiting = self.waiting(keys.into_iter()).await?;
        if waiting.is_empty() {
            return Ok(());
        }
        for new in new.iter_mut().filter(|new| new.quality.is_none()) {
            new.quality = waiting.get(&new.outcome.key).copied();
        }
        self.forget_waiting(waiting.into_keys().collect()).await
    }

    /// Forgets scores that have found their outcomes.
    pub(super) async fn forget_waiting(&self, outcomes: Vec<Uuid>) -> Result<(), Error> {
        for ids in outcomes.chunks(ROWS_MAX) {
            waiting_score::Entity::delete_many()
                .filter(self.is_one_of(waiting_score::Column::OutcomeId, ids))
                .exec(&self.db)
                .await?;
        }
        Ok(())
    }
}
