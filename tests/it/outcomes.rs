//! What became of requests: taken in, counted once, refused one by one, and shown.

use serde_json::{Value, json};

use crate::harness::{
    App, Storage, minutes, on_every_storage,
    users::{good, outcome, report, roll_out, serve},
};

fn canary() -> Value {
    json!({"type": "DEPLOYMENT_TYPE_CANARY", "initial_percentage": 50, "interval_seconds": 3600})
}

async fn status(app: &App, id: &str) -> Value {
    let answer = app
        .rest("GET", &format!("/v1/deployments/{id}/status"), None)
        .await;
    answer.json()
}

/// The share of users whose bucket lies below, by what the split says.
async fn version_of(app: &App, unit: &str) -> i32 {
    let path = format!("/v1/environments/production/prompts/greeting/version?targeting_key={unit}");
    let answer = app.rest("GET", &path, None).await;
    i32::try_from(answer.json()["version"].as_i64().unwrap()).unwrap()
}

on_every_storage! {
    async fn outcomes_are_counted_by_version_and_shown(app: &App) {
        let id = roll_out(app, canary()).await;
        let before = status(app, &id).await;
        assert_eq!(before["current_metrics"], Value::Null);
        assert_eq!(before["convergence"]["wanted_share"], Value::Null);

        let candidates = serve(app, 0, 200, good).await;
        let status = status(app, &id).await;
        let (current, baseline) = (&status["current_metrics"], &status["baseline_metrics"]);
        assert_eq!(current["request_count"], candidates);
        assert_eq!(baseline["request_count"], 200 - candidates);
        assert_eq!(current["unit_count"], candidates.to_string());
        assert_eq!(current["error_rate"], 0.0);
        assert_eq!(current["avg_latency_ms"], 200.0);
        assert_eq!(baseline["avg_latency_ms"], 100.0);
        let p99 = current["latency_p99_ms"].as_f64().unwrap();
        assert!((199.0..=202.0).contains(&p99), "{p99}");
        let quality = current["quality_score"].as_f64().unwrap();
        assert!((0.8..1.0).contains(&quality), "{quality}");
        let convergence = &status["convergence"];
        assert_eq!(convergence["observed_share"], candidates as f64 / 200.0);
        assert_eq!(convergence["wanted_share"], 0.5);
    }

    async fn an_id_counts_once_in_a_batch_and_over_batches(app: &App) {
        let id = roll_out(app, canary()).await;
        let one = outcome("call-1", 1, "ada");
        let twice = json!({"outcomes": [one, one]});
        let first = report(app, twice.clone()).await;
        assert_eq!((&first["accepted"], &first["duplicates"]), (&json!(1), &json!(1)));
        let second = report(app, twice).await;
        assert_eq!((&second["accepted"], &second["duplicates"]), (&json!(0), &json!(2)));
        assert_eq!(status(app, &id).await["baseline_metrics"]["request_count"], 1);
    }

    async fn a_score_counts_whenever_it_comes_and_once(app: &App) {
        let id = roll_out(app, canary()).await;
        let score = |id: &str, score| json!({"outcome_id": id, "quality_score": score});
        // Before its outcome, with it, and after it.
        let early = report(app, json!({"scores": [score("early", 0.2)]})).await;
        assert_eq!(early["accepted"], 1);
        let again = report(app, json!({"scores": [score("early", 0.9)]})).await;
        assert_eq!(again["duplicates"], 1);
        let outcomes = ["early", "with", "late"].map(|id| outcome(id, 1, &format!("of-{id}")));
        let body = json!({"outcomes": outcomes, "scores": [score("with", 0.4)]});
        assert_eq!(report(app, body).await["accepted"], 4);
        let late = report(app, json!({"scores": [score("late", 0.6), score("late", 0.7)]})).await;
        assert_eq!((&late["accepted"], &late["duplicates"]), (&json!(1), &json!(1)));
        let baseline = status(app, &id).await["baseline_metrics"].clone();
        assert_eq!(baseline["score_count"], "3");
        let quality = baseline["quality_score"].as_f64().unwrap();
        assert!((quality - 0.4).abs() < 1e-9, "{quality}");
    }

    async fn what_cant_be_right_is_refused_one_by_one_and_the_rest_counts(app: &App) {
        let id = roll_out(app, canary()).await;
        let with = |field: &str, value: Value| {
            let mut bad = outcome(&format!("bad-{field}-{value}"), 1, "ada");
            bad[field] = value;
            bad
        };
        let bad = [
            (with("prompt_id", json!("nobody-knows")), "PROMPT_UNKNOWN"),
            (with("environment", json!("staging")), "PROMPT_UNKNOWN"),
            (with("version", json!(3)), "VERSION_NOT_SERVED"),
            (with("version", json!(0)), "VERSION_INVALID"),
            (with("unit", json!("")), "UNIT_INVALID"),
            (with("quality_score", json!(1.5)), "SCORE_INVALID"),
            (with("quality_score", json!("NaN")), "SCORE_INVALID"),
            (with("latency_ms", json!("Infinity")), "LATENCY_INVALID"),
            (with("cost_usd", json!(-1)), "COST_INVALID"),
            (with("at", json!("2026-01-01T00:02:00Z")), "AT_IN_FUTURE"),
            (with("at", json!("2025-12-30T00:00:00Z")), "AT_TOO_OLD"),
        ];
        let mut outcomes: Vec<_> = bad.iter().map(|(bad, _)| bad.clone()).collect();
        outcomes.push(outcome("good", 1, "ada"));
        let scores = json!([{"outcome_id": "good", "quality_score": 2}]);
        let answer = report(app, json!({"outcomes": outcomes, "scores": scores})).await;
        assert_eq!(answer["accepted"], 1, "{answer}");
        let refused = answer["refused"].as_array().unwrap();
        assert_eq!(refused.len(), bad.len() + 1, "{answer}");
        for (number, (_, reason)) in bad.iter().enumerate() {
            assert_eq!(refused[number]["index"], number);
            assert_eq!(refused[number]["reason"], *reason, "{}", refused[number]);
        }
        assert_eq!(refused[bad.len()]["index"], outcomes.len());
        assert_eq!(status(app, &id).await["baseline_metrics"]["request_count"], 1);
    }

    async fn what_a_rollout_was_judged_by_does_not_change_when_it_has_ended(app: &App) {
        let id = roll_out(app, canary()).await;
        serve(app, 0, 50, good).await;
        let answer = app
            .rest("POST", &format!("/v1/deployments/{id}/rollback"), Some(json!({"reason": "no"})))
            .await;
        assert_eq!(answer.status, 200);
        let before = status(app, &id).await;
        // A call that was under way, and its score.
        let late = outcome("late", 2, "somebody");
        let score = json!({"outcome_id": "late", "quality_score": 0.1});
        let answer = report(app, json!({"outcomes": [late]})).await;
        assert_eq!(answer["accepted"], 1, "{answer}");
        assert_eq!(report(app, json!({"scores": [score]})).await["accepted"], 1);
        let after = status(app, &id).await;
        assert_eq!(after["current_metrics"], before["current_metrics"]);
        assert_eq!(after["baseline_metrics"], before["baseline_metrics"]);
    }

    async fn an_outcome_counts_where_it_was_served_also_when_it_comes_late(app: &App) {
        let strategy = json!({"type": "DEPLOYMENT_TYPE_GRADUAL", "initial_percentage": 10,
            "increment": 40, "interval_seconds": 600});
        let id = roll_out(app, strategy).await;
        let served_at = app.now();
        app.advance(minutes(10)).await;
        assert_eq!(app.traffic("greeting", "production").await.candidate.unwrap().percentage, 50);
        let mut units = (0..200).map(|number| format!("user-{number}"));
        let mut moved = None;
        for unit in units.by_ref() {
            if version_of(app, &unit).await == 2 {
                moved = Some(unit);
                break;
            }
        }
        let mut late = outcome("late", 1, &moved.unwrap());
        late["at"] = json!(served_at.to_rfc3339());
        assert_eq!(report(app, json!({"outcomes": [late]})).await["accepted"], 1);
        // In the second stage nothing was seen yet.
        let status = status(app, &id).await;
        assert_eq!(status["baseline_metrics"]["request_count"], 1);
        assert_eq!(status["convergence"]["observed_share"], Value::Null);
    }

    async fn old_outcomes_are_forgotten_and_what_they_add_up_to_is_not(app: &App) {
        let id = roll_out(app, canary()).await;
        serve(app, 0, 1500, good).await;
        let answer = app
            .rest("POST", &format!("/v1/deployments/{id}/cancel"), Some(json!({})))
            .await;
        assert_eq!(answer.status, 200);
        let before = status(app, &id).await;
        app.clock.advance(minutes(73 * 60));
        let store = app.service.store();
        let retention = minutes(72 * 60);
        let mut pieces = 0;
        while store.forget_outcomes(retention).await.unwrap() {
            pieces += 1;
            assert!(pieces < 20);
        }
        assert!(pieces > 1, "more than fits in one piece");
        assert_eq!(status(app, &id).await["current_metrics"], before["current_metrics"]);
        // Its id is free again.
        let again = report(app, json!({"outcomes": [outcome("call-1", 1, "user-1")]})).await;
        assert_eq!(again["accepted"], 1, "{again}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_report_of_nothing_or_of_too_much_is_refused_as_a_whole() {
    let app = App::start(Storage::Memory).await;
    roll_out(&app, canary()).await;
    let many: Vec<_> = (0..1001)
        .map(|number| outcome(&format!("call-{number}"), 1, "ada"))
        .collect();
    for body in [json!({}), json!({"outcomes": many})] {
        let answer = app.rest("POST", "/v1/outcomes", Some(body)).await;
        assert_eq!(answer.status, 400);
        assert_eq!(answer.json()["errors"][0]["field"], "outcomes");
    }
    app.finish().await;
}
