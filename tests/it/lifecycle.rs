//! The life of deployments, on every storage: verbs, gates, strategies, the line, the audit trail.

use std::time::Duration;

use serde_json::{Value, json};

use crate::harness::{App, Storage, minutes, on_every_storage};

fn deployment(version: i32, strategy: &Value) -> Value {
    json!({
        "prompt_id": "greeting",
        "environment": "production",
        "to_version": version,
        "strategy": strategy,
        "skip_approval": true,
    })
}

fn immediate() -> Value {
    json!({"type": "DEPLOYMENT_TYPE_IMMEDIATE"})
}

fn gradual() -> Value {
    json!({"type": "DEPLOYMENT_TYPE_GRADUAL", "initial_percentage": 10, "increment": 40, "interval_seconds": 60})
}

fn id(deployment: &Value) -> String {
    deployment["id"].as_str().unwrap().to_owned()
}

fn status(deployment: &Value) -> &str {
    deployment["status"]
        .as_str()
        .unwrap()
        .trim_start_matches("DEPLOYMENT_STATUS_")
}

/// The share of traffic that a candidate has; none where there is no candidate.
async fn share(app: &App) -> Option<u8> {
    let traffic = app.traffic("greeting", "production").await;
    traffic.candidate.map(|candidate| candidate.percentage)
}

async fn stable(app: &App) -> i32 {
    app.traffic("greeting", "production").await.stable_version()
}

async fn verb(app: &App, id: &str, verb: &str, body: Value) -> crate::harness::http::Answer {
    app.rest("POST", &format!("/v1/deployments/{id}/{verb}"), Some(body))
        .await
}

async fn actions(app: &App, id: &str) -> Vec<String> {
    let answer = app
        .rest(
            "GET",
            &format!("/v1/deployments/{id}/events?page_size=100"),
            None,
        )
        .await;
    let events = answer.json()["events"].as_array().unwrap().clone();
    events
        .iter()
        .map(|event| event["action"].as_str().unwrap().to_owned())
        .collect()
}

