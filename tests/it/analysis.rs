//! Rollouts go by what becomes of the requests that they serve.

use serde_json::{Value, json};

use crate::harness::{
    App, Storage,
    binary::Binary,
    http, minutes, on_every_storage, on_lasting_storage, settings, until,
    users::{broken, good, outcome, report, roll_out, roll_out_at, serve, worse},
};

fn canary(auto_rollback: bool) -> Value {
    json!({
        "type": "DEPLOYMENT_TYPE_CANARY",
        "initial_percentage": 50,
        "interval_seconds": 300,
        "auto_rollback": auto_rollback,
    })
}

async fn state(app: &App, id: &str) -> String {
    let status = app.get(id).await["status"].as_str().unwrap().to_owned();
    status.trim_start_matches("DEPLOYMENT_STATUS_").to_owned()
}

async fn explain(app: &App, id: &str) -> Value {
    let path = format!("/v1/deployments/{id}/explain");
    let answer = app.rest("GET", &path, None).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

fn check<'v>(explained: &'v Value, kind: &str, metric: &str) -> &'v Value {
    let checks = explained["checks"].as_array().unwrap();
    let found = checks
        .iter()
        .find(|check| check["kind"] == kind && check["metric"] == metric);
    found.unwrap_or_else(|| panic!("no {kind} of {metric} in {explained}"))
}

async fn last_event(app: &App, id: &str) -> Value {
    let path = format!("/v1/deployments/{id}/events?page_size=100");
    let events = app.rest("GET", &path, None).await.json();
    events["events"].as_array().unwrap().last().unwrap().clone()
}

