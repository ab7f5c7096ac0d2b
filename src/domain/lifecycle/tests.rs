use std::collections::BTreeMap;

use chrono::TimeDelta;
use proptest::{
    prop_assert, prop_assert_eq, prop_oneof, proptest,
    strategy::{Just, Strategy as Generator},
    test_runner::TestCaseError,
};

use super::*;
use crate::domain::{
    analysis::{Analysis, Overall},
    decide::{Decision, decide},
    gate::{Condition, ConditionType, Gate, Operator, Source},
    ids::{Environment, PromptId},
    judgement::{Found, Measurement},
    state::Status,
    strategy::StrategyRequest,
    strategy::StrategyType,
    violation::Violations,
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + TimeDelta::seconds(seconds)
}

fn traffic(version: i32) -> Traffic {
    let mut traffic = Traffic::none(
        PromptId::parse("prompt").unwrap(),
        Environment::parse("production").unwrap(),
    );
    traffic.stable = (version > 0).then(|| Stable {
        version,
        deployment_id: Uuid::from_u128(1),
    });
    traffic
}

fn new(kind: StrategyType, skip_approval: bool) -> NewDeployment {
    let request = StrategyRequest {
        kind: Ok(Some(kind)),
        ..Default::default()
    };
    NewDeployment {
        id: Uuid::from_u128(7),
        prompt_id: PromptId::parse("prompt").unwrap(),
        environment: Environment::parse("production").unwrap(),
        to_version: 5,
        strategy: Strategy::resolve(request, &mut Violations::default()).unwrap(),
        metadata: BTreeMap::new(),
        skip_approval,
        created_by: Actor::anonymous(),
        warning: String::new(),
    }
}

fn gate(required: bool) -> GateResult {
    GateResult::waiting(Gate {
        id: Uuid::from_u128(3),
        name: "Prod Gate".into(),
        prompt_id: PromptId::parse("prompt").unwrap(),
        conditions: vec![Condition {
            kind: ConditionType::EvalScore,
            operator: Operator::Gte,
            threshold: 0.9,
            source: Source::Dataset("golden-set".into()),
        }],
        required,
        created_at: at(0),
        created_by: Actor::anonymous(),
    })
}

fn gates(results: Vec<GateResult>) -> Gates {
    Gates {
        results,
        due_at: at(3600),
    }
}

/// Does what is decided until there is nothing to do before a later moment.
fn settle(deployment: &mut Deployment, traffic: &mut Traffic, now: Timestamp) -> Vec<Record> {
    let mut records = Vec::new();
    loop {
        let record = match decide(deployment, None, None, now) {
            Decision::Rest | Decision::Wait { .. } => return records,
            Decision::PassGates => deployment.pass_gates(now),
            Decision::FailGates { why } => deployment.fail_gates(&why, now),
            Decision::Start => deployment.start(traffic, now),
            Decision::Step(stage) => deployment.step(stage, traffic, now),
            Decision::Complete => deployment.complete(traffic, now),
            Decision::Fail { why } => deployment.fail(traffic, &why, now),
            Decision::RollBack { .. } => unreachable!("nothing was judged"),
        };
        records.push(record.unwrap());
    }
}

#[test]
fn an_immediate_deployment_without_gates_has_all_traffic_at_once() {
    let mut traffic = traffic(4);
    let (mut deployment, _) = Deployment::create(
        new(StrategyType::Immediate, true),
        &traffic,
        gates(vec![]),
        at(0),
    );
    let actions: Vec<_> = settle(&mut deployment, &mut traffic, at(0))
        .iter()
        .map(|record| record.action.as_str())
        .collect();
    assert_eq!(actions, ["pass_gates", "start", "complete"]);
    assert_eq!(deployment.from_version, 4);
    assert_eq!(traffic.stable_version(), 5);
}

#[test]
fn a_rollback_restores_the_version_before_and_can_itself_be_rolled_back() {
    let mut traffic = traffic(4);
    let (mut deployment, _) = Deployment::create(
        new(StrategyType::Immediate, true),
        &traffic,
        gates(vec![]),
        at(0),
    );
    settle(&mut deployment, &mut traffic, at(0));
    let by = Actor::parse("ada").unwrap();
    let back = deployment
        .roll_back(&mut traffic, "bad", &by, Uuid::from_u128(8), at(9))
        .unwrap();
    let (mut reverse, _) = back.reverse.unwrap();
    assert_eq!(deployment.status, Status::RolledBack);
    assert_eq!((reverse.from_version, reverse.to_version), (5, 4));
    assert_eq!(reverse.metadata[ROLLBACK_FROM], deployment.id.to_string());
    assert_eq!(traffic.stable_version(), 4);

    reverse
        .roll_back(&mut traffic, "it was fine", &by, Uuid::from_u128(9), at(10))
        .unwrap();
    assert_eq!(traffic.stable_version(), 5);
}

