//! The first schema: deployments and what belongs to them, gates, the audit trail, the
//! reconciler's work and the traffic table.

use sea_orm_migration::{prelude::*, schema::*};

/// See the module.
#[derive(DeriveMigrationName)]
pub(crate) struct Migration;

#[async_trait::async_trait]
impl MigrationTrait for Migration {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        for table in tables() {
            manager.create_table(table).await?;
        }
        for index in indexes() {
            manager.create_index(index).await?;
        }
        // One rollout at a time for each prompt and environment, whatever the code believes.
        manager
            .get_connection()
            .execute_unprepared(
                "CREATE UNIQUE INDEX one_rollout_at_a_time ON deployments (prompt_id, environment) \
                 WHERE status = 'IN_PROGRESS'",
            )
            .await?;
        let database = manager.get_database_backend();
        manager
            .get_connection()
            .execute_unprepared(&details(database))
            .await?;
        Ok(())
    }
}

/// What belongs to a deployment, in a row, so that it is read with it in one statement: its
/// strategy, its metadata as an object, and whether there are gate results to be read.
pub(crate) fn details(database: sea_orm::DbBackend) -> String {
    let object = if database == sea_orm::DbBackend::Postgres {
        "json_object_agg"
    } else {
        "json_group_object"
    };
    format!(
        "CREATE VIEW deployment_details AS SELECT s.*, \
         (SELECT {object}(m.key, m.value) FROM deployment_metadata m \
          WHERE m.deployment_id = s.deployment_id) AS metadata, \
         EXISTS (SELECT 1 FROM deployment_gate_results g \
          WHERE g.deployment_id = s.deployment_id) AS has_gates \
         FROM deployment_strategies s"
    )
}

fn tables() -> Vec<TableCreateStatement> {
    let mut tables = deployment_tables();
    tables.extend(gate_tables());
    tables.extend(machine_tables());
    tables
}

fn deployment_tables() -> Vec<TableCreateStatement> {
    vec![
        Table::create()
            .table("deployments")
            .col(uuid("id").primary_key())
            .col(text("prompt_id"))
            .col(text("environment"))
            .col(integer("from_version"))
            .col(boolean("from_version_proven"))
            .col(integer("to_version"))
            .col(text("status"))
            .col(text("status_message"))
            .col(boolean("gates_passed"))
            .col(timestamp_with_time_zone_null("gates_due_at"))
            .col(timestamp_with_time_zone("created_at"))
            .col(timestamp_with_time_zone_null("started_at"))
            .col(timestamp_with_time_zone_null("completed_at"))
            .col(text("created_by"))
            .col(text("approved_by"))
            .col(timestamp_with_time_zone("updated_at"))
            .col(big_integer("revision"))
            .col(big_integer("event_count"))
            .to_owned(),
        Table::create()
            .table("deployment_strategies")
            .col(uuid("deployment_id").primary_key())
            .col(text("type"))
            .col(small_integer("initial_percentage"))
            .col(small_integer("increment"))
            .col(integer("interval_seconds"))
            .col(boolean("auto_rollback"))
            .col(double("rollback_threshold"))
            .foreign_key(&mut of_deployment("deployment_strategies"))
            .to_owned(),
        Table::create()
            .table("deployment_rollouts")
            .col(uuid("deployment_id").primary_key())
            .col(small_integer("stage"))
            .col(small_integer("current_percentage"))
            .col(small_integer("target_percentage"))
            .col(timestamp_with_time_zone("last_increment_at"))
            .col(timestamp_with_time_zone_null("next_increment_at"))
            .foreign_key(&mut of_deployment("deployment_rollouts"))
            .to_owned(),
        Table::create()
            .table("deployment_metadata")
            .col(uuid("deployment_id"))
            .col(text("key"))
            .col(text("value"))
            .primary_key(Index::create().col("deployment_id").col("key"))
            .foreign_key(&mut of_deployment("deployment_metadata"))
            .to_owned(),
        Table::create()
            .table("deployment_metrics")
            .col(uuid("id").primary_key())
            .col(uuid("deployment_id"))
            .col(text("arm"))
            .col(timestamp_with_time_zone("at"))
            .col(double("avg_latency_ms"))
            .col(double("error_rate"))
            .col(double("quality_score"))
            .col(big_integer("request_count"))
            .foreign_key(&mut of_deployment("deployment_metrics"))
            .to_owned(),
    ]
}

