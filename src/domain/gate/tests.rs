use super::*;

fn condition(kind: &str, dataset_id: &str) -> ConditionRequest {
    ConditionRequest {
        kind: kind.into(),
        operator: "gte".into(),
        threshold: 0.9,
        dataset_id: dataset_id.into(),
        ..Default::default()
    }
}

fn fields_refused(conditions: Vec<ConditionRequest>) -> Vec<String> {
    let request = GateRequest {
        name: "Prod Gate".into(),
        prompt_id: "prompt-abc123".into(),
        conditions,
        required: true,
    };
    let mut violations = Violations::default();
    let gate = Gate::resolve(
        &request,
        Uuid::nil(),
        Actor::anonymous(),
        Timestamp::UNIX_EPOCH,
        &Endpoint::parse,
        &mut violations,
    );
    match violations.finish(gate) {
        Ok(_) => Vec::new(),
        Err(all) => all.into_iter().map(|violation| violation.field).collect(),
    }
}

#[test]
fn a_gate_that_would_measure_nothing_is_refused() {
    assert_eq!(fields_refused(vec![]), ["conditions"]);
    assert_eq!(
        fields_refused(vec![condition("vibes", "x")]),
        ["conditions[0].type"]
    );
    assert_eq!(
        fields_refused(vec![condition("eval_score", "")]),
        ["conditions[0].dataset_id"]
    );
    assert_eq!(
        fields_refused(vec![condition("latency", "")]),
        ["conditions[0].dataset_id"]
    );
    assert_eq!(
        fields_refused(vec![condition("custom", "x")]),
        ["conditions[0].dataset_id"]
    );
    let mut nan = condition("eval_score", "golden-set");
    nan.threshold = f64::NAN;
    nan.operator = "gt".into();
    assert_eq!(
        fields_refused(vec![nan]),
        ["conditions[0].operator", "conditions[0].threshold"]
    );
}

#[test]
fn a_comparison_with_the_running_version_needs_a_dataset_and_a_margin() {
    let comparison = |kind: &str, operator: &str, threshold: f64| ConditionRequest {
        operator: operator.into(),
        threshold,
        baseline: true,
        ..condition(kind, "golden-set")
    };
    for allowed in [
        comparison("eval_score", "gte", 0.05),
        comparison("eval_score", "gte", 0.0),
        comparison("latency", "lte", 150.0),
        comparison("cost", "lte", 0.001),
    ] {
        assert!(fields_refused(vec![allowed]).is_empty());
    }
    let of_run = ConditionRequest {
        eval_run_id: "run-1".into(),
        dataset_id: String::new(),
        ..comparison("eval_score", "gte", 0.05)
    };
    let of_neither = ConditionRequest {
        eval_run_id: String::new(),
        ..of_run.clone()
    };
    for (refused, fields) in [
        (comparison("custom", "gte", 0.05), vec!["baseline"]),
        (comparison("eval_score", "lte", 0.05), vec!["operator"]),
        (comparison("eval_score", "eq", 0.05), vec!["operator"]),
        (comparison("latency", "gte", 1.0), vec!["operator"]),
        (comparison("cost", "eq", 1.0), vec!["operator"]),
        (comparison("eval_score", "gte", 1.01), vec!["threshold"]),
        (comparison("eval_score", "gte", f64::NAN), vec!["threshold"]),
        (
            comparison("latency", "gt", -0.1),
            vec!["operator", "threshold"],
        ),
        (of_run, vec!["eval_run_id"]),
        (of_neither, vec!["dataset_id"]),
    ] {
        let fields: Vec<_> = fields
            .into_iter()
            .map(|field| format!("conditions[0].{field}"))
            .collect();
        assert_eq!(fields_refused(vec![refused]), fields);
    }
}

#[test]
fn a_margin_is_a_difference_on_the_side_that_is_worse() {
    let condition = |kind, operator, threshold| Condition {
        kind,
        operator,
        threshold,
        source: Source::BothVersions("golden-set".into()),
    };
    let score = condition(ConditionType::EvalScore, Operator::Gte, 0.05);
    assert_eq!(score.limit(), -0.05);
    assert_eq!(score.compare(-0.05), Ok(true));
    assert_eq!(score.compare(0.2), Ok(true));
    assert_eq!(score.compare(-0.051), Ok(false));
    assert!(score.compare(-1.1).is_err());
    assert!(score.compare(f64::NAN).is_err());
    let latency = condition(ConditionType::Latency, Operator::Lte, 20.0);
    assert_eq!(latency.limit(), 20.0);
    assert_eq!(latency.compare(20.0), Ok(true));
    assert_eq!(latency.compare(-300.0), Ok(true));
    assert_eq!(latency.compare(20.1), Ok(false));
}

#[test]
fn a_latency_measures_the_run_that_its_gate_names() {
    assert!(
        fields_refused(vec![
            condition("eval_score", "golden-set"),
            condition("latency", "")
        ])
        .is_empty()
    );
    assert!(fields_refused(vec![condition("custom", "")]).is_empty());
}

#[test]
fn only_what_is_decided_outside_has_a_url() {
    let with = |kind, dataset, url: &str| ConditionRequest {
        url: url.into(),
        ..condition(kind, dataset)
    };
    let url = "https://example.com/score";
    assert!(fields_refused(vec![with("custom", "", url)]).is_empty());
    let beside = ConditionRequest {
        baseline: true,
        ..with("eval_score", "golden-set", url)
    };
    for refused in [
        with("custom", "", "example.com"),
        with("eval_score", "golden-set", url),
        beside,
    ] {
        let good = condition("custom", "");
        assert_eq!(fields_refused(vec![good, refused]), ["conditions[1].url"]);
    }
}
