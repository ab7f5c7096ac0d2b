//! How latencies are spread: histograms that are merged and stored encoded.
//!
//! Within 1 % of each latency, in microseconds up to a day (`HdrHistogram`, two significant
//! digits).

use std::collections::{BTreeMap, HashMap};

use hdrhistogram::{
    Histogram,
    serialization::{Deserializer, Serializer as _, V2Serializer},
};
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, EntityTrait as _, QueryFilter as _, sea_query::OnConflict,
};
use uuid::Uuid;

use super::rows::side_name;
use crate::{
    domain::outcome::Side,
    store::{
        Tx,
        entity::cohort_latencies,
        error::{Corrupt, Error},
    },
};

const TABLE: &str = "cohort_latencies";
/// A day, in microseconds.
const LONGEST: u64 = 86_400_000_000;
const DIGITS: u8 = 2;

/// How latencies are spread, in milliseconds: so many percent of calls took no longer.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Quantiles {
    /// Half of them.
    pub p50_ms: f64,
    /// 95 %.
    pub p95_ms: f64,
    /// 99 %.
    pub p99_ms: f64,
}

impl Tx {
    /// Adds latencies, in milliseconds, to those of their cohort's side.
    pub(super) async fn add_latencies(
        &self,
        latencies: impl Iterator<Item = ((Uuid, Side), f64)>,
    ) -> Result<(), Error> {
        let mut added: HashMap<(Uuid, &'static str), Histogram<u64>> = HashMap::new();
        for ((cohort, side), latency) in latencies {
            let histogram = added.entry((cohort, side_name(side))).or_insert_with(empty);
            // A latency is at most a day.
            histogram.saturating_record((latency * 1000.0) as u64);
        }
        if added.is_empty() {
            return Ok(());
        }
        let cohorts: Vec<Uuid> = added.keys().map(|(cohort, _)| *cohort).collect();
        let rows = cohort_latencies::Entity::find()
            .filter(cohort_latencies::Column::CohortId.is_in(cohorts))
            .all(&self.db)
            .await?;
        for row in rows {
            let of_row = added
                .iter_mut()
                .find(|((cohort, side), _)| *cohort == row.cohort_id && *side == row.side);
            let Some((key, histogram)) = of_row else {
                continue;
            };
            let key = *key;
            let merged = merge(histogram, &row);
            self.aside.note(TABLE, || name(&row), &merged);
            // What can't be read is not written over.
            if merged.is_err() {
                added.remove(&key);
            }
        }
        if added.is_empty() {
            return Ok(());
        }
        let added: BTreeMap<_, _> = added.into_iter().collect();
        let rows = added.into_iter().map(|((cohort, side), histogram)| {
            Ok(cohort_latencies::ActiveModel {
                cohort_id: Set(cohort),
                side: Set(side.to_owned()),
                histogram: Set(encode(&histogram)?),
            })
        });
        let rows = rows.collect::<Result<Vec<_>, Error>>()?;
        let again = OnConflict::columns([
            cohort_latencies::Column::CohortId,
            cohort_latencies::Column::Side,
        ])
        .update_column(cohort_latencies::Column::Histogram)
        .to_owned();
        cohort_latencies::Entity::insert_many(rows)
            .on_conflict(again)
            .exec_without_returning(&self.db)
            .await?;
        Ok(())
    }
}

/// The quantiles of all of these together; none of nothing, or where one can't be read.
pub(in crate::store) fn quantiles<'r>(
    mut rows: impl Iterator<Item = &'r cohort_latencies::Model>,
) -> Option<Quantiles> {
    let mut all = empty();
    rows.try_for_each(|row| merge(&mut all, row)).ok()?;
    let milliseconds = |quantile| all.value_at_quantile(quantile) as f64 / 1000.0;
    (!all.is_empty()).then(|| Quantiles {
        p50_ms: milliseconds(0.5),
        p95_ms: milliseconds(0.95),
        p99_ms: milliseconds(0.99),
    })
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("the bounds are in order")
}

fn encode(histogram: &Histogram<u64>) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    V2Serializer::new()
        .serialize(histogram, &mut bytes)
        .map_err(|error| Error::Impossible(format!("{error:?}")))?;
    Ok(bytes)
}

/// Adds what a row has to a histogram.
fn merge(all: &mut Histogram<u64>, row: &cohort_latencies::Model) -> Result<(), Corrupt> {
    let corrupt = |what| Corrupt {
        table: TABLE,
        key: name(row),
        what,
    };
    let mut bytes = row.histogram.as_slice();
    let stored: Histogram<u64> = Deserializer::new()
        .deserialize(&mut bytes)
        .map_err(|error| corrupt(format!("{error:?}")))?;
    all.add(stored)
        .map_err(|error| corrupt(format!("{error:?}")))
}

fn name(row: &cohort_latencies::Model) -> String {
    format!("{} of {}", row.side, row.cohort_id)
}
