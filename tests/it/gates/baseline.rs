//! Conditions that compare the new version with the one that is served.

use delos_deploy::evidence::pb::eval::{EvalConfig, EvalResult, EvaluatorConfig};

use super::*;
use crate::harness::eval::result_of;

/// A condition with a margin, on the examples of the dataset.
fn beside(kind: &str, operator: &str, margin: f64) -> Value {
    let mut condition = condition(kind, operator, margin, ("dataset_id", "golden-set"));
    condition["baseline"] = json!(true);
    condition
}

pub(super) fn score_beside(margin: f64) -> Value {
    beside("eval_score", "gte", margin)
}

/// Results on so many examples, of which every tenth scores otherwise.
pub(super) fn results(count: usize, score: f64, tenth: f64) -> Vec<EvalResult> {
    let each = |number| result_of(number, if number % 10 == 0 { tenth } else { score });
    (0..count).map(each).collect()
}

/// A service that serves version 1, with a gate for what comes after.
async fn serving(storage: Storage, eval: &Eval, conditions: &[Value]) -> App {
    let app = gated(storage, eval, conditions).await;
    let first = judged(&app, 1).await;
    assert_eq!(status(&first), "COMPLETED", "{first}");
    app
}

/// Runs of both versions that have completed.
fn evaluated(eval: &Eval, candidate: Vec<EvalResult>, baseline: Vec<EvalResult>) {
    for (run, version, results) in [("old", 1, baseline), ("new", 2, candidate)] {
        eval.put(run_of(run, "greeting", version, 0.0));
        eval.complete_by(run, results);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_first_version_has_nothing_to_be_worse_than() {
    let eval = Eval::start().await;
    let app = gated(Storage::Memory, &eval, &[score_beside(0.05)]).await;
    let first = judged(&app, 1).await;
    assert_eq!(status(&first), "COMPLETED", "{first}");
    assert!(message(&first).contains("serves no version yet"), "{first}");
    let result = &first["gate_results"][0]["condition_results"][0];
    assert_eq!(result["passed"], true);
    // Nor has the version that is served.
    let again = judged(&app, 1).await;
    assert_eq!(status(&again), "COMPLETED", "{again}");
    assert!(
        message(&again).contains("serves this version, 1"),
        "{again}"
    );
    assert_eq!(eval.calls(), 0);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_new_version_may_be_worse_by_the_margin_and_no_more() {
    for (margin, passes) in [(0.05, true), (0.01, false)] {
        let eval = Eval::start().await;
        evaluated(&eval, results(300, 0.9, 0.8), results(300, 0.9, 0.9));
        let app = serving(Storage::Memory, &eval, &[score_beside(margin)]).await;
        let deployment = judged(&app, 2).await;
        let expected = if passes { "COMPLETED" } else { "GATES_FAILED" };
        assert_eq!(status(&deployment), expected, "{deployment}");
        let result = &deployment["gate_results"][0]["condition_results"][0];
        assert_eq!(result["expected"], -margin);
        let bound = result["actual"].as_f64().unwrap();
        assert!((-0.03..-0.01).contains(&bound), "{deployment}");
        for said in [
            "beside the running version on dataset 'golden-set'",
            "300 pairs: mean difference -0.01",
            "with 95 % confidence no worse than",
            "smallest detectable drop 0.01",
            "version 2 in run new beside version 1 in run old",
        ] {
            assert!(message(&deployment).contains(said), "{said}: {deployment}");
        }
        assert_eq!(
            message(&deployment).contains("examples are needed"),
            !passes
        );
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_and_cost_are_compared_example_by_example() {
    // The slowest and dearest examples come first, and the new version takes 5 ms and a tenth of a
    // cent more on each.
    let slower = |by: f64| -> Vec<_> {
        let each = |number| EvalResult {
            latency_ms: 2000.0 / (1.0 + number as f64) + 100.0 + 5.0 * by,
            cost_usd: 0.01 + 0.001 * by,
            ..result_of(number, 0.9)
        };
        (0..400).map(each).collect()
    };
    for (kind, margin, passes) in [
        ("latency", 40.0, true),
        ("latency", 4.0, false),
        ("cost", 0.002, true),
        ("cost", 0.0005, false),
    ] {
        let eval = Eval::start().await;
        evaluated(&eval, slower(1.0), slower(0.0));
        let conditions = [beside(kind, "lte", margin)];
        let app = serving(Storage::Memory, &eval, &conditions).await;
        let deployment = judged(&app, 2).await;
        let expected = if passes { "COMPLETED" } else { "GATES_FAILED" };
        assert_eq!(status(&deployment), expected, "{deployment}");
        let result = &deployment["gate_results"][0]["condition_results"][0];
        assert_eq!(result["expected"], margin);
        assert!(
            message(&deployment).contains("detectable rise"),
            "{deployment}"
        );
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_compared_fails_the_gate_and_says_why() {
    let good = || results(100, 0.9, 0.9);
    let mut nan = good();
    nan[7].overall_score = f64::NAN;
    let mut beyond = good();
    beyond[7].overall_score = 1.5;
    let mut failing = good();
    for result in &mut failing[..20] {
        result.error = "the provider gave up".into();
    }
    let many = results(10_001, 0.9, 0.9);
    for (candidate, baseline, said) in [
        (
            results(29, 0.9, 0.9),
            results(29, 0.9, 0.9),
            "29 can be compared; it takes at least 30",
        ),
        (good(), results(80, 0.9, 0.9), "only 80 of 100 examples"),
        (results(80, 0.9, 0.9), good(), "only 80 of 100 examples"),
        (
            nan.clone(),
            good(),
            "NaN is no eval_score (example 'example-7' of run new)",
        ),
        (
            good(),
            nan,
            "NaN is no eval_score (example 'example-7' of run old)",
        ),
        (beyond, good(), "1.5 is no eval_score"),
        // The running version's failures are no reason to pass, and the new one's count as 0.
        (good(), failing.clone(), "only 80 of 100 examples"),
        (failing, good(), "mean difference -0.18"),
        (many, good(), "at most 10000 can be compared"),
    ] {
        let eval = Eval::start().await;
        evaluated(&eval, candidate, baseline);
        let app = serving(Storage::Memory, &eval, &[score_beside(0.1)]).await;
        let deployment = judged(&app, 2).await;
        assert_eq!(status(&deployment), "GATES_FAILED", "{deployment}");
        assert!(message(&deployment).contains(said), "{said}: {deployment}");
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn results_that_are_not_all_there_are_waited_for() {
    for (fault, said) in [
        (Fault::Unavailable, "does not answer"),
        (Fault::NoResults, "the results are elsewhere"),
        (Fault::ShortOfOne, "shows 99 of its 100 results"),
    ] {
        let eval = Eval::start().await;
        evaluated(&eval, results(100, 0.9, 0.9), results(100, 0.9, 0.9));
        let app = serving(Storage::Memory, &eval, &[score_beside(0.1)]).await;
        eval.fault(fault);
        let waiting = judged(&app, 2).await;
        assert_eq!(status(&waiting), "PENDING_GATES", "{waiting}");
        assert!(message(&waiting).contains(said), "{said}: {waiting}");
        eval.fault(Fault::None);
        app.advance(Duration::from_secs(30)).await;
        let id = waiting["id"].as_str().unwrap();
        assert_eq!(status(&app.get(id).await), "COMPLETED");
        app.finish().await;
    }
    let eval = Eval::start().await;
    evaluated(&eval, results(100, 0.9, 0.9), results(100, 0.9, 0.9));
    let app = serving(Storage::Memory, &eval, &[score_beside(0.1)]).await;
    eval.fault(Fault::OtherResults);
    let failed = judged(&app, 2).await;
    assert_eq!(status(&failed), "GATES_FAILED", "{failed}");
    assert!(
        message(&failed).contains("shows a result of run"),
        "{failed}"
    );
    app.finish().await;
}

on_every_storage! {
    async fn either_run_that_is_missing_is_started_once_and_waited_for(app: &App) {
        let eval = Eval::start().await;
        // This service is started before it is known whom to ask.
        let storage = match app.settings().get("DELOS_STORAGE_BACKEND").map(String::as_str) {
            Some("postgres") => Storage::Postgres,
            Some("sqlite") => Storage::SqliteFile,
            _ => Storage::Memory,
        };
        // The same run is what the first of these is measured by.
        let conditions = [
            score(("dataset_id", "golden-set")),
            score_beside(0.05),
            beside("latency", "lte", 50.0),
        ];
        let app = gated(storage, &eval, &conditions).await;
        eval.put(run_of("first", "greeting", 1, 0.95));
        assert_eq!(status(&judged(&app, 1).await), "COMPLETED");
        let run = |name: &str| {
            let runs = eval.runs().into_iter().filter(|run| run.name == name);
            let run: Vec<_> = runs.collect();
            assert!(run.len() <= 1, "{run:?}");
            run.into_iter().next()
        };
        // Not a run that was evaluated otherwise: what judges the one must judge the other.
        let mut otherwise = run_of("first", "greeting", 1, 0.95);
        otherwise.config = Some(EvalConfig {
            evaluators: vec![EvaluatorConfig { r#type: "exact_match".into(), ..Default::default() }],
            ..Default::default()
        });
        eval.put(otherwise);

        let waiting = judged(&app, 2).await;
        assert_eq!(status(&waiting), "PENDING_GATES");
        let id = waiting["id"].as_str().unwrap();
        for _ in 0..20 {
            app.advance(Duration::from_secs(10)).await;
        }
        assert_eq!(eval.started(), 2, "{:?}", eval.runs());
        let own = run(&format!("delos-deploy/{id}/golden-set")).unwrap();
        let other = run(&format!("delos-deploy/{id}/golden-set/baseline")).unwrap();
        assert_eq!((own.prompt_version, other.prompt_version), (2, 1));
        let waiting = app.get(id).await;
        assert!(message(&waiting).contains("the running version's run started-2 has not begun"), "{waiting}");

        // Either may be first.
        eval.complete_by(&other.id, results(300, 0.95, 0.95));
        app.advance(Duration::from_secs(30)).await;
        assert_eq!(status(&app.get(id).await), "PENDING_GATES");
        eval.complete_by(&own.id, results(300, 0.95, 0.95));
        app.advance(Duration::from_secs(30)).await;
        let done = app.get(id).await;
        assert_eq!(status(&done), "COMPLETED", "{done}");
        assert_eq!(done["from_version"], 1);
        assert_eq!(eval.started(), 2);
        // The next deployment needs a run of its own version only.
        let next = judged(&app, 3).await;
        app.advance(Duration::from_secs(30)).await;
        assert_eq!(eval.started(), 3);
        eval.complete_by("started-3", results(300, 0.95, 0.95));
        app.advance(Duration::from_secs(30)).await;
        let next = app.get(next["id"].as_str().unwrap()).await;
        assert!(message(&next).contains("beside version 2 in run started-1"), "{next}");
        assert_eq!(status(&next), "COMPLETED", "{next}");
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_running_version_is_evaluated_as_the_new_one_is() {
    let eval = Eval::start().await;
    let config = Some(EvalConfig {
        model: "a-judge".into(),
        sample_size: 300,
        ..Default::default()
    });
    let mut with_config = run_of("new", "greeting", 2, 0.9);
    with_config.config.clone_from(&config);
    eval.put(with_config);
    eval.complete_by("new", results(300, 0.9, 0.9));
    eval.put(run_of("old", "greeting", 1, 0.9));
    eval.complete_by("old", results(300, 0.9, 0.9));
    let app = serving(Storage::Memory, &eval, &[score_beside(0.05)]).await;
    let id = judged(&app, 2).await["id"].as_str().unwrap().to_owned();
    let started = eval.runs().pop().unwrap();
    assert_eq!((started.prompt_version, &started.config), (1, &config));
    // One that does not do as it was told is not compared, and not started again.
    eval.put(EvalRun {
        config: None,
        ..started.clone()
    });
    app.advance(Duration::from_secs(30)).await;
    let failed = app.get(&id).await;
    assert_eq!(status(&failed), "GATES_FAILED");
    assert!(
        message(&failed).contains("has other evaluators"),
        "{failed}"
    );
    assert_eq!(eval.started(), 1);
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_conditions_start_one_run_though_it_is_not_listed_at_once() {
    let eval = Eval::start().await;
    eval.put(run_of("first", "greeting", 1, 0.95));
    let conditions = [score(("dataset_id", "golden-set")), score_beside(0.05)];
    let app = serving(Storage::Memory, &eval, &conditions).await;
    eval.fault(Fault::ListsLate);
    let waiting = judged(&app, 2).await;
    assert_eq!(status(&waiting), "PENDING_GATES");
    assert_eq!(eval.started(), 1, "{:?}", eval.runs());
    app.finish().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_of_either_version_that_came_to_nothing_fails_the_gate() {
    for (which, said) in [
        (0, "run started-1 has failed: out of quota"),
        (
            1,
            "the running version's run started-2 has failed: out of quota",
        ),
    ] {
        let eval = Eval::start().await;
        let app = serving(Storage::Memory, &eval, &[score_beside(0.05)]).await;
        let id = judged(&app, 2).await["id"].as_str().unwrap().to_owned();
        app.advance(Duration::from_secs(30)).await;
        let run = eval.runs().remove(which);
        eval.put(with_status(run, EvalRunStatus::Failed));
        app.advance(Duration::from_secs(30)).await;
        let failed = app.get(&id).await;
        assert_eq!(status(&failed), "GATES_FAILED", "{failed}");
        assert!(message(&failed).contains(said), "{said}: {failed}");
        assert_eq!(eval.started(), 2);
        app.finish().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_comparison_that_makes_no_sense_is_refused() {
    let eval = Eval::start().await;
    let app = gated(Storage::Memory, &eval, &[score_beside(0.05)]).await;
    let mut of_run = score(("eval_run_id", "run-1"));
    of_run["baseline"] = json!(true);
    of_run["threshold"] = json!(0.05);
    let mut custom = condition("custom", "gte", 1.0, ("", ""));
    custom["baseline"] = json!(true);
    let conditions = [
        of_run,
        custom,
        beside("eval_score", "lte", 0.05),
        beside("latency", "eq", -1.0),
    ];
    let answer = gate(&conditions, true);
    let answer = app.rest("POST", "/v1/quality-gates", Some(answer)).await;
    assert_eq!(answer.status, 400, "{answer:?}");
    let answer = answer.json();
    let errors = answer["errors"].as_array().unwrap().iter();
    let fields: Vec<_> = errors
        .map(|error| error["field"].as_str().unwrap())
        .collect();
    assert_eq!(
        fields,
        [
            "conditions[0].eval_run_id",
            "conditions[1].baseline",
            "conditions[2].operator",
            "conditions[3].operator",
            "conditions[3].threshold",
        ]
    );
    let listed = app
        .rest("GET", "/v1/quality-gates?prompt_id=greeting", None)
        .await
        .json();
    let listed = &listed["quality_gates"][0]["conditions"][0];
    assert_eq!(
        (&listed["baseline"], &listed["threshold"]),
        (&json!(true), &json!(0.05))
    );
    app.finish().await;
}

/// Kills the service when it has started the first run, and the second.
async fn both_runs_survive_a_kill_between_them(storage: Storage) {
    let eval = Eval::start().await;
    let files = tempfile::tempdir().unwrap();
    let (service, settings) = start(storage, files.path(), &eval).await;
    service.wait_until_ready().await;
    let first = service.post("/v1/deployments", deployment(1)).await;
    assert_eq!(status(&first["deployment"]), "COMPLETED");
    let gate = gate(&[score_beside(0.05)], true);
    service.post("/v1/quality-gates", gate).await;
    let created = service.post("/v1/deployments", deployment(2)).await;
    let id = created["deployment"]["id"].as_str().unwrap().to_owned();
    until("no run is started", async || eval.started() > 0).await;
    service.kill();
    let service = Binary::start(&settings);
    until("only one run is started", async || eval.started() > 1).await;
    service.kill();
    let service = Binary::start(&settings);
    for run in eval.runs() {
        eval.complete_by(&run.id, results(300, 0.9, 0.9));
    }
    service
        .deployment_becomes(&id, |it| status(it) == "COMPLETED")
        .await;
    assert_eq!(eval.started(), 2);
}

on_lasting_storage!(
    both_runs_survive_a_kill_between_them_and_are_started_once,
    both_runs_survive_a_kill_between_them
);
