//! What became of the requests that were served: outcomes, the units they come from, and what they
//! add up to; and the policy by which a rollout is judged.

use sea_orm_migration::{prelude::*, schema::*};

/// See the module.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

/// What is kept of each metric of a unit, and of the units of a group.
const METRICS: [&str; 4] = ["quality", "success", "latency", "cost"];

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in [
            cohorts(),
            sums(),
            latencies(),
            units(),
            outcomes(),
            scores(),
        ] {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        policy(manager).await
    }
}

/// Those who were served under one split.
fn cohorts() -> TableCreateStatement {
    Table::create()
        .table("cohorts")
        .col(uuid("id").primary_key())
        .col(text("prompt_id"))
        .col(text("environment"))
        .col(big_integer("revision"))
        .col(uuid_null("rollout"))
        .col(integer("stable_version"))
        .col(integer("candidate_version"))
        .col(small_integer("share"))
        .col(timestamp_with_time_zone("began_at"))
        .col(double_null("latency_limit_ms"))
        .col(double_null("cost_limit_usd"))
        .col(boolean("has_units").default(true))
        .to_owned()
}

/// What the outcomes of one side of a cohort add up to, for the units in each percent of the bucket.
fn sums() -> TableCreateStatement {
    let mut table = Table::create()
        .table("cohort_sums")
        .col(uuid("cohort_id"))
        .col(text("side"))
        .col(small_integer("band"))
        .col(big_integer("units"))
        .col(big_integer("calls"))
        .col(big_integer("failures"))
        .primary_key(Index::create().col("cohort_id").col("side").col("band"))
        .to_owned();
    for what in ["latency", "cost", "quality"] {
        table
            .col(big_integer(format!("{what}_n")))
            .col(double(format!("{what}_sum")));
    }
    for metric in METRICS {
        table
            .col(big_integer(format!("{metric}_units")))
            .col(double(format!("{metric}_unit_sum")))
            .col(double(format!("{metric}_unit_squares")));
    }
    table
}

/// How latencies are spread, as an encoded histogram.
fn latencies() -> TableCreateStatement {
    Table::create()
        .table("cohort_latencies")
        .col(uuid("cohort_id"))
        .col(text("side"))
        .col(binary("histogram"))
        .primary_key(Index::create().col("cohort_id").col("side"))
        .to_owned()
}

/// What is known of each unit, by a digest of its name.
fn units() -> TableCreateStatement {
    let mut table = Table::create()
        .table("cohort_units")
        .col(uuid("scope"))
        .col(uuid("unit"))
        .col(uuid("cohort_id"))
        .col(text("side"))
        .col(small_integer("band"))
        .col(boolean("has_moved"))
        .primary_key(Index::create().col("scope").col("unit"))
        .to_owned();
    for metric in METRICS {
        table
            .col(integer(format!("{metric}_n")))
            .col(double(format!("{metric}_sum")));
    }
    table
}

/// Each request, for as long as its id has to be known and its score may come.
fn outcomes() -> TableCreateStatement {
    Table::create()
        .table("outcomes")
        .col(uuid("id").primary_key())
        .col(uuid("scope"))
        .col(uuid("cohort_id"))
        .col(text("side"))
        .col(uuid_null("unit"))
        .col(small_integer("band"))
        .col(timestamp_with_time_zone("at"))
        .col(timestamp_with_time_zone("received_at"))
        .col(boolean("error"))
        .col(double_null("latency_ms"))
        .col(double_null("quality_score"))
        .col(double_null("cost_usd"))
        .to_owned()
}

/// Scores that came before their outcomes.
fn scores() -> TableCreateStatement {
    Table::create()
        .table("waiting_scores")
        .col(uuid("outcome_id").primary_key())
        .col(double("quality_score"))
        .col(timestamp_with_time_zone("received_at"))
        .to_owned()
}

fn indexes() -> Vec<IndexCreateStatement> {
    let index = |name: &'static str, table: &'static str, columns: &[&'static str]| {
        let mut index = Index::create();
        index.name(name).table(table);
        for column in columns {
            index.col(*column);
        }
        index
    };
    vec![
        index(
            "cohorts_by_traffic",
            "cohorts",
            &["prompt_id", "environment", "began_at"],
        ),
        index("cohorts_by_rollout", "cohorts", &["rollout", "began_at"]),
        index("cohorts_by_age", "cohorts", &["began_at"]),
        index("outcomes_latest", "outcomes", &["scope", "side", "at"]),
        index("outcomes_by_age", "outcomes", &["received_at"]),
        index("waiting_scores_by_age", "waiting_scores", &["received_at"]),
    ]
}

/// The policy of a strategy, and what there is to warn of before its rollout. The view is made anew,
/// since it has the columns that its table had when it was made.
async fn policy(manager: &SchemaManager<'_>) -> Result<(), DbErr> {
    let connection = manager.get_connection();
    connection
        .execute_unprepared("DROP VIEW deployment_details")
        .await?;
    let strategies = Table::alter()
        .table("deployment_strategies")
        .add_column(json_binary_null("analysis"))
        .to_owned();
    manager.alter_table(strategies).await?;
    let deployments = Table::alter()
        .table("deployments")
        .add_column(text("warning").default(""))
        .to_owned();
    manager.alter_table(deployments).await?;
    let view = crate::m20261124_000001_initial::details(manager.get_database_backend());
    connection.execute_unprepared(&view).await?;
    Ok(())
}
