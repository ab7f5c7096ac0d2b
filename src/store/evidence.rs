//! What outcomes say of a rollout: read as one, for the analysis and for whoever asks.

use std::{collections::BTreeMap, sync::LazyLock};

use chrono::TimeDelta;
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, ConnectionTrait, EntityTrait as _, FromQueryResult,
    QueryFilter as _, QueryOrder as _, QuerySelect as _, Statement,
};
use uuid::Uuid;

use super::{
    Store, Tx,
    aside::Aside,
    entity::{cohort, cohort_latencies, cohort_sums, metrics, outcome},
    error::{Corrupt, Error},
    outcomes::{COHORTS, Quantiles, quantiles, read_cohort, read_side, side_name, sums_of},
};
use crate::domain::{
    Timestamp,
    analysis::{Assigned, Calls, Evidence, Metric, MetricEvidence, Moments, Recent, Stratum},
    deployment::Deployment,
    ids::{Environment, PromptId},
    outcome::{Cohort, Metrics, Side, Sums},
};

const SUMS: &str = "cohort_sums";

/// How many calls of the version that is replaced the circuit breaker looks at, at most.
const BESIDE_MAX: u64 = 1000;
/// How long outcomes have been coming at least, when it is said how many come in a day.
const KNOWN_MIN: TimeDelta = TimeDelta::minutes(1);
/// How long before a rollout the version that it replaces is looked at.
const BEFORE: TimeDelta = TimeDelta::hours(48);

/// What has been seen of a rollout.
#[derive(Debug, Clone, PartialEq)]
pub struct Observed {
    /// What it is judged by.
    pub evidence: Evidence,
    /// The version that is rolled out.
    pub candidate: Arm,
    /// The version that it replaces, from requests served beside it.
    pub stable: Arm,
    /// The candidate's share of the units of the latest stage, as it was and as it was meant, 0 to
    /// 1; none where there were none.
    pub share: Option<(f64, f64)>,
}

/// The live metrics of a side.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Arm {
    /// Counts and means.
    pub metrics: Metrics,
    /// How its latencies are spread; none where none is known.
    pub latency: Option<Quantiles>,
}

/// What was reported of a version in the last day.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LastDay {
    /// Units that were seen, of every version, as if the whole day had been as what is known of it.
    pub units: f64,
    metrics: [Moments; 4],
}

impl LastDay {
    /// The version's units by what they showed in a metric.
    #[must_use]
    pub fn of(&self, metric: Metric) -> Moments {
        self.metrics[metric.index()]
    }
}

/// What a side of a cohort adds up to: all of it, and of its metrics only the units that count.
type Sides = BTreeMap<(usize, Side), Sums>;

impl Store {
    /// What has been seen of a rollout; none where it has not begun.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn observed(&self, deployment: &Deployment) -> Result<Option<Observed>, Error> {
        observed(self.reader()?, &self.aside, deployment).await
    }

    /// What was reported of an environment today and yesterday, as if a day, and of the version that it
    /// serves; none where nothing was.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn last_day(
        &self,
        prompt_id: &PromptId,
        environment: &Environment,
        version: i32,
        now: Timestamp,
    ) -> Result<Option<LastDay>, Error> {
        let day = TimeDelta::days(1);
        let rows = cohort::Entity::find()
            .filter(cohort::Column::PromptId.eq(prompt_id.as_str()))
            .filter(cohort::Column::Environment.eq(environment.as_str()))
            .filter(cohort::Column::BeganAt.gt(now - BEFORE))
            .find_with_related(cohort_sums::Entity)
            .all(self.reader()?)
            .await?;
        let first = rows.iter().filter(|(_, sums)| !sums.is_empty());
        let Some(first) = first.map(|(cohort, _)| cohort.began_at).min() else {
            return Ok(None);
        };
        let elapsed = (now - first).max(KNOWN_MIN).num_seconds() as f64;
        let (mut units, mut metrics) = (0, [Moments::default(); 4]);
        for (cohort, sums) in &rows {
            units += sums.iter().map(|row| row.units).sum::<i64>();
            let of_version = cohort.stable_version == version;
            let is_stable = |row: &&cohort_sums::Model| row.side == side_name(Side::Stable);
            add_units(
                &mut metrics,
                sums.iter().filter(|_| of_version).filter(is_stable),
            );
        }
        Ok((units > 0).then(|| LastDay {
            units: units as f64 * day.num_seconds() as f64 / elapsed,
            metrics,
        }))
    }
}