on_every_storage! {
    async fn a_worse_version_is_rolled_back_with_its_numbers_on_record(app: &App) {
        let id = roll_out(app, canary(true)).await;
        serve(app, 0, 400, worse).await;
        app.tick().await;
        assert_eq!(state(app, &id).await, "ROLLED_BACK");
        let traffic = app.traffic("greeting", "production").await;
        assert_eq!((traffic.stable_version(), traffic.candidate), (1, None));

        let event = last_event(app, &id).await;
        assert_eq!(event["action"], "roll_back");
        assert_eq!(event["actor"], "system");
        assert!(event["reason"].as_str().unwrap().contains("quality score is"), "{event}");
        let numbers = event["details"]["check.quality"].as_str().unwrap();
        let numbers: Value = serde_json::from_str(numbers).unwrap();
        assert_eq!(numbers["verdict"], "BAD");
        assert!(numbers["bound"].as_f64().unwrap() < 0.0);
        assert!(numbers["n_candidate"].as_i64().unwrap() >= 30);
        // Its reverse is by the service.
        let reverse = event["details"]["rollback_deployment"].as_str().unwrap();
        assert_eq!(app.get(reverse).await["created_by"], "system");
    }

    async fn a_good_version_is_promoted_when_its_time_is_up(app: &App) {
        let id = roll_out(app, canary(true)).await;
        serve(app, 0, 1500, good).await;
        app.tick().await;
        assert_eq!(state(app, &id).await, "IN_PROGRESS", "its time is not up");
        let explained = explain(app, &id).await;
        let quality = check(&explained, "CHECK_KIND_COMPARISON", "METRIC_QUALITY");
        assert_eq!(quality["verdict"], "CHECK_VERDICT_GOOD", "{explained}");
        assert_eq!(explained["next_action"], "NEXT_ACTION_COMPLETE");
        app.advance(minutes(5)).await;
        assert_eq!(state(app, &id).await, "COMPLETED");
        let event = last_event(app, &id).await;
        assert!(event["details"]["check.success"].as_str().unwrap().contains("GOOD"), "{event}");
    }

    async fn without_evidence_it_is_held_and_ends_at_its_deadline(app: &App) {
        let mut strategy = canary(true);
        strategy["analysis"] = json!({"hold_seconds": 600});
        let id = roll_out(app, strategy).await;
        app.advance(minutes(5)).await;
        let held = app.get(&id).await;
        assert_eq!(held["rollout"]["current_percentage"], 50);
        let message = held["status_message"].as_str().unwrap();
        assert!(message.contains("held at 50 %") && message.contains("ReportOutcomes"), "{message}");
        let explained = explain(app, &id).await;
        assert_eq!(explained["next_action"], "NEXT_ACTION_HOLD", "{explained}");
        assert_eq!(explained["held_until"], "2026-01-01T00:15:00Z");
        assert!(!explained["blocked_by"].as_array().unwrap().is_empty());
        for _ in 0..9 {
            app.advance(minutes(1)).await;
        }
        assert_eq!(state(app, &id).await, "IN_PROGRESS");
        app.advance(minutes(1)).await;
        assert_eq!(state(app, &id).await, "FAILED");
        assert_eq!(app.traffic("greeting", "production").await.candidate, None);
    }

    async fn evidence_that_comes_while_it_is_held_moves_it(app: &App) {
        let id = roll_out(app, canary(true)).await;
        app.advance(minutes(5)).await;
        assert_eq!(state(app, &id).await, "IN_PROGRESS");
        serve(app, 0, 1500, good).await;
        app.tick().await;
        assert_eq!(state(app, &id).await, "COMPLETED");
    }

    async fn without_auto_rollback_verdicts_are_shown_and_nothing_follows(app: &App) {
        let id = roll_out(app, canary(false)).await;
        serve(app, 0, 400, worse).await;
        app.tick().await;
        assert_eq!(state(app, &id).await, "IN_PROGRESS");
        let explained = explain(app, &id).await;
        let quality = check(&explained, "CHECK_KIND_COMPARISON", "METRIC_QUALITY");
        assert_eq!(quality["verdict"], "CHECK_VERDICT_BAD");
        assert_eq!(explained["acts"], false);
        app.advance(minutes(5)).await;
        assert_eq!(state(app, &id).await, "COMPLETED");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gradual_rollout_steps_while_nothing_is_bad_and_it_would_be_seen() {
    let app = App::start(Storage::Memory).await;
    let strategy = json!({"type": "DEPLOYMENT_TYPE_GRADUAL", "initial_percentage": 20,
        "increment": 40, "interval_seconds": 60, "auto_rollback": true});
    let id = roll_out(&app, strategy).await;
    let share = async || {
        let traffic = app.traffic("greeting", "production").await;
        traffic.candidate.map(|candidate| candidate.percentage)
    };
    app.advance(minutes(1)).await;
    assert_eq!(share().await, Some(20), "nothing is known");
    serve(&app, 0, 300, good).await;
    app.tick().await;
    assert_eq!(share().await, Some(60));
    // Those who changed sides are out; the candidate of the first stage and the others are compared.
    serve(&app, 300, 500, good).await;
    app.advance(minutes(1)).await;
    assert_eq!(state(&app, &id).await, "COMPLETED");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_fails_is_taken_back_by_the_breaker_before_statistics_could() {
    let app = App::start(Storage::Memory).await;
    let id = roll_out(&app, canary(true)).await;
    // Who gets which version is by chance: until ten have got each.
    let (mut users, mut candidates) = (30, serve(&app, 0, 30, broken).await);
    while candidates < 10 || users - candidates < 10 {
        candidates += serve(&app, users, users + 5, broken).await;
        users += 5;
    }
    app.tick().await;
    assert_eq!(state(&app, &id).await, "ROLLED_BACK");
    let event = last_event(&app, &id).await;
    let reason = event["reason"].as_str().unwrap();
    assert!(
        reason.contains("10 of the last 10 calls failed"),
        "{reason}"
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn when_both_versions_fail_it_is_the_provider_and_the_rollout_is_held() {
    let app = App::start(Storage::Memory).await;
    let id = roll_out(&app, canary(true)).await;
    serve(&app, 0, 400, |_, _| (true, Some(0.9))).await;
    app.advance(minutes(5)).await;
    assert_eq!(state(&app, &id).await, "IN_PROGRESS");
    let message = app.get(&id).await["status_message"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(message.contains("the provider"), "{message}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_too_few_get_is_held_since_assignment_or_telemetry_is_broken() {
    let app = App::start(Storage::Memory).await;
    let id = roll_out(&app, canary(true)).await;
    // Only every fourth of its calls is reported.
    let traffic = app.traffic("greeting", "production").await;
    let outcomes: Vec<_> = (0..900)
        .filter_map(|user| {
            let unit = format!("user-{user}");
            let assigned = delos_deploy::domain::bucket::assign(&traffic, &unit, false);
            let version = assigned.unwrap().version;
            let is_reported = version == 1 || user % 4 == 0;
            is_reported.then(|| {
                let mut outcome = outcome(&format!("call-{user}"), version, &unit);
                outcome["quality_score"] = json!(0.9);
                outcome
            })
        })
        .collect();
    report(&app, json!({"outcomes": outcomes})).await;
    app.advance(minutes(5)).await;
    assert_eq!(state(&app, &id).await, "IN_PROGRESS");
    let explained = explain(&app, &id).await;
    let assignment = check(&explained, "CHECK_KIND_ASSIGNMENT", "METRIC_UNSPECIFIED");
    assert_eq!(assignment["blocks"], true, "{explained}");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn quality_below_the_threshold_rolls_back_also_the_first_version() {
    let app = App::start(Storage::Memory).await;
    let body = json!({
        "prompt_id": "greeting",
        "environment": "production",
        "to_version": 2,
        "skip_approval": true,
        "strategy": {"type": 3, "auto_rollback": true, "rollback_threshold": 0.8},
    });
    let id = app.create(body).await["id"].as_str().unwrap().to_owned();
    let of = |user: usize| {
        let mut outcome = outcome(&format!("call-{user}"), 2, &format!("user-{user}"));
        outcome["quality_score"] = json!((user % 2) as f64);
        outcome
    };
    let outcomes: Vec<_> = (0..100).map(of).collect();
    report(&app, json!({"outcomes": outcomes})).await;
    app.tick().await;
    assert_eq!(state(&app, &id).await, "ROLLED_BACK");
    assert_eq!(
        app.traffic("greeting", "production").await.stable_version(),
        0
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_policy_may_let_a_rollout_go_on_without_evidence_or_roll_it_back() {
    for (choice, early, late) in [
        ("WITHOUT_EVIDENCE_ADVANCE", "COMPLETED", "COMPLETED"),
        ("WITHOUT_EVIDENCE_ROLLBACK", "IN_PROGRESS", "ROLLED_BACK"),
    ] {
        let app = App::start(Storage::Memory).await;
        let mut strategy = canary(true);
        strategy["analysis"] = json!({"without_evidence": choice, "hold_seconds": 60});
        let id = roll_out(&app, strategy).await;
        app.advance(minutes(5)).await;
        assert_eq!(state(&app, &id).await, early, "{choice}");
        app.advance(minutes(1)).await;
        assert_eq!(state(&app, &id).await, late, "{choice}");
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_and_cost_are_judged_by_their_limits() {
    let app = App::start(Storage::Memory).await;
    let mut strategy = canary(true);
    // Version 2 takes 200 ms, and version 1 takes 100.
    strategy["analysis"] = json!({"metrics": [{"metric": "METRIC_LATENCY", "limit": 150}]});
    let id = roll_out(&app, strategy).await;
    serve(&app, 0, 200, |_, _| (false, None)).await;
    app.tick().await;
    assert_eq!(state(&app, &id).await, "ROLLED_BACK");
    let event = last_event(&app, &id).await;
    assert!(
        event["details"]["check.latency"]
            .as_str()
            .unwrap()
            .contains("BAD"),
        "{event}"
    );
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deployment_whose_evidence_will_not_do_says_so_when_it_is_created() {
    let app = App::start(Storage::Memory).await;
    let create = async |share: u8, auto_rollback: bool| {
        let mut strategy = canary(auto_rollback);
        strategy["initial_percentage"] = json!(share);
        let body = json!({
            "prompt_id": "greeting",
            "environment": "production",
            "to_version": 2,
            "strategy": strategy,
        });
        app.create(body).await
    };
    let served = json!({
        "prompt_id": "greeting", "environment": "production", "to_version": 1,
        "skip_approval": true,
    });
    app.create(served).await;
    let warned = create(50, true).await;
    let warning = warned["warning"].as_str().unwrap();
    assert!(
        warning.contains("no outcomes of the running version"),
        "{warned}"
    );
    let message = warned["status_message"].as_str().unwrap();
    assert_eq!(message, format!("waiting for approval; warning: {warning}"));
    assert_eq!(create(50, false).await["warning"], "");

    serve(&app, 0, 2000, |_, user| {
        (false, Some((user % 10 != 0).into()))
    })
    .await;
    app.clock.advance(minutes(12 * 60));
    // 4,000 users a day.
    let few = create(1, true).await["warning"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(
        few.contains("(4000 units) about 40 get the new version"),
        "{few}"
    );
    let some = create(10, true).await["warning"]
        .as_str()
        .unwrap()
        .to_owned();
    assert!(some.contains("a drop below"), "{some}");
    assert_eq!(create(60, true).await["warning"], "");
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_known_when_it_was_decided_is_kept() {
    let app = App::start(Storage::SqliteFile).await;
    let id = roll_out(&app, canary(true)).await;
    let candidates = serve(&app, 0, 400, worse).await;
    app.tick().await;
    assert_eq!(state(&app, &id).await, "ROLLED_BACK");
    let path = format!("sqlite://{}", app.settings()["DELOS_SQLITE_PATH"]);
    let database = sqlx::SqlitePool::connect(&path).await.unwrap();
    let kept: Vec<(String, i64, f64)> = sqlx::query_as(
        "SELECT arm, request_count, quality_score FROM deployment_metrics ORDER BY arm",
    )
    .fetch_all(&database)
    .await
    .unwrap();
    let counts: Vec<_> = kept
        .iter()
        .map(|(arm, count, _)| (arm.as_str(), *count))
        .collect();
    let candidates = i64::try_from(candidates).unwrap();
    assert_eq!(
        counts,
        [("CANDIDATE", candidates), ("STABLE", 400 - candidates)]
    );
    assert!(kept[0].2 < kept[1].2 - 0.2, "{kept:?}");
    app.finish().await;
}

/// A version that is bad, reported by a process that is killed at once: who comes after it takes it
/// back, since what is acknowledged is stored with what follows from it.
async fn rolled_back_after_a_kill(storage: Storage) {
    let files = tempfile::tempdir().unwrap();
    let settings = settings(storage, files.path()).await;
    let service = Binary::start(&settings);
    service.wait_until_ready().await;
    let id = roll_out_at(&service.address, canary(true)).await;
    let outcomes: Vec<_> = (0..400)
        .map(|user| {
            let version = 1 + user % 2;
            let mut outcome = outcome(&format!("call-{user}"), version, &format!("user-{user}"));
            outcome["quality_score"] = json!(if version == 2 { 0.1 } else { 0.9 });
            outcome
        })
        .collect();
    let body = json!({"outcomes": outcomes});
    let reported = service.post("/v1/outcomes", body.clone()).await;
    assert_eq!(reported["accepted"], 400);
    service.kill();

    let service = Binary::start(&settings);
    service.wait_until_ready().await;
    let is_back = |it: &Value| it["status"] == "DEPLOYMENT_STATUS_ROLLED_BACK";
    service.deployment_becomes(&id, is_back).await;
    // What was acknowledged is still known.
    let again = service.post("/v1/outcomes", body).await;
    assert_eq!(again["duplicates"], 400);
}

on_lasting_storage!(
    what_follows_from_outcomes_follows_after_a_kill,
    rolled_back_after_a_kill
);

/// Killed again and again while outcomes are reported: what was acknowledged is counted, once.
async fn counted_once_over_kills(storage: Storage) {
    let files = tempfile::tempdir().unwrap();
    let settings = settings(storage, files.path()).await;
    let mut service = Binary::start(&settings);
    service.wait_until_ready().await;
    let id = roll_out_at(&service.address, canary(false)).await;
    let batch = |number: usize| {
        let outcomes: Vec<_> = (0..50)
            .map(|call| {
                let id = format!("call-{number}-{call}");
                outcome(&id, 1, &format!("user-{call}"))
            })
            .collect();
        json!({"outcomes": outcomes})
    };
    let acknowledged = std::cell::Cell::new(0);
    for kill in 0..5_u64 {
        let address = service.address.clone();
        let reports = async {
            loop {
                let number = acknowledged.get();
                let answer = http::post(&address, "/v1/outcomes", &batch(number)).await;
                if !answer.is_ok_and(|answer| answer.status == 200) {
                    return;
                }
                acknowledged.set(number + 1);
            }
        };
        let killing = async {
            let before = acknowledged.get();
            until("nothing is acknowledged", async || {
                acknowledged.get() > before + 1
            })
            .await;
            tokio::time::sleep(std::time::Duration::from_millis(70 * kill)).await;
            service.kill();
        };
        tokio::join!(reports, killing);
        service = Binary::start(&settings);
        service.wait_until_ready().await;
    }
    let acknowledged = acknowledged.get();
    // The one that broke off is sent again, and all the others too.
    for number in 0..=acknowledged {
        let answer = service.post("/v1/outcomes", batch(number)).await;
        let counted = (answer["accepted"].as_i64(), answer["duplicates"].as_i64());
        let is_known = number < acknowledged;
        assert!(
            counted == (Some(0), Some(50)) || !is_known,
            "{number}: {answer}"
        );
    }
    let path = format!("/v1/deployments/{id}/status");
    let status = http::get(&service.address, &path).await.unwrap().json();
    assert_eq!(
        status["baseline_metrics"]["request_count"],
        50 * (acknowledged + 1)
    );
    assert_eq!(status["baseline_metrics"]["unit_count"], "50");
}

on_lasting_storage!(
    what_is_acknowledged_is_counted_once_over_kills,
    counted_once_over_kills
);