fn gate_tables() -> Vec<TableCreateStatement> {
    vec![
        Table::create()
            .table("quality_gates")
            .col(uuid("id").primary_key())
            .col(text("name"))
            .col(text("prompt_id"))
            .col(boolean("required"))
            .col(timestamp_with_time_zone("created_at"))
            .col(text("created_by"))
            .to_owned(),
        Table::create()
            .table("quality_gate_conditions")
            .col(uuid("gate_id"))
            .col(small_integer("position"))
            .col(text("type"))
            .col(text("operator"))
            .col(double("threshold"))
            .col(text("eval_run_id"))
            .col(text("dataset_id"))
            .primary_key(Index::create().col("gate_id").col("position"))
            .foreign_key(
                ForeignKey::create()
                    .from("quality_gate_conditions", "gate_id")
                    .to("quality_gates", "id"),
            )
            .to_owned(),
        Table::create()
            .table("deployment_gate_results")
            .col(uuid("deployment_id"))
            .col(uuid("gate_id"))
            .col(small_integer("position"))
            .col(text("gate_name"))
            .col(boolean("required"))
            .col(text("verdict"))
            .col(text("message"))
            .primary_key(Index::create().col("deployment_id").col("gate_id"))
            .foreign_key(&mut of_deployment("deployment_gate_results"))
            .to_owned(),
        Table::create()
            .table("deployment_condition_results")
            .col(uuid("deployment_id"))
            .col(uuid("gate_id"))
            .col(small_integer("position"))
            .col(text("type"))
            .col(text("operator"))
            .col(double("expected"))
            .col(text("eval_run_id"))
            .col(text("dataset_id"))
            .col(double_null("actual"))
            .col(text("verdict"))
            .primary_key(
                Index::create()
                    .col("deployment_id")
                    .col("gate_id")
                    .col("position"),
            )
            .foreign_key(&mut of_deployment("deployment_condition_results"))
            .to_owned(),
    ]
}

fn machine_tables() -> Vec<TableCreateStatement> {
    vec![
        Table::create()
            .table("deployment_events")
            .col(uuid("id").primary_key())
            .col(uuid("deployment_id"))
            .col(big_integer("sequence"))
            .col(text("prompt_id"))
            .col(text("environment"))
            .col(timestamp_with_time_zone("at"))
            .col(text("actor"))
            .col(text("action"))
            .col(text_null("from_status"))
            .col(text("to_status"))
            .col(text("reason"))
            .col(text("request_id"))
            .col(json_binary("details"))
            .foreign_key(&mut of_deployment("deployment_events"))
            .to_owned(),
        // A row for each deployment that the reconciler has something to do for.
        Table::create()
            .table("deployment_work")
            .col(uuid("deployment_id").primary_key())
            .col(text("prompt_id"))
            .col(text("environment"))
            .col(timestamp_with_time_zone("due_at"))
            .col(uuid_null("lease_owner"))
            .col(big_integer("lease_epoch"))
            .col(integer("failures"))
            .foreign_key(&mut of_deployment("deployment_work"))
            .to_owned(),
        Table::create()
            .table("traffic")
            .col(text("prompt_id"))
            .col(text("environment"))
            .col(integer_null("stable_version"))
            .col(uuid_null("stable_deployment_id"))
            .col(integer_null("candidate_version"))
            .col(small_integer_null("candidate_percentage"))
            .col(uuid_null("candidate_deployment_id"))
            .col(big_integer("revision"))
            .col(timestamp_with_time_zone("updated_at"))
            .primary_key(Index::create().col("prompt_id").col("environment"))
            .to_owned(),
        // The last revision given out in each environment. Its row is held until the change that
        // took a revision commits, so that revisions become visible in their order.
        Table::create()
            .table("traffic_revisions")
            .col(text("environment").primary_key())
            .col(big_integer("revision"))
            .to_owned(),
    ]
}

fn of_deployment(table: &'static str) -> ForeignKeyCreateStatement {
    ForeignKey::create()
        .from(table, "deployment_id")
        .to("deployments", "id")
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
            "deployments_newest_first",
            "deployments",
            &["created_at", "id"],
        ),
        index(
            "deployments_by_prompt",
            "deployments",
            &["prompt_id", "environment", "created_at", "id"],
        ),
        index(
            "deployments_by_status",
            "deployments",
            &["status", "created_at", "id"],
        ),
        index(
            "deployments_by_environment",
            "deployments",
            &["environment", "created_at", "id"],
        ),
        index(
            "deployment_metrics_newest",
            "deployment_metrics",
            &["deployment_id", "at"],
        ),
        index(
            "quality_gates_by_prompt",
            "quality_gates",
            &["prompt_id", "created_at", "id"],
        ),
        index(
            "deployment_events_by_prompt",
            "deployment_events",
            &["prompt_id", "id"],
        ),
        index("deployment_work_due", "deployment_work", &["due_at"]),
        index(
            "deployment_work_in_line",
            "deployment_work",
            &["prompt_id", "environment"],
        ),
        index("traffic_changes", "traffic", &["environment", "revision"]),
        index(
            "deployment_events_in_order",
            "deployment_events",
            &["deployment_id", "sequence"],
        )
        .unique()
        .to_owned(),
    ]
}