impl Tx {
    /// What has been seen of a rollout; none where it has not begun.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn observed(&self, deployment: &Deployment) -> Result<Option<Observed>, Error> {
        observed(&self.db, &self.aside, deployment).await
    }

    /// What a rollout is judged by; none where it has not begun.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn evidence(&self, deployment: &Deployment) -> Result<Option<Evidence>, Error> {
        let seen = seen(&self.db, &self.aside, deployment).await?;
        Ok(seen.map(|seen| seen.evidence))
    }

    /// Keeps the live metrics of a rollout as they are now.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn put_metrics(
        &self,
        deployment_id: Uuid,
        observed: &Observed,
        now: Timestamp,
    ) -> Result<(), Error> {
        let arms = [
            (Side::Candidate, &observed.candidate),
            (Side::Stable, &observed.stable),
        ];
        let rows = arms.map(|(side, arm)| metrics::ActiveModel {
            id: Set(Uuid::now_v7()),
            deployment_id: Set(deployment_id),
            arm: Set(side_name(side).to_owned()),
            at: Set(now),
            avg_latency_ms: Set(arm.metrics.latency_ms),
            error_rate: Set(arm.metrics.error_rate),
            quality_score: Set(arm.metrics.quality),
            request_count: Set(arm.metrics.calls),
        });
        metrics::Entity::insert_many(rows)
            .exec_without_returning(&self.db)
            .await?;
        Ok(())
    }
}

async fn observed<C: ConnectionTrait>(
    db: &C,
    aside: &Aside,
    deployment: &Deployment,
) -> Result<Option<Observed>, Error> {
    let Some(seen) = seen(db, aside, deployment).await? else {
        return Ok(None);
    };
    let latest = seen.evidence.assignments.last();
    let latest = latest.filter(|stage| stage.candidate + stage.stable > 0);
    Ok(Some(Observed {
        share: latest.map(|stage| {
            let all = (stage.candidate + stage.stable) as f64;
            (stage.candidate as f64 / all, stage.share)
        }),
        candidate: arm(db, &seen, Side::Candidate).await?,
        stable: arm(db, &seen, Side::Stable).await?,
        evidence: seen.evidence,
    }))
}

/// What has been seen of a rollout, without what no verdict depends on.
struct Seen {
    evidence: Evidence,
    cohorts: Vec<Cohort>,
    sides: Sides,
}

async fn seen<C: ConnectionTrait>(
    db: &C,
    aside: &Aside,
    deployment: &Deployment,
) -> Result<Option<Seen>, Error> {
    let Some(rollout) = &deployment.rollout else {
        return Ok(None);
    };
    let mut evidence = Evidence {
        metrics: Vec::new(),
        assignments: Vec::new(),
        recent: Recent::default(),
        waiting_since: rollout
            .next_increment_at
            .unwrap_or(rollout.last_increment_at),
        is_first: deployment.from_version == 0,
    };
    let cohorts = cohort::Entity::find()
        .filter(cohort::Column::Rollout.eq(deployment.id))
        .order_by_asc(cohort::Column::BeganAt)
        .order_by_asc(cohort::Column::Revision);
    let cohorts = COHORTS.read(db, cohorts, read_cohort).await?;
    for cohort in &cohorts {
        let key = |cohort: &Result<Cohort, Corrupt>| match cohort {
            Ok(cohort) => cohort.id.to_string(),
            Err(corrupt) => corrupt.key.clone(),
        };
        aside.note(COHORTS.table, || key(cohort), cohort);
    }
    // A rollout is not judged by a part of what was seen.
    let cohorts = cohorts.into_iter().collect::<Result<Vec<_>, Corrupt>>()?;
    // A rollout's share only grows; after its end it counts as at the end.
    let share = cohorts.iter().map(|cohort| cohort.share).max().unwrap_or(0);
    let sides = sides(db, aside, &cohorts, share).await?;
    if !sides.is_empty() {
        let before = before(db, deployment).await?;
        evidence.metrics = metrics_of(&cohorts, &sides, &before);
        evidence.assignments = assignments(&cohorts, &sides);
        evidence.recent = recent(db, deployment).await?;
    }
    Ok(Some(Seen {
        evidence,
        cohorts,
        sides,
    }))
}

