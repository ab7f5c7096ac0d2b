-- What CreateDeployment sends to PostgreSQL for a gradual rollout that starts at once, statement by
-- statement and with the same round trips, for pgbench: pgbench -M prepared -D environments=1 -f create.sql.
-- Taken from PostgreSQL's log (log_statement = all). What differs:
--   * the service sends ROLLBACK in front of the first statement, in the same message, which
--     pgbench can't with -M prepared;
--   * the ids, which the service makes itself, come with the time; they sort by time as its do.

\set number random(1, :environments)

-- The check of a session that comes from the pool.
SELECT current_setting('transaction_read_only') = 'off';

BEGIN;

SELECT clock_timestamp() AS now, clock_timestamp() + interval '1 day' AS later, 'bench-' || gen_random_uuid() AS prompt, 'production-' || :number AS environment, ms || right(gen_random_uuid()::text, 23) AS id, ms || right(gen_random_uuid()::text, 23) AS event_1, ms || right(gen_random_uuid()::text, 23) AS event_2, ms || right(gen_random_uuid()::text, 23) AS event_3 FROM (SELECT lpad(to_hex((extract(epoch FROM clock_timestamp()) * 1000)::bigint), 12, '0') AS ms) AS t \gset

SELECT "traffic"."prompt_id", "traffic"."environment", "traffic"."stable_version", "traffic"."stable_deployment_id", "traffic"."candidate_version", "traffic"."candidate_percentage", "traffic"."candidate_deployment_id", "traffic"."revision", "traffic"."updated_at" FROM "traffic" WHERE "traffic"."prompt_id" = :prompt AND "traffic"."environment" = :environment LIMIT 1 FOR UPDATE;

INSERT INTO "traffic" ("prompt_id", "environment", "stable_version", "stable_deployment_id", "candidate_version", "candidate_percentage", "candidate_deployment_id", "revision", "updated_at") VALUES (:prompt, :environment, NULL, NULL, NULL, NULL, NULL, 0, :now) ON CONFLICT ("prompt_id", "environment") DO NOTHING;

SELECT "traffic"."prompt_id", "traffic"."environment", "traffic"."stable_version", "traffic"."stable_deployment_id", "traffic"."candidate_version", "traffic"."candidate_percentage", "traffic"."candidate_deployment_id", "traffic"."revision", "traffic"."updated_at" FROM "traffic" WHERE "traffic"."prompt_id" = :prompt AND "traffic"."environment" = :environment LIMIT 1 FOR UPDATE;

SELECT "quality_gates"."id", "quality_gates"."name", "quality_gates"."prompt_id", "quality_gates"."required", "quality_gates"."created_at", "quality_gates"."created_by" FROM "quality_gates" WHERE "quality_gates"."prompt_id" = :prompt ORDER BY "quality_gates"."created_at" ASC, "quality_gates"."id" ASC LIMIT 100;

-- Who is ahead in line, asked before the start.
SELECT "deployments"."id", "deployments"."prompt_id", "deployments"."environment", "deployments"."from_version", "deployments"."from_version_proven", "deployments"."to_version", "deployments"."status", "deployments"."status_message", "deployments"."gates_passed", "deployments"."gates_due_at", "deployments"."created_at", "deployments"."started_at", "deployments"."completed_at", "deployments"."created_by", "deployments"."approved_by", "deployments"."updated_at", "deployments"."revision", "deployments"."event_count" FROM "deployments" WHERE "deployments"."prompt_id" = :prompt AND "deployments"."environment" = :environment AND "deployments"."id" <> :id AND ("deployments"."status" = 'IN_PROGRESS' OR ("deployments"."status" = 'PENDING_GATES' AND "deployments"."gates_passed" = TRUE AND ("deployments"."created_at" < :now OR ("deployments"."created_at" = :now AND "deployments"."id" < :id)))) ORDER BY "deployments"."status" ASC, "deployments"."created_at" ASC, "deployments"."id" ASC LIMIT 1;

INSERT INTO "deployments" ("id", "prompt_id", "environment", "from_version", "from_version_proven", "to_version", "status", "status_message", "gates_passed", "gates_due_at", "created_at", "started_at", "completed_at", "created_by", "approved_by", "updated_at", "revision", "event_count") VALUES (:id, :prompt, :environment, 0, TRUE, 1, 'IN_PROGRESS', 'version 1 receives 10 % of traffic; 20 % at 2026-11-25T22:35:13.555019Z', TRUE, :later, :now, :now, NULL, 'anonymous', '', :now, 0, 3);

INSERT INTO "deployment_strategies" ("deployment_id", "type", "initial_percentage", "increment", "interval_seconds", "auto_rollback", "rollback_threshold") VALUES (:id, 'GRADUAL', 10, 10, 86400, FALSE, 0);

INSERT INTO "deployment_metadata" ("deployment_id", "key", "value") VALUES (:id, 'team', 'support'), (:id, 'ticket', 'CHG-20417');

INSERT INTO "deployment_rollouts" ("deployment_id", "stage", "current_percentage", "target_percentage", "last_increment_at", "next_increment_at") VALUES (:id, 1, 10, 100, :now, :later) ON CONFLICT ("deployment_id") DO UPDATE SET "stage" = "excluded"."stage", "current_percentage" = "excluded"."current_percentage", "target_percentage" = "excluded"."target_percentage", "last_increment_at" = "excluded"."last_increment_at", "next_increment_at" = "excluded"."next_increment_at";

INSERT INTO "deployment_events" ("id", "deployment_id", "sequence", "prompt_id", "environment", "at", "actor", "action", "from_status", "to_status", "reason", "request_id", "details") VALUES (:event_1, :id, 1, :prompt, :environment, :now, 'anonymous', 'create', NULL, 'PENDING_GATES', '', '01a20fb2-eb07-723f-abd7-e196254a2677', '{"to_version": "1", "from_version": "0", "skip_approval": "true"}'), (:event_2, :id, 2, :prompt, :environment, :now, 'system', 'pass_gates', 'PENDING_GATES', 'PENDING_GATES', '', '01a20fb2-eb07-723f-abd7-e196254a2677', '{"gates": "0"}'), (:event_3, :id, 3, :prompt, :environment, :now, 'system', 'start', 'PENDING_GATES', 'IN_PROGRESS', '', '01a20fb2-eb07-723f-abd7-e196254a2677', '{"from_version": "0", "to_percentage": "10"}');

INSERT INTO "deployment_work" ("deployment_id", "prompt_id", "environment", "due_at", "lease_owner", "lease_epoch", "failures") VALUES (:id, :prompt, :environment, :later, NULL, 0, 0) ON CONFLICT ("deployment_id") DO UPDATE SET "due_at" = "excluded"."due_at", "lease_owner" = "excluded"."lease_owner", "failures" = "excluded"."failures", "lease_epoch" = "deployment_work"."lease_epoch" + 1;

-- Held until COMMIT: the creations in one environment pass here one at a time.
INSERT INTO "traffic_revisions" ("environment", "revision") VALUES (:environment, 1) ON CONFLICT ("environment") DO UPDATE SET "revision" = "traffic_revisions"."revision" + 1 RETURNING "environment", "revision" \gset

UPDATE "traffic" SET "stable_version" = NULL, "stable_deployment_id" = NULL, "candidate_version" = 1, "candidate_percentage" = 10, "candidate_deployment_id" = :id, "revision" = :revision, "updated_at" = :now WHERE "traffic"."prompt_id" = :prompt AND "traffic"."environment" = :environment;

COMMIT;
