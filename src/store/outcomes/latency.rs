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
    store::{Tx, entity::cohort_latencies, error::Error},
};

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
            if let Some((_, histogram)) = of_row {
                histogram.add(decode(&row.histogram)?).map_err(corrupt)?;
            }
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

/// The quantiles of all of these together; none of nothing.
pub(in crate::store) fn quantiles<'r>(
    rows: impl Iterator<Item = &'r cohort_latencies::Model>,
) -> Result<Option<Quantiles>, Error> {
    let mut all = empty();
    for row in rows {
        all.add(decode(&row.histogram)?).map_err(corrupt)?;
    }
    let milliseconds = |quantile| all.value_at_quantile(quantile) as f64 / 1000.0;
    Ok((!all.is_empty()).then(|| Quantiles {
        p50_ms: milliseconds(0.5),
        p95_ms: milliseconds(0.95),
        p99_ms: milliseconds(0.99),
    }))
}

fn empty() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, DIGITS).expect("the bounds are in order")
}

fn encode(histogram: &Histogram<u64>) -> Result<Vec<u8>, Error> {
    let mut bytes = Vec::new();
    V2Serializer::new()
        .serialize(histogram, &mut bytes)
        .map_err(corrupt)?;
    Ok(bytes)
}

fn decode(bytes: &[u8]) -> Result<Histogram<u64>, Error> {
    let mut bytes = bytes;
    Deserializer::new().deserialize(&mut bytes).map_err(corrupt)
}

fn corrupt(error: impl std::fmt::Debug) -> Error {
    Error::Corrupt {
        table: "cohort_latencies",
        what: format!("{error:?}"),
    }
}