on_every_storage! {
    async fn approval_sends_it_on_and_an_immediate_one_has_all_traffic_at_once(app: &App) {
        let mut body = deployment(1, &immediate());
        body["skip_approval"] = json!(false);
        body["metadata"] = json!({"ticket": "OPS-7"});
        let created = app.create(body).await;
        assert_eq!(status(&created), "PENDING_APPROVAL");
        assert_eq!(stable(app).await, 0);

        let answer = verb(app, &id(&created), "approve", json!({"comment": "looks good"})).await;
        assert_eq!(answer.status, 200);
        let approved = answer.json()["deployment"].clone();
        assert_eq!(status(&approved), "COMPLETED");
        assert_eq!(approved["metadata"], json!({"ticket": "OPS-7"}));
        assert_eq!(approved["rollout"]["current_percentage"], 100);
        assert_eq!(stable(app).await, 1);
        assert_eq!(actions(app, &id(&created)).await, ["create", "approve", "pass_gates", "start", "complete"]);
    }

    async fn a_gradual_rollout_takes_its_steps_in_time(app: &App) {
        app.create(deployment(1, &immediate())).await;
        let created = app.create(deployment(2, &gradual())).await;
        assert_eq!((status(&created), share(app).await), ("IN_PROGRESS", Some(10)));
        assert_eq!(created["from_version"], 1);
        let mut revision = app.traffic("greeting", "production").await.revision;
        for (seconds, expected) in [(59, Some(10)), (1, Some(50)), (60, Some(90)), (60, None)] {
            app.advance(Duration::from_secs(seconds)).await;
            assert_eq!(share(app).await, expected);
            let now = app.traffic("greeting", "production").await.revision;
            assert_eq!(now > revision, seconds != 59);
            revision = now;
        }
        assert_eq!(status(&app.get(&id(&created)).await), "COMPLETED");
        assert_eq!(stable(app).await, 2);
        assert_eq!(
            actions(app, &id(&created)).await,
            ["create", "pass_gates", "start", "step", "step", "complete"]
        );
    }

    async fn after_an_outage_one_overdue_step_is_taken(app: &App) {
        let created = app.create(deployment(1, &gradual())).await;
        app.advance(minutes(60)).await;
        assert_eq!(share(app).await, Some(50));
        let rollout = app.get(&id(&created)).await["rollout"].clone();
        let next: chrono::DateTime<chrono::Utc> = rollout["next_increment_at"].as_str().unwrap().parse().unwrap();
        assert_eq!(next, app.now() + Duration::from_secs(60));
    }

    async fn a_canary_is_validated_and_a_blue_green_previewed_before_all_traffic(app: &App) {
        let canary = app.create(deployment(1, &json!({"type": "DEPLOYMENT_TYPE_CANARY"}))).await;
        assert_eq!(share(app).await, Some(5));
        app.advance(minutes(5)).await;
        assert_eq!((status(&app.get(&id(&canary)).await), stable(app).await), ("COMPLETED", 1));

        let blue_green = app.create(deployment(2, &json!({"type": "DEPLOYMENT_TYPE_BLUE_GREEN"}))).await;
        assert_eq!((share(app).await, stable(app).await), (Some(0), 1));
        app.advance(minutes(5)).await;
        assert_eq!((status(&app.get(&id(&blue_green)).await), stable(app).await), ("COMPLETED", 2));
    }

    async fn a_rollback_restores_the_version_before_at_once(app: &App) {
        app.create(deployment(1, &immediate())).await;
        let created = app.create(deployment(2, &gradual())).await;
        let answer = verb(app, &id(&created), "rollback", json!({"reason": "regression"})).await;
        assert_eq!(answer.status, 200);
        let body = answer.json();
        assert_eq!(status(&body["deployment"]), "ROLLED_BACK");
        assert_eq!(body["deployment"]["rollout"]["current_percentage"], 0);
        let reverse = &body["rollback_deployment"];
        assert_eq!((status(reverse), &reverse["from_version"], &reverse["to_version"]), ("COMPLETED", &json!(2), &json!(1)));
        assert_eq!(reverse["metadata"]["rollback_from"], created["id"]);
        assert_eq!(app.get(&id(reverse)).await, *reverse);
        assert_eq!((share(app).await, stable(app).await), (None, 1));
        // What has ended moves no more.
        app.advance(minutes(60)).await;
        assert_eq!(status(&app.get(&id(&created)).await), "ROLLED_BACK");
        assert_eq!(stable(app).await, 1);
    }

    async fn with_nothing_to_restore_the_environment_serves_nothing(app: &App) {
        let created = app.create(deployment(1, &immediate())).await;
        let answer = verb(app, &id(&created), "rollback", json!({})).await;
        assert_eq!(answer.json().get("rollback_deployment"), None);
        assert_eq!(stable(app).await, 0);
    }

    async fn only_what_is_served_can_be_rolled_back(app: &App) {
        let first = app.create(deployment(1, &immediate())).await;
        let second = app.create(deployment(2, &gradual())).await;
        let refused = verb(app, &id(&first), "rollback", json!({})).await;
        assert_eq!((refused.status, &refused.json()["reason"]), (409, &json!("ROLLOUT_UNDERWAY")));
        assert!(refused.json()["detail"].as_str().unwrap().contains(&id(&second)));
        app.advance(minutes(1)).await;
        app.advance(minutes(1)).await;
        app.advance(minutes(1)).await;
        let refused = verb(app, &id(&first), "rollback", json!({})).await;
        assert_eq!((refused.status, &refused.json()["reason"]), (409, &json!("DEPLOYMENT_NOT_SERVED")));
        assert!(refused.json()["detail"].as_str().unwrap().contains(&id(&second)));
        assert_eq!(stable(app).await, 2);
    }

    async fn a_cancelled_rollout_gives_its_traffic_back(app: &App) {
        app.create(deployment(1, &immediate())).await;
        let created = app.create(deployment(2, &gradual())).await;
        let answer = verb(app, &id(&created), "cancel", json!({"reason": "changed our minds"})).await;
        let cancelled = answer.json()["deployment"].clone();
        assert_eq!(status(&cancelled), "CANCELLED");
        assert!(cancelled["status_message"].as_str().unwrap().contains("changed our minds"));
        assert_eq!((share(app).await, stable(app).await), (None, 1));
        app.advance(minutes(60)).await;
        assert_eq!(share(app).await, None);
    }

    async fn one_rollout_at_a_time_the_others_wait_in_line(app: &App) {
        let first = app.create(deployment(1, &gradual())).await;
        let second = app.create(deployment(2, &gradual())).await;
        let third = app.create(deployment(3, &immediate())).await;
        for waiting in [&second, &third] {
            assert_eq!((status(waiting), &waiting["gates_passed"]), ("PENDING_GATES", &json!(true)));
            assert!(waiting["status_message"].as_str().unwrap().contains(&id(&first)), "{waiting}");
        }
        // Another environment is another line.
        let mut elsewhere = deployment(9, &gradual());
        elsewhere["environment"] = json!("staging");
        assert_eq!(status(&app.create(elsewhere).await), "IN_PROGRESS");

        verb(app, &id(&first), "cancel", json!({})).await;
        app.tick().await;
        assert_eq!(status(&app.get(&id(&second)).await), "IN_PROGRESS");
        assert_eq!(status(&app.get(&id(&third)).await), "PENDING_GATES");
        for _ in 0..3 {
            app.advance(minutes(1)).await;
        }
        assert_eq!(status(&app.get(&id(&second)).await), "COMPLETED");
        let third = app.get(&id(&third)).await;
        assert_eq!((status(&third), &third["from_version"]), ("COMPLETED", &json!(2)));
        assert_eq!(stable(app).await, 3);
    }

    async fn a_gate_waits_for_its_evidence_and_fails_at_its_deadline(app: &App) {
        let gate = json!({
            "name": "Prod Gate",
            "prompt_id": "greeting",
            "required": true,
            "conditions": [
                {"type": "eval_score", "operator": "gte", "threshold": 0.9, "dataset_id": "golden-set"},
                {"type": "latency", "operator": "lte", "threshold": 500},
            ],
        });
        let answer = app.rest("POST", "/v1/quality-gates", Some(gate)).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let listed = app.rest("GET", "/v1/quality-gates?prompt_id=greeting", None).await.json();
        assert_eq!(listed["quality_gates"][0], answer.json()["quality_gate"]);

        let created = app.create(deployment(1, &immediate())).await;
        assert_eq!((status(&created), &created["gates_passed"]), ("PENDING_GATES", &json!(false)));
        assert!(created["status_message"].as_str().unwrap().contains("eval_score on dataset 'golden-set'"));
        assert_eq!(created["gate_results"][0]["condition_results"][1]["expected"], 500.0);
        app.advance(minutes(59)).await;
        assert_eq!(status(&app.get(&id(&created)).await), "PENDING_GATES");
        app.advance(minutes(1)).await;
        let failed = app.get(&id(&created)).await;
        assert_eq!(status(&failed), "GATES_FAILED");
        assert!(failed["status_message"].as_str().unwrap().contains("golden-set"));
        assert_eq!(failed["gate_results"][0]["passed"], false);
        assert_eq!(stable(app).await, 0);
        // The gate of one prompt is not another's.
        let mut other = deployment(1, &immediate());
        other["prompt_id"] = json!("farewell");
        assert_eq!(status(&app.create(other).await), "COMPLETED");
    }

    async fn an_optional_gate_is_recorded_and_stops_nothing(app: &App) {
        let gate = json!({
            "name": "Nice to have",
            "prompt_id": "greeting",
            "conditions": [{"type": "custom", "operator": "eq", "threshold": 1}],
        });
        app.rest("POST", "/v1/quality-gates", Some(gate)).await;
        let created = app.create(deployment(1, &immediate())).await;
        assert_eq!(status(&created), "PENDING_GATES");
        app.advance(minutes(60)).await;
        let completed = app.get(&id(&created)).await;
        assert_eq!(status(&completed), "COMPLETED");
        assert_eq!(completed["gate_results"][0]["passed"], false);
        assert!(completed["gate_results"][0]["message"].as_str().unwrap().contains("not measured"));
    }

    async fn a_refused_attempt_changes_nothing_and_is_on_record(app: &App) {
        let created = app.create(deployment(1, &immediate())).await;
        let path = format!("/v1/deployments/{}/approve", id(&created));
        let headers = [("content-type", "application/json"), ("x-delos-actor", "mallory"), ("x-request-id", "req-1")];
        let refused = app.rest_with("POST", &path, &headers, "{}").await;
        assert_eq!(refused.status, 409);
        let problem = refused.json();
        assert_eq!(problem["reason"], "DEPLOYMENT_NOT_PENDING_APPROVAL");
        assert!(problem["detail"].as_str().unwrap().contains("COMPLETED"));
        assert!(problem["detail"].as_str().unwrap().contains("PENDING_APPROVAL"));
        assert_eq!(problem["request_id"], "req-1");
        assert_eq!(app.get(&id(&created)).await, created);

        let answer = app.rest("GET", &format!("/v1/deployments/{}/events", id(&created)), None).await;
        let last = answer.json()["events"].as_array().unwrap().last().unwrap().clone();
        assert_eq!(last["action"], "approve");
        assert_eq!((&last["actor"], &last["request_id"]), (&json!("mallory"), &json!("req-1")));
        assert_eq!(last["from_status"], last["to_status"]);
        assert_eq!(last["details"]["refused"], "DEPLOYMENT_NOT_PENDING_APPROVAL");
    }

    async fn lists_are_filtered_and_paged(app: &App) {
        for version in 1..=5 {
            app.create(deployment(version, &immediate())).await;
        }
        let list = async |query: &str| {
            let answer = app.rest("GET", &format!("/v1/deployments?{query}"), None).await;
            assert_eq!(answer.status, 200, "{answer:?}");
            let body = answer.json();
            let versions: Vec<_> = body["deployments"]
                .as_array()
                .unwrap()
                .iter()
                .map(|deployment| deployment["to_version"].as_i64().unwrap())
                .collect();
            (versions, body["total_count"].as_i64().unwrap())
        };
        assert_eq!(list("").await, (vec![5, 4, 3, 2, 1], 5));
        assert_eq!(list("limit=2&offset=1").await, (vec![4, 3], 5));
        assert_eq!(list("status=completed&prompt_id=greeting&environment=production").await.1, 5);
        assert_eq!(list("status=DEPLOYMENT_STATUS_FAILED").await, (vec![], 0));
        assert_eq!(list("prompt_id=other").await, (vec![], 0));

        let newest = app.rest("GET", "/v1/events?page_size=3&action=complete", None).await.json();
        assert_eq!(newest["events"].as_array().unwrap().len(), 3);
        let token = newest["next_page_token"].as_str().unwrap();
        let rest = app.rest("GET", &format!("/v1/events?page_size=3&action=complete&page_token={token}"), None).await.json();
        assert_eq!(rest["events"].as_array().unwrap().len(), 2);
        let other = app.rest("GET", &format!("/v1/events?action=start&page_token={token}"), None).await;
        assert_eq!(other.status, 400);
    }
}