#[test]
fn a_version_that_never_had_all_traffic_does_not_come_back_by_a_rollback() {
    let mut traffic = traffic(4);
    let (mut deployment, _) = Deployment::create(
        new(StrategyType::Gradual, true),
        &traffic,
        gates(vec![]),
        at(0),
    );
    settle(&mut deployment, &mut traffic, at(0));
    let by = Actor::anonymous();
    let back = deployment
        .roll_back(&mut traffic, "bad", &by, Uuid::from_u128(8), at(9))
        .unwrap();
    let (mut reverse, _) = back.reverse.unwrap();
    let refused = reverse.roll_back(&mut traffic, "", &by, Uuid::from_u128(9), at(10));
    assert_eq!(refused.unwrap_err(), Denied::Unproven { version: 5 });
    assert_eq!(traffic.stable_version(), 4);
}

#[test]
fn with_nothing_to_restore_the_environment_serves_nothing() {
    let mut traffic = traffic(0);
    let (mut deployment, _) = Deployment::create(
        new(StrategyType::Immediate, true),
        &traffic,
        gates(vec![]),
        at(0),
    );
    settle(&mut deployment, &mut traffic, at(0));
    let back = deployment
        .roll_back(
            &mut traffic,
            "bad",
            &Actor::anonymous(),
            Uuid::from_u128(8),
            at(9),
        )
        .unwrap();
    assert_eq!(back.reverse, None);
    assert_eq!(traffic.stable, None);
}

#[test]
fn what_is_no_longer_served_can_t_be_rolled_back() {
    let mut traffic = traffic(4);
    let (mut deployment, _) = Deployment::create(
        new(StrategyType::Immediate, true),
        &traffic,
        gates(vec![]),
        at(0),
    );
    settle(&mut deployment, &mut traffic, at(0));
    let later = Stable {
        version: 6,
        deployment_id: Uuid::from_u128(70),
    };
    traffic.stable = Some(later.clone());
    let before = deployment.clone();
    let refused = deployment.roll_back(
        &mut traffic,
        "",
        &Actor::anonymous(),
        Uuid::from_u128(8),
        at(9),
    );
    assert_eq!(
        refused.unwrap_err(),
        Denied::NotServed {
            serving: Some(later)
        }
    );
    assert_eq!(deployment, before);
}

#[test]
fn evidence_is_looked_for_at_once_and_then_less_and_less_often() {
    let served = traffic(4);
    let new = new(StrategyType::Immediate, true);
    let (mut deployment, _) = Deployment::create(new, &served, gates(vec![gate(true)]), at(0));
    let look = |deployment: &Deployment, now| {
        let decision = decide(deployment, None, None, at(now));
        let Decision::Wait { until, .. } = decision else {
            panic!("{decision:?}");
        };
        (until - at(now)).num_seconds()
    };
    assert_eq!(look(&deployment, 0), 0);
    let found = |found| Measurement {
        gate_id: Uuid::from_u128(3),
        index: 0,
        found,
    };
    let nothing = found(Found::Nothing("run 1 is running".into()));
    assert_eq!(deployment.measure(&[nothing], at(1)), Ok(None));
    let looks = [1, 100, 200, 3000, 3595].map(|now| look(&deployment, now));
    assert_eq!(looks, [1, 10, 20, 30, 5], "and at the deadline");
    let measure = found(Found::Measure(0.95, "run 1".into()));
    let record = deployment
        .measure(std::slice::from_ref(&measure), at(7))
        .unwrap();
    assert!(record.unwrap().reason.contains("0.95"));
    assert_eq!(decide(&deployment, None, None, at(7)), Decision::PassGates);
    assert_eq!(deployment.measure(&[measure], at(8)), Ok(None));
}

#[test]
fn a_gate_never_passes_unmeasured() {
    let served = traffic(4);
    let create = |results| {
        Deployment::create(
            new(StrategyType::Immediate, true),
            &served,
            gates(results),
            at(0),
        )
        .0
    };

    let required = create(vec![gate(true), gate(false)]);
    assert!(
        matches!(decide(&required, None, None, at(3599)), Decision::Wait { until, why: Some(why) }
        if until == at(3599) && why.contains("eval_score on dataset 'golden-set'"))
    );
    assert!(matches!(
        decide(&required, None, None, at(3600)),
        Decision::FailGates { .. }
    ));

    let mut optional = create(vec![gate(false)]);
    assert!(matches!(
        decide(&optional, None, None, at(0)),
        Decision::Wait { .. }
    ));
    assert_eq!(decide(&optional, None, None, at(3600)), Decision::PassGates);
    optional.pass_gates(at(3600)).unwrap();
    assert_eq!(optional.gates[0].verdict, Verdict::Failed);
    assert!(optional.gates[0].message.starts_with("not measured"));
}