/// Adds up each side of each cohort of a rollout ($1), of the metrics of the version that is replaced
/// only the units that still get it at a share ($2).
static SIDES: LazyLock<String> = LazyLock::new(|| {
    let all = |column: &str| format!("CAST(SUM({column}) AS BIGINT) AS {column}");
    let sum = |column: &str| format!("SUM({column}) AS {column}");
    let counts = "(side = 'CANDIDATE' OR band >= $2)";
    let mut columns: Vec<String> = ["units", "calls", "failures"].map(all).to_vec();
    for what in ["latency", "cost", "quality"] {
        columns.push(all(&format!("{what}_n")));
        columns.push(sum(&format!("{what}_sum")));
    }
    for metric in ["quality", "success", "latency", "cost"] {
        let column = format!("{metric}_units");
        columns.push(format!(
            "CAST(SUM(CASE WHEN {counts} THEN {column} ELSE 0 END) AS BIGINT) AS {column}"
        ));
        for of in ["unit_sum", "unit_squares"] {
            let column = format!("{metric}_{of}");
            columns.push(format!(
                "SUM(CASE WHEN {counts} THEN {column} ELSE 0.0 END) AS {column}"
            ));
        }
    }
    format!(
        "SELECT cohort_id, side, CAST(0 AS SMALLINT) AS band, {} FROM cohort_sums \
         WHERE cohort_id IN (SELECT id FROM cohorts WHERE rollout = $1) GROUP BY cohort_id, side",
        columns.join(", ")
    )
});

/// What each side of each cohort adds up to, added up by the database. Of the metrics of the version
/// that is replaced, only the units count that still get it at `share`.
async fn sides<C: ConnectionTrait>(
    db: &C,
    aside: &Aside,
    cohorts: &[Cohort],
    share: u8,
) -> Result<Sides, Error> {
    if cohorts.is_empty() {
        return Ok(BTreeMap::new());
    }
    let rollout = cohorts.first().and_then(|cohort| cohort.rollout);
    let statement = Statement::from_sql_and_values(
        db.get_database_backend(),
        SIDES.as_str(),
        [rollout.into(), i16::from(share).into()],
    );
    let rows = cohort_sums::Model::find_by_statement(statement)
        .all(db)
        .await?;
    let read = |row: &cohort_sums::Model| {
        let side = read_side(&row.side).map_err(|what| Corrupt {
            table: SUMS,
            key: row.cohort_id.to_string(),
            what,
        });
        let number = cohorts.iter().position(|cohort| cohort.id == row.cohort_id);
        number.map(|number| Ok(((number, side?), sums_of(row))))
    };
    let sides = rows.iter().filter_map(read);
    let sides = sides.collect::<Result<Sides, Corrupt>>();
    aside.note(SUMS, || format!("{rollout:?}"), &sides);
    Ok(sides?)
}

fn metrics_of(cohorts: &[Cohort], sides: &Sides, before: &[Moments; 4]) -> Vec<MetricEvidence> {
    let of = |number: usize, side: Side, metric: usize| {
        let sums = sides.get(&(number, side));
        sums.map_or_else(Moments::default, |sums| sums.metrics[metric].moments())
    };
    let metrics = Metric::ALL.iter().enumerate().map(|(at, metric)| {
        let strata: Vec<Stratum> = (0..cohorts.len())
            .map(|number| Stratum {
                candidate: of(number, Side::Candidate, at),
                stable: of(number, Side::Stable, at),
            })
            .collect();
        let stable = strata.iter().map(|stratum| stratum.stable);
        MetricEvidence {
            metric: *metric,
            stable_before: before[at],
            stable_now: stable.fold(Moments::default(), Moments::merge),
            strata,
        }
    });
    // A metric of which nothing was reported is none.
    let seen = |seen: &MetricEvidence| {
        let pooled = seen.pooled();
        pooled.candidate.n + pooled.stable.n > 0
    };
    metrics.filter(seen).collect()
}

