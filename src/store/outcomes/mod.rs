//! Outcomes: taken in, counted once, and added up.
//!
//! The row of each prompt's traffic is held first, so that what is served does not change while it
//! is looked up what an outcome belongs to, and so that two who count the same unit come one after
//! the other.

mod latency;
mod past;
mod rows;
mod scores;
mod sweep;

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use sea_orm::{
    EntityTrait as _, ExprTrait as _, Iterable as _,
    sea_query::{Expr, OnConflict},
};
use uuid::Uuid;

use super::{
    Tx,
    deployments::percent,
    entity::{cohort_sums, cohort_unit, outcome},
    error::Error,
    traffic::name,
};
use crate::domain::{
    Timestamp,
    outcome::{
        Cohort, Fold, Group, Known, Outcome, Reason, Refusal, Score, Side, Split, Sums, Tally,
    },
};

pub use latency::Quantiles;
pub(super) use latency::quantiles;
use past::Unreadable;
pub(super) use rows::{COHORTS, read_cohort, read_side, side_name, sums_of};

/// How many rows a statement writes at most: databases limit its parameters.
const ROWS_MAX: usize = 1000;

/// What became of what was to be taken in.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TakenIn {
    /// Each outcome, in the order in which they were given.
    pub outcomes: Vec<Fate>,
    /// Each score.
    pub scores: Vec<Fate>,
    /// The deployments for which there is new evidence.
    pub rollouts: BTreeSet<Uuid>,
}

/// What became of an outcome or a score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is stored.
    Stored,
    /// It was known already.
    Known,
    /// It can't be right.
    Refused(Refusal),
}

/// A prompt in an environment.
type Place = (String, String);

/// An outcome that is new, and where it belongs.
struct New<'a> {
    outcome: &'a Outcome,
    cohort: Cohort,
    side: Side,
    band: u8,
    quality: Option<f64>,
    is_open: bool,
}

/// An outcome that is stored, where it belongs, and the score that has come for it.
type Late = (outcome::Model, Cohort, f64);

/// What is known before anything is written.
struct Before {
    now: Timestamp,
    splits: HashMap<Place, Split>,
    /// The outcomes of these ids that are stored already.
    known: HashMap<Uuid, outcome::Model>,
    /// The cohorts that those and the new ones belong to, where they are stored.
    cohorts: HashMap<Uuid, Cohort>,
    /// What is known of units, by scope and key.
    tallies: HashMap<(Uuid, Uuid), Tally>,
    unreadable: Unreadable,
}

impl Tx {
    /// Stores outcomes and scores, and counts those that are new.
    ///
    /// # Errors
    /// The storage failed, or somebody else stored one of them meanwhile.
    pub async fn take_in(&self, outcomes: &[Outcome], scores: &[Score]) -> Result<TakenIn, Error> {
        let before = self.before(outcomes, scores).await?;
        let mut taken = TakenIn::default();
        let mut new = Vec::new();
        let mut seen: HashMap<Uuid, usize> = HashMap::new();
        for outcome in outcomes {
            let fate = if before.is_known(outcome) || seen.contains_key(&outcome.key) {
                Fate::Known
            } else {
                match before.place(outcome) {
                    Ok(placed) => {
                        seen.insert(outcome.key, new.len());
                        new.push(placed);
                        Fate::Stored
                    }
                    Err(refusal) => Fate::Refused(refusal),
                }
            };
            taken.outcomes.push(fate);
        }
        self.insert_missing(&before, &new).await?;
        let (late, early) = self
            .assign_scores(scores, &before, &seen, &mut new, &mut taken)
            .await?;
        let open = new.iter().filter(|new| new.is_open);
        taken.rollouts = open.filter_map(|new| new.cohort.rollout).collect();
        let late_open = late.iter().filter(|(_, cohort, _)| before.is_open(cohort));
        let late_rollouts = late_open.filter_map(|(_, cohort, _)| cohort.rollout);
        taken.rollouts.extend(late_rollouts);
        self.count(&before, &new, &late).await?;
        self.write_outcomes(&before, &new, &late).await?;
        self.keep_waiting(early, before.now).await?;
        Ok(taken)
    }