#[test]
fn after_an_outage_one_step_is_taken_and_the_next_is_timed_from_then() {
    let mut traffic = traffic(4);
    let (mut deployment, _) = Deployment::create(
        new(StrategyType::Gradual, true),
        &traffic,
        gates(vec![]),
        at(0),
    );
    settle(&mut deployment, &mut traffic, at(0));
    let steps = settle(&mut deployment, &mut traffic, at(86_400));
    assert_eq!(steps.len(), 1);
    let rollout = deployment.rollout.unwrap();
    assert_eq!(rollout.current_percentage, 20);
    assert_eq!(rollout.next_increment_at, Some(at(86_400 + 300)));
}

#[derive(Debug, Clone)]
enum Act {
    Approve,
    Cancel,
    RollBack,
    Fail,
    Tick(i64),
}

fn act() -> impl Generator<Value = Act> {
    prop_oneof![
        2 => Just(Act::Approve),
        1 => Just(Act::Cancel),
        1 => Just(Act::RollBack),
        1 => Just(Act::Fail),
        8 => (0_i64..400).prop_map(Act::Tick),
    ]
}

proptest! {
    /// Whatever is done in whatever order: the record is one legal path, a refusal changes
    /// nothing, what has ended stays ended, and traffic is where the status says.
    #[test]
    fn random_walks_keep_the_invariants(
        kind in prop_oneof![
            Just(StrategyType::Immediate),
            Just(StrategyType::Gradual),
            Just(StrategyType::Canary),
            Just(StrategyType::BlueGreen),
        ],
        skip_approval: bool,
        served in 0_i32..5,
        acts in proptest::collection::vec(act(), 1..60),
    ) {
        let mut traffic = traffic(served);
        let (mut deployment, created) =
            Deployment::create(new(kind, skip_approval), &traffic, gates(vec![]), at(0));
        let mut records = vec![created];
        let mut now = at(0);
        for act in acts {
            let before = (deployment.clone(), traffic.clone());
            let by = Actor::anonymous();
            let outcome = match act {
                Act::Approve => deployment.approve(&by, "", gates(vec![]), now),
                Act::Cancel => deployment.cancel(&mut traffic, "", now),
                Act::Fail => deployment.fail(&mut traffic, "", now),
                Act::RollBack => deployment
                    .roll_back(&mut traffic, "", &by, Uuid::from_u128(99), now)
                    .map(|back| back.record),
                Act::Tick(seconds) => {
                    now += TimeDelta::seconds(seconds);
                    records.extend(settle(&mut deployment, &mut traffic, now));
                    continue;
                }
            };
            match outcome {
                Ok(record) => records.push(record),
                Err(_) => prop_assert_eq!(&before, &(deployment.clone(), traffic.clone())),
            }
            check_traffic(&deployment, &traffic, served)?;
        }
        for pair in records.windows(2) {
            prop_assert_eq!(Some(pair[0].to), pair[1].from);
            prop_assert!(pair[0].at <= pair[1].at);
        }
        prop_assert_eq!(records.last().unwrap().to, deployment.status);
    }
}

fn check_traffic(
    deployment: &Deployment,
    traffic: &Traffic,
    served: i32,
) -> Result<(), TestCaseError> {
    let share = traffic
        .candidate
        .as_ref()
        .map(|candidate| candidate.percentage);
    match deployment.status {
        Status::InProgress => {
            let on_plan = Plan::of(&deployment.strategy)
                .stages()
                .iter()
                .any(|stage| Some(stage.percentage) == share);
            prop_assert!(on_plan, "{share:?}");
            prop_assert_eq!(traffic.stable_version(), served);
        }
        Status::Completed => {
            prop_assert_eq!(share, None);
            prop_assert_eq!(traffic.stable_version(), deployment.to_version);
        }
        Status::PendingApproval
        | Status::PendingGates
        | Status::GatesFailed
        | Status::RolledBack
        | Status::Cancelled
        | Status::Failed => {
            prop_assert_eq!(share, None);
            prop_assert_eq!(traffic.stable_version(), served);
        }
    }
    Ok(())
}

/// A canary in progress since 0, whose validation ends at 300.
fn canary(auto_rollback: bool) -> Deployment {
    let mut traffic = traffic(4);
    let mut new = new(StrategyType::Canary, true);
    new.strategy.auto_rollback = auto_rollback;
    let (mut deployment, _) = Deployment::create(new, &traffic, gates(vec![]), at(0));
    settle(&mut deployment, &mut traffic, at(0));
    assert_eq!(deployment.status, Status::InProgress);
    deployment
}

