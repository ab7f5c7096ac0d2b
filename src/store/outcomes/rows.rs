//! Rows and what they mean.

use sea_orm::{ActiveModelTrait, ActiveValue::Set, IntoActiveModel, Iterable as _};
use uuid::Uuid;

use super::New;
use crate::{
    domain::{
        Timestamp,
        analysis::Limits,
        outcome::{Cohort, Counted, Group, Side, Sums, Tally, Total, UnitSums},
    },
    store::{
        aside::Each,
        deployments::percent,
        entity::{cohort, cohort_sums, cohort_unit, outcome},
    },
};

pub(in crate::store) fn side_name(side: Side) -> &'static str {
    match side {
        Side::Candidate => "CANDIDATE",
        Side::Stable => "STABLE",
    }
}

pub(in crate::store) fn read_side(name: &str) -> Result<Side, String> {
    [Side::Candidate, Side::Stable]
        .into_iter()
        .find(|side| side_name(*side) == name)
        .ok_or_else(|| format!("side '{name}'"))
}

pub(super) fn cohort_row(cohort: &Cohort) -> cohort::ActiveModel {
    cohort::ActiveModel {
        id: Set(cohort.id),
        prompt_id: Set(cohort.prompt_id.clone()),
        environment: Set(cohort.environment.clone()),
        revision: Set(cohort.revision),
        rollout: Set(cohort.rollout),
        stable_version: Set(cohort.stable_version),
        candidate_version: Set(cohort.candidate_version),
        share: Set(cohort.share.into()),
        began_at: Set(cohort.began_at),
        latency_limit_ms: Set(cohort.limits.latency_ms),
        cost_limit_usd: Set(cohort.limits.cost_usd),
        has_units: Set(true),
    }
}

pub(in crate::store) const COHORTS: Each = Each {
    table: "cohorts",
    key: &["id"],
};

pub(in crate::store) fn read_cohort(row: cohort::Model) -> Result<Cohort, String> {
    Ok(Cohort {
        id: row.id,
        prompt_id: row.prompt_id,
        environment: row.environment,
        revision: row.revision,
        rollout: row.rollout,
        stable_version: row.stable_version,
        candidate_version: row.candidate_version,
        share: percent(row.share)?,
        began_at: row.began_at,
        limits: Limits {
            latency_ms: row.latency_limit_ms,
            cost_usd: row.cost_limit_usd,
        },
    })
}

pub(super) fn outcome_row(new: &New<'_>, now: Timestamp) -> outcome::ActiveModel {
    let (outcome, known) = (new.outcome, &new.outcome.known);
    outcome::ActiveModel {
        id: Set(outcome.key),
        scope: Set(new.cohort.scope()),
        cohort_id: Set(new.cohort.id),
        side: Set(side_name(new.side).to_owned()),
        unit: Set(outcome.unit.as_ref().map(|unit| unit.key)),
        band: Set(new.band.into()),
        at: Set(outcome.at),
        received_at: Set(now),
        error: Set(known.error),
        latency_ms: Set(known.latency_ms),
        quality_score: Set(new.quality),
        cost_usd: Set(known.cost_usd),
    }
}

/// A row with every column set, to be inserted or written over one that is there.
pub(super) fn all_set<A: ActiveModelTrait>(row: impl IntoActiveModel<A>) -> A {
    row.into_active_model().reset_all()
}

pub(super) fn tally_row(scope: Uuid, unit: Uuid, tally: &Tally) -> cohort_unit::ActiveModel {
    let count = |total: Total| Set(i32::try_from(total.n).unwrap_or(i32::MAX));
    let [quality, success, latency, cost] = tally.metrics;
    cohort_unit::ActiveModel {
        scope: Set(scope),
        unit: Set(unit),
        cohort_id: Set(tally.cohort),
        side: Set(side_name(tally.side).to_owned()),
        band: Set(tally.band.into()),
        has_moved: Set(tally.has_moved),
        quality_n: count(quality),
        quality_sum: Set(quality.sum),
        success_n: count(success),
        success_sum: Set(success.sum),
        latency_n: count(latency),
        latency_sum: Set(latency.sum),
        cost_n: count(cost),
        cost_sum: Set(cost.sum),
    }
}

pub(super) fn read_tally(row: &cohort_unit::Model) -> Result<Tally, String> {
    let total = |n: i32, sum| Total {
        n: n.unsigned_abs(),
        sum,
    };
    Ok(Tally {
        cohort: row.cohort_id,
        side: read_side(&row.side)?,
        band: percent(row.band)?,
        has_moved: row.has_moved,
        metrics: [
            total(row.quality_n, row.quality_sum),
            total(row.success_n, row.success_sum),
            total(row.latency_n, row.latency_sum),
            total(row.cost_n, row.cost_sum),
        ],
    })
}

/// The columns that are added to.
pub(super) fn summed() -> impl Iterator<Item = cohort_sums::Column> {
    cohort_sums::Column::iter().filter(|column| {
        !matches!(
            column,
            cohort_sums::Column::CohortId | cohort_sums::Column::Side | cohort_sums::Column::Band
        )
    })
}

pub(super) fn sums_row(group: &Group, sums: &Sums) -> cohort_sums::ActiveModel {
    let [quality, success, latency, cost] = sums.metrics;
    all_set(cohort_sums::Model {
        cohort_id: group.cohort,
        side: side_name(group.side).to_owned(),
        band: group.band.into(),
        units: sums.units,
        calls: sums.calls,
        failures: sums.failures,
        latency_n: sums.latency.n,
        latency_sum: sums.latency.sum,
        cost_n: sums.cost.n,
        cost_sum: sums.cost.sum,
        quality_n: sums.quality.n,
        quality_sum: sums.quality.sum,
        quality_units: quality.n,
        quality_unit_sum: quality.sum,
        quality_unit_squares: quality.squares,
        success_units: success.n,
        success_unit_sum: success.sum,
        success_unit_squares: success.squares,
        latency_units: latency.n,
        latency_unit_sum: latency.sum,
        latency_unit_squares: latency.squares,
        cost_units: cost.n,
        cost_unit_sum: cost.sum,
        cost_unit_squares: cost.squares,
    })
}

pub(in crate::store) fn sums_of(row: &cohort_sums::Model) -> Sums {
    let counted = |n, sum| Counted { n, sum };
    let units = |n, sum, squares| UnitSums { n, sum, squares };
    Sums {
        units: row.units,
        calls: row.calls,
        failures: row.failures,
        latency: counted(row.latency_n, row.latency_sum),
        cost: counted(row.cost_n, row.cost_sum),
        quality: counted(row.quality_n, row.quality_sum),
        metrics: [
            units(
                row.quality_units,
                row.quality_unit_sum,
                row.quality_unit_squares,
            ),
            units(
                row.success_units,
                row.success_unit_sum,
                row.success_unit_squares,
            ),
            units(
                row.latency_units,
                row.latency_unit_sum,
                row.latency_unit_squares,
            ),
            units(row.cost_units, row.cost_unit_sum, row.cost_unit_squares),
        ],
    }
}