/// Who was assigned to which side, in each stage in which users were split.
fn assignments(cohorts: &[Cohort], sides: &Sides) -> Vec<Assigned> {
    let split = |(_, cohort): &(usize, &Cohort)| cohort.share > 0 && cohort.stable_version > 0;
    let units = |number, side| {
        let sums = sides.get(&(number, side));
        sums.map_or(0, |sums| sums.units.unsigned_abs())
    };
    let stages = cohorts.iter().enumerate().filter(split);
    stages
        .map(|(number, cohort)| Assigned {
            candidate: units(number, Side::Candidate),
            stable: units(number, Side::Stable),
            share: f64::from(cohort.share) / 100.0,
        })
        .collect()
}

/// The units of the version that is replaced, on the days before.
async fn before<C: ConnectionTrait>(
    db: &C,
    deployment: &Deployment,
) -> Result<[Moments; 4], Error> {
    let mut moments = [Moments::default(); 4];
    let Some(started_at) = deployment
        .started_at
        .filter(|_| deployment.from_version > 0)
    else {
        return Ok(moments);
    };
    let rows = cohort::Entity::find()
        .filter(cohort::Column::PromptId.eq(deployment.prompt_id.as_str()))
        .filter(cohort::Column::Environment.eq(deployment.environment.as_str()))
        .filter(cohort::Column::BeganAt.gt(started_at - BEFORE))
        .filter(cohort::Column::BeganAt.lt(started_at))
        .filter(cohort::Column::Rollout.is_null())
        .filter(cohort::Column::StableVersion.eq(deployment.from_version))
        .find_with_related(cohort_sums::Entity)
        .all(db)
        .await?;
    add_units(&mut moments, rows.iter().flat_map(|(_, sums)| sums));
    Ok(moments)
}

/// Adds units by what they showed in each metric.
fn add_units<'r>(moments: &mut [Moments; 4], rows: impl Iterator<Item = &'r cohort_sums::Model>) {
    for row in rows {
        for (moments, sums) in moments.iter_mut().zip(sums_of(row).metrics) {
            *moments = moments.merge(sums.moments());
        }
    }
}

/// The last calls of the candidate, and those of the other version since the first of them.
async fn recent<C: ConnectionTrait>(db: &C, deployment: &Deployment) -> Result<Recent, Error> {
    let breaker = &deployment.strategy.analysis.breaker;
    if breaker.calls == 0 {
        return Ok(Recent::default());
    }
    let latest = async |side: Side, since: Option<Timestamp>, limit: u64| {
        let mut calls = outcome::Entity::find()
            .select_only()
            .column(outcome::Column::At)
            .column(outcome::Column::Error)
            .filter(outcome::Column::Scope.eq(deployment.id))
            .filter(outcome::Column::Side.eq(side_name(side)));
        if let Some(since) = since {
            calls = calls.filter(outcome::Column::At.gte(since));
        }
        calls
            .order_by_desc(outcome::Column::At)
            .limit(limit)
            .into_tuple::<(Timestamp, bool)>()
            .all(db)
            .await
    };
    let count = |calls: &[(Timestamp, bool)]| Calls {
        all: calls.len() as u64,
        failed: calls.iter().filter(|(_, failed)| *failed).count() as u64,
    };
    let of_candidate = latest(Side::Candidate, None, breaker.calls).await?;
    let candidate = count(&of_candidate);
    // What happens to the other one matters only where most have failed.
    if candidate.all < breaker.calls || candidate.failed < breaker.failed {
        let stable = Calls::default();
        return Ok(Recent { candidate, stable });
    }
    let since = of_candidate.last().map(|(at, _)| *at);
    let stable = count(&latest(Side::Stable, since, BESIDE_MAX).await?);
    Ok(Recent { candidate, stable })
}

async fn arm<C: ConnectionTrait>(db: &C, seen: &Seen, side: Side) -> Result<Arm, Error> {
    let of_side = seen.sides.iter().filter(|((_, other), _)| *other == side);
    let sums = of_side.fold(Sums::default(), |all, (_, sums)| all.plus(sums));
    if sums.latency.n == 0 {
        let (metrics, latency) = (sums.metrics(), None);
        return Ok(Arm { metrics, latency });
    }
    let rows = cohort_latencies::Entity::find()
        .filter(
            cohort_latencies::Column::CohortId.is_in(seen.cohorts.iter().map(|cohort| cohort.id)),
        )
        .filter(cohort_latencies::Column::Side.eq(side_name(side)))
        .all(db)
        .await?;
    Ok(Arm {
        metrics: sums.metrics(),
        latency: quantiles(rows.iter()),
    })
}