fn found(overall: Overall) -> Analysis {
    let checks = Vec::new();
    Analysis { checks, overall }
}

#[test]
fn a_rollout_goes_by_what_its_evidence_shows() {
    let canary = canary(true);
    let why = || "because".to_owned();
    let hold = |until| Overall::Hold {
        why: why(),
        until: at(until),
    };
    let decided = |overall, now| decide(&canary, None, Some(&found(overall)), at(now));
    // Before its step is due only what is bad counts.
    let back = Decision::RollBack { why: why() };
    assert_eq!(decided(Overall::RollBack { why: why() }, 1), back);
    for overall in [
        Overall::Good,
        hold(600),
        Overall::Fail { why: why() },
        Overall::Unproven { why: why() },
    ] {
        let wait = Decision::Wait {
            until: at(300),
            why: None,
        };
        assert_eq!(decided(overall, 299), wait);
    }
    assert_eq!(decided(Overall::Good, 300), Decision::Complete);
    assert_eq!(
        decided(Overall::Unproven { why: why() }, 300),
        Decision::Complete
    );
    let failed = decided(Overall::Fail { why: why() }, 300);
    assert!(matches!(failed, Decision::Fail { .. }), "{failed:?}");
    for (until, looks) in [(600, 360), (330, 330)] {
        let held = decided(hold(until), 300);
        let Decision::Wait {
            until,
            why: Some(why),
        } = held
        else {
            panic!("{held:?}");
        };
        assert_eq!(until, at(looks));
        assert!(
            why.contains("held at 5 %") && why.contains("ReportOutcomes"),
            "{why}"
        );
    }
}

#[test]
fn without_auto_rollback_nothing_follows_from_evidence() {
    let canary = canary(false);
    let why = || "because".to_owned();
    for overall in [
        Overall::RollBack { why: why() },
        Overall::Fail { why: why() },
        Overall::Hold {
            why: why(),
            until: at(600),
        },
    ] {
        let decision = decide(&canary, None, Some(&found(overall)), at(300));
        assert_eq!(decision, Decision::Complete);
    }
}

#[test]
fn what_is_compared_is_compared_anew_when_another_version_is_served() {
    let condition = |kind, source| Condition {
        kind,
        operator: Operator::Gte,
        threshold: 0.05,
        source,
    };
    let gate = Gate {
        id: Uuid::from_u128(9),
        name: "no worse".into(),
        prompt_id: PromptId::parse("prompt").unwrap(),
        conditions: vec![
            condition(ConditionType::Custom, Source::Outside),
            condition(
                ConditionType::EvalScore,
                Source::BothVersions("golden-set".into()),
            ),
        ],
        required: true,
        created_at: at(0),
        created_by: Actor::anonymous(),
    };
    let gates = Gates {
        results: vec![GateResult::waiting(gate)],
        due_at: at(100),
    };
    let new = new(StrategyType::Immediate, true);
    let (mut deployment, _) = Deployment::create(new, &traffic(1), gates, at(0));
    let measurement = |index, found| Measurement {
        gate_id: Uuid::from_u128(9),
        index,
        found,
    };
    let met = [
        measurement(0, Found::Verdict(true, "by hand".into())),
        measurement(1, Found::Measure(0.0, "beside version 1".into())),
    ];
    deployment.measure(&met, at(10)).unwrap();
    deployment.pass_gates(at(10)).unwrap();
    assert!(deployment.is_in_line());
    let unchanged = deployment.clone();
    assert_eq!(deployment.compare_anew(&traffic(1), at(300), at(200)), None);
    assert_eq!(deployment, unchanged);

    let record = deployment.compare_anew(&traffic(2), at(300), at(200));
    assert!(
        record
            .unwrap()
            .reason
            .contains("serves version 2 now and not 1")
    );
    assert_eq!(
        (deployment.from_version, deployment.is_in_line()),
        (2, false)
    );
    assert_eq!(deployment.gates_due_at, Some(at(300)));
    let gate = &deployment.gates[0];
    assert_eq!(gate.verdict, Verdict::Waiting);
    // What somebody has decided stands.
    assert_eq!(gate.conditions[0].verdict, Verdict::Passed);
    assert_eq!(gate.conditions[1].verdict, Verdict::Waiting);
    assert_eq!(
        (gate.conditions[1].actual, gate.conditions[1].note.as_str()),
        (None, "")
    );
    assert!(matches!(
        decide(&deployment, None, None, at(200)),
        Decision::Wait { .. }
    ));
    // Neither before its gates are judged nor after.
    deployment.fail_gates("for the test", at(210)).unwrap();
    assert_eq!(deployment.compare_anew(&traffic(3), at(300), at(220)), None);
}