    /// Holds what is served of every prompt that comes up, and reads what is known of each id, of the
    /// cohorts and of the units.
    async fn before(&self, outcomes: &[Outcome], scores: &[Score]) -> Result<Before, Error> {
        let now = self.now().await?;
        let mut bad = Unreadable::default();
        let scored: Vec<Uuid> = scores.iter().map(|score| score.outcome).collect();
        let mut places: BTreeSet<Place> = outcomes.iter().map(place_of).collect();
        let of_scores = self.known(&scored, &mut bad).await?;
        let cohorts = of_scores.values().map(|row| row.cohort_id).collect();
        let cohorts = self.cohorts(cohorts, &mut bad).await?;
        let of_cohort = |cohort: &Cohort| (cohort.prompt_id.clone(), cohort.environment.clone());
        places.extend(cohorts.values().map(of_cohort));
        let mut splits = self.hold_splits(&places, &mut bad).await?;
        let keys: HashSet<Uuid> = outcomes.iter().map(|outcome| outcome.key).collect();
        let keys: Vec<Uuid> = keys.into_iter().chain(scored).collect();
        // Only now: before, somebody else could still store one of them.
        let known = self.known(&keys, &mut bad).await?;
        let needs_past = outcomes.iter().filter_map(|outcome| {
            let place = place_of(outcome);
            splits.get(&place)?.needs_past(outcome).then_some(place)
        });
        for place in needs_past.collect::<BTreeSet<_>>() {
            match (
                self.past_cohorts(&place, now).await?,
                splits.get_mut(&place),
            ) {
                (Some(past), Some(split)) => split.past = past,
                (None, _) => _ = bad.pasts.insert(place),
                (Some(_), None) => {}
            }
        }
        let mut before = Before {
            now,
            splits,
            known,
            cohorts: HashMap::new(),
            tallies: HashMap::new(),
            unreadable: bad,
        };
        self.read_counted(&mut before, outcomes, scores).await?;
        Ok(before)
    }

    /// Reads the cohorts and the units that are added to.
    async fn read_counted(
        &self,
        before: &mut Before,
        outcomes: &[Outcome],
        scores: &[Score],
    ) -> Result<(), Error> {
        let new = outcomes.iter().filter(|it| !before.is_known(it));
        let new: Vec<_> = new.filter_map(|it| before.place(it).ok()).collect();
        let cohorts = new.iter().map(|new| new.cohort.id);
        let cohorts = cohorts.chain(before.known.values().map(|row| row.cohort_id));
        let cohorts = cohorts.collect();
        let open = new.iter().filter(|new| new.is_open);
        let units =
            open.filter_map(|new| Some((new.cohort.scope(), new.outcome.unit.as_ref()?.key)));
        let units: Vec<_> = units.collect();
        before.cohorts = self.cohorts(cohorts, &mut before.unreadable).await?;
        let late = scores.iter().filter_map(|score| {
            let row = before.known.get(&score.outcome)?;
            let is_counted = row.quality_score.is_none()
                && before
                    .cohorts
                    .get(&row.cohort_id)
                    .is_some_and(|it| before.is_open(it));
            Some((row.scope, row.unit?)).filter(|_| is_counted)
        });
        let units: Vec<_> = units.into_iter().chain(late).collect();
        let tallies = self.tallies(units.into_iter(), &mut before.unreadable);
        before.tallies = tallies.await?;
        Ok(())
    }

    /// Stores those cohorts that nobody has come to before.
    async fn insert_missing(&self, before: &Before, new: &[New<'_>]) -> Result<(), Error> {
        let cohorts: BTreeMap<Uuid, &Cohort> =
            new.iter().map(|new| (new.cohort.id, &new.cohort)).collect();
        let missing = cohorts
            .values()
            .filter(|it| !before.cohorts.contains_key(&it.id));
        let missing = missing.map(|cohort| rows::cohort_row(cohort)).collect();
        self.insert_cohorts(missing).await
    }

    /// Adds what is new to what is known of the units and of the groups.
    async fn count(&self, before: &Before, new: &[New<'_>], late: &[Late]) -> Result<(), Error> {
        let new: Vec<_> = new.iter().filter(|new| new.is_open).collect();
        let late: Vec<_> = late
            .iter()
            .filter(|(_, cohort, _)| before.is_open(cohort))
            .collect();
        let mut fold = Fold::over(before.tallies.clone());
        for new in &new {
            let unit = new.outcome.unit.as_ref().map(|unit| (unit.key, new.band));
            let known = Known {
                quality_score: new.quality,
                ..new.outcome.known
            };
            fold.call(&new.cohort, new.side, unit, &known);
        }
        for (row, cohort, quality) in late {
            // Both could be read, or it would not be here.
            let (Ok(side), Ok(band)) = (rows::read_side(&row.side), percent(row.band)) else {
                continue;
            };
            fold.score(cohort, side, row.unit.map(|unit| (unit, band)), *quality);
        }
        let (tallies, sums) = fold.finish();
        self.put_tallies(tallies).await?;
        self.add_sums(sums).await?;
        let latencies = new.iter().filter_map(|new| {
            let latency = new.outcome.known.latency_ms?;
            Some(((new.cohort.id, new.side), latency))
        });
        self.add_latencies(latencies).await
    }

    async fn write_outcomes(
        &self,
        before: &Before,
        new: &[New<'_>],
        late: &[Late],
    ) -> Result<(), Error> {
        let rows: Vec<_> = new
            .iter()
            .map(|new| rows::outcome_row(new, before.now))
            .collect();
        for rows in rows.chunks(ROWS_MAX) {
            outcome::Entity::insert_many(rows.iter().cloned())
                .exec_without_returning(&self.db)
                .await?;
        }
        let scored = late.iter().map(|(row, _, quality)| outcome::Model {
            quality_score: Some(*quality),
            ..row.clone()
        });
        let rows: Vec<_> = scored.map(rows::all_set).collect();
        let again = OnConflict::column(outcome::Column::Id)
            .update_column(outcome::Column::QualityScore)
            .to_owned();
        for rows in rows.chunks(ROWS_MAX) {
            outcome::Entity::insert_many(rows.iter().cloned())
                .on_conflict(again.clone())
                .exec_without_returning(&self.db)
                .await?;
        }
        Ok(())
    }

    async fn put_tallies(&self, tallies: HashMap<(Uuid, Uuid), Tally>) -> Result<(), Error> {
        let key = [cohort_unit::Column::Scope, cohort_unit::Column::Unit];
        let rest = cohort_unit::Column::iter().filter(|column| {
            !matches!(
                column,
                cohort_unit::Column::Scope | cohort_unit::Column::Unit
            )
        });
        let again = OnConflict::columns(key).update_columns(rest).to_owned();
        // In one order, as all who write several rows.
        let tallies: BTreeMap<_, _> = tallies.into_iter().collect();
        let rows: Vec<_> = tallies
            .iter()
            .map(|((scope, unit), tally)| rows::tally_row(*scope, *unit, tally))
            .collect();
        for rows in rows.chunks(ROWS_MAX) {
            cohort_unit::Entity::insert_many(rows.iter().cloned())
                .on_conflict(again.clone())
                .exec_without_returning(&self.db)
                .await?;
        }
        Ok(())
    }

    async fn add_sums(&self, sums: HashMap<Group, Sums>) -> Result<(), Error> {
        let mut again = OnConflict::columns([
            cohort_sums::Column::CohortId,
            cohort_sums::Column::Side,
            cohort_sums::Column::Band,
        ]);
        for column in rows::summed() {
            let stored = Expr::col((cohort_sums::Entity, column));
            let added = Expr::col(("excluded", column));
            again.value(column, stored.add(added));
        }
        let sums: BTreeMap<_, _> = sums.into_iter().collect();
        let rows: Vec<_> = sums
            .iter()
            .map(|(group, sums)| rows::sums_row(group, sums))
            .collect();
        for rows in rows.chunks(ROWS_MAX) {
            cohort_sums::Entity::insert_many(rows.iter().cloned())
                .on_conflict(again.clone())
                .exec_without_returning(&self.db)
                .await?;
        }
        Ok(())
    }
}

impl Before {
    /// Whether an outcome is stored already.
    fn is_known(&self, outcome: &Outcome) -> bool {
        self.known.contains_key(&outcome.key) || self.unreadable.outcomes.contains(&outcome.key)
    }

    /// Where an outcome belongs.
    fn place<'a>(&self, outcome: &'a Outcome) -> Result<New<'a>, Refusal> {
        let place = place_of(outcome);
        if self.unreadable.splits.contains(&name(&place.0, &place.1)) {
            return Err(corrupt("what is served"));
        }
        let split = self.splits.get(&place);
        let served = split.filter(|split| split.traffic.revision > 0);
        let Some(split) = served else {
            return Err(Refusal {
                reason: Reason::PromptUnknown,
                message: format!(
                    "no version of prompt '{}' has ever been served in {}",
                    outcome.prompt_id, outcome.environment
                ),
            });
        };
        if self.unreadable.pasts.contains(&place) && split.needs_past(outcome) {
            return Err(corrupt("what was served"));
        }
        let mut cohort = split.cohort_of(outcome)?;
        let is_open = split.is_open(&cohort);
        let unit = outcome.unit.as_ref();
        self.check_readable(&cohort, unit.map(|unit| unit.key).filter(|_| is_open))?;
        // What calls may take only the rollout knows.
        if let Some(stored) = self.cohorts.get(&cohort.id) {
            cohort.limits = stored.limits;
        }
        let band = unit.map_or(0, |unit| cohort.band(&unit.name));
        // It serves the version, or it would not have been found.
        let side = cohort.side(outcome.version, band).unwrap_or(Side::Stable);
        Ok(New {
            outcome,
            is_open,
            cohort,
            side,
            band,
            quality: outcome.known.quality_score,
        })
    }

    /// Whether what an outcome is added to can be read.
    fn check_readable(&self, cohort: &Cohort, unit: Option<Uuid>) -> Result<(), Refusal> {
        let bad = &self.unreadable;
        if bad.cohorts.contains(&cohort.id) {
            return Err(corrupt("what it is counted in"));
        }
        if unit.is_some_and(|unit| bad.units.contains(&(cohort.scope(), unit))) {
            return Err(corrupt("what is known of its unit"));
        }
        Ok(())
    }

    /// Why a score can't be given to its outcome, where that is stored and can't be read, or what it is
    /// added to can't.
    fn refusal(&self, score: &Score) -> Option<Refusal> {
        if self.unreadable.outcomes.contains(&score.outcome) {
            return Some(corrupt("its outcome"));
        }
        let row = self.known.get(&score.outcome)?;
        if self.unreadable.cohorts.contains(&row.cohort_id) {
            return Some(corrupt("what it is counted in"));
        }
        let cohort = self.cohorts.get(&row.cohort_id)?;
        let place = name(&cohort.prompt_id, &cohort.environment);
        if self.unreadable.splits.contains(&place) {
            return Some(corrupt("what is served"));
        }
        self.check_readable(cohort, row.unit).err()
    }

    /// An outcome that is stored, where its traffic is held.
    fn held<'a>(&'a self, row: &'a outcome::Model) -> Option<(&'a outcome::Model, &'a Cohort)> {
        let cohort = self.cohorts.get(&row.cohort_id)?;
        self.split_of(cohort).map(|_| (row, cohort))
    }

    fn is_open(&self, cohort: &Cohort) -> bool {
        let split = self.split_of(cohort);
        split.is_some_and(|split| split.is_open(cohort))
    }

    fn split_of(&self, cohort: &Cohort) -> Option<&Split> {
        let place = (cohort.prompt_id.clone(), cohort.environment.clone());
        self.splits.get(&place)
    }
}

/// That something can't be read, which its alarm tells more of.
fn corrupt(what: &str) -> Refusal {
    Refusal {
        reason: Reason::CorruptRow,
        message: format!(
            "{what} can't be read, so that this can't be counted; send it again once an operator has put \
             that right"
        ),
    }
}

fn place_of(outcome: &Outcome) -> Place {
    (
        outcome.prompt_id.to_string(),
        outcome.environment.to_string(),
    )
}
