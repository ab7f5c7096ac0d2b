//! What is decided by whatever evidence: nothing panics, every number is one, and what is decided is
//! allowed in the status.
#![no_main]

use std::time::Duration;

use arbitrary::{Arbitrary as _, Result, Unstructured};
use chrono::{DateTime, TimeDelta, Utc};
use delos_deploy::domain::{
    analysis::{
        AnalysisPolicy, Assigned, Breaker, Calls, Comparison, Evidence, Floor, Metric,
        MetricEvidence, Moments, Recent, Stratum, WithoutEvidence,
    },
    decide::{Ahead, Decision, analyse, decide},
    deployment::{Deployment, Rollout},
    gate::{Condition, ConditionType, Operator, Source},
    ids::{Environment, PromptId},
    judgement::{Again, ConditionResult, GateResult, Verdict},
    state::{Status, Verb, next},
    strategy::{Strategy, StrategyType},
};
use libfuzzer_sys::fuzz_target;
use uuid::Uuid;

fuzz_target!(|data: &[u8]| {
    // Too little input is no input.
    let _ = decide_by(&mut Unstructured::new(data));
});

fn decide_by(input: &mut Unstructured) -> Result<()> {
    let now = moment(input)?;
    let strategy = strategy(input)?;
    let evidence = evidence(input)?;
    let analysis = analyse(&strategy, &evidence, now);
    for check in &analysis.checks {
        if let Some(numbers) = check.numbers {
            let all = [numbers.estimate, numbers.bound, numbers.threshold];
            assert!(all.iter().all(|number| number.is_finite()), "{check:?}");
        }
    }
    let deployment = deployment(input, strategy)?;
    let ahead = Ahead {
        id: Uuid::nil(),
        version: i32::arbitrary(input)?,
        status: *input.choose(&Status::ALL)?,
    };
    let ahead = bool::arbitrary(input)?.then_some(&ahead);
    let analysis = bool::arbitrary(input)?.then_some(&analysis);
    let decision = decide(&deployment, ahead, analysis, now);
    assert_eq!(decision, decide(&deployment, ahead, analysis, now));
    let verb = match &decision {
        Decision::Rest => None,
        Decision::Wait { until, .. } => {
            assert!(*until >= now, "{decision:?} at {now}");
            None
        }
        Decision::PassGates => Some(Verb::PassGates),
        Decision::FailGates { .. } => Some(Verb::FailGates),
        Decision::Start => Some(Verb::Start),
        Decision::Step(stage) => {
            assert!(stage.percentage < 100, "{stage:?}");
            Some(Verb::Step)
        }
        Decision::Complete => Some(Verb::Complete),
        Decision::RollBack { .. } => Some(Verb::RollBack),
        Decision::Fail { .. } => Some(Verb::Fail),
    };
    let status = deployment.status;
    if let Some(verb) = verb {
        assert!(next(status, verb).is_some(), "{decision:?} in {status}");
    }
    Ok(())
}

/// A moment in the years that there can be in a storage.
fn moment(input: &mut Unstructured) -> Result<DateTime<Utc>> {
    let seconds = input.int_in_range(0..=200_000_000_000_i64)?;
    Ok(DateTime::UNIX_EPOCH + TimeDelta::seconds(seconds))
}

/// Any number, but as a rule a share.
fn number(input: &mut Unstructured) -> Result<f64> {
    if input.ratio(1, 8)? {
        return f64::arbitrary(input);
    }
    Ok(f64::from(u16::arbitrary(input)?) / f64::from(u16::MAX))
}

fn several<T>(
    input: &mut Unstructured,
    make: impl Fn(&mut Unstructured) -> Result<T>,
) -> Result<Vec<T>> {
    let many = input.int_in_range(0..=4)?;
    (0..many).map(|_| make(input)).collect()
}

fn metric(input: &mut Unstructured) -> Result<Metric> {
    input.choose(&Metric::ALL).copied()
}

fn strategy(input: &mut Unstructured) -> Result<Strategy> {
    let kinds = [
        StrategyType::Immediate,
        StrategyType::Gradual,
        StrategyType::Canary,
        StrategyType::BlueGreen,
    ];
    Ok(Strategy {
        kind: *input.choose(&kinds)?,
        initial_percentage: u8::arbitrary(input)?,
        increment: u8::arbitrary(input)?,
        interval: Duration::from_secs(u32::arbitrary(input)?.into()),
        auto_rollback: bool::arbitrary(input)?,
        rollback_threshold: number(input)?,
        analysis: policy(input)?,
    })
}

fn policy(input: &mut Unstructured) -> Result<AnalysisPolicy> {
    if input.ratio(1, 2)? {
        return Ok(AnalysisPolicy::default());
    }
    let without = [
        WithoutEvidence::Hold,
        WithoutEvidence::Advance,
        WithoutEvidence::RollBack,
    ];
    let floor = Floor {
        threshold: number(input)?,
        margin: number(input)?,
    };
    Ok(AnalysisPolicy {
        alpha_rollback: number(input)? / 2.0,
        alpha_advance: number(input)? / 2.0,
        alpha_assignment: number(input)? / 2.0,
        units_rollback_min: u16::arbitrary(input)?.into(),
        units_advance_min: u16::arbitrary(input)?.into(),
        sharpest_at_units: number(input)? * 1000.0,
        comparisons: several(input, |input| {
            Ok(Comparison {
                metric: metric(input)?,
                tolerance: number(input)?,
                margin: number(input)?,
            })
        })?,
        floor: bool::arbitrary(input)?.then_some(floor),
        breaker: Breaker {
            calls: u8::arbitrary(input)?.into(),
            failed: u8::arbitrary(input)?.into(),
            stable_failed_share_max: number(input)?,
        },
        provider_margin: number(input)?,
        without_evidence: *input.choose(&without)?,
        hold_max: Duration::from_secs(u64::arbitrary(input)?),
        ..AnalysisPolicy::default()
    })
}

fn evidence(input: &mut Unstructured) -> Result<Evidence> {
    Ok(Evidence {
        metrics: several(input, |input| {
            Ok(MetricEvidence {
                metric: metric(input)?,
                strata: several(input, |input| {
                    Ok(Stratum {
                        candidate: moments(input)?,
                        stable: moments(input)?,
                    })
                })?,
                stable_before: moments(input)?,
                stable_now: moments(input)?,
            })
        })?,
        assignments: several(input, |input| {
            Ok(Assigned {
                candidate: count(input)?,
                stable: count(input)?,
                share: number(input)?,
            })
        })?,
        recent: Recent {
            candidate: calls(input)?,
            stable: calls(input)?,
        },
        waiting_since: moment(input)?,
        is_first: bool::arbitrary(input)?,
    })
}

fn count(input: &mut Unstructured) -> Result<u64> {
    match input.int_in_range(0..=7)? {
        0 => u64::arbitrary(input),
        1 => Ok(u32::arbitrary(input)?.into()),
        _ => Ok(u16::arbitrary(input)?.into()),
    }
}

/// As a rule those that numbers between 0 and 1 can have.
fn moments(input: &mut Unstructured) -> Result<Moments> {
    let (n, mean) = (count(input)?, number(input)?);
    let most = n as f64 * mean * (1.0 - mean);
    let m2 = if input.ratio(1, 8)? {
        f64::arbitrary(input)?
    } else {
        most * number(input)?
    };
    Ok(Moments { n, mean, m2 })
}

fn calls(input: &mut Unstructured) -> Result<Calls> {
    Ok(Calls {
        all: count(input)?,
        failed: count(input)?,
    })
}

fn deployment(input: &mut Unstructured, strategy: Strategy) -> Result<Deployment> {
    let rollout = Rollout {
        stage: usize::arbitrary(input)?,
        current_percentage: u8::arbitrary(input)?,
        target_percentage: 100,
        last_increment_at: moment(input)?,
        next_increment_at: Some(moment(input)?).filter(|at| at.timestamp() % 2 == 0),
    };
    let due_at = moment(input)?;
    Ok(Deployment {
        id: Uuid::nil(),
        prompt_id: PromptId::parse("p").expect("an id"),
        environment: Environment::parse("e").expect("a name"),
        from_version: 1,
        from_version_proven: true,
        to_version: 2,
        strategy,
        status: *input.choose(&Status::ALL)?,
        status_message: String::new(),
        warning: String::new(),
        gates: several(input, gate)?,
        gates_passed: bool::arbitrary(input)?,
        gates_due_at: bool::arbitrary(input)?.then_some(due_at),
        rollout: bool::arbitrary(input)?.then_some(rollout),
        created_at: due_at,
        started_at: None,
        completed_at: None,
        created_by: String::new(),
        approved_by: String::new(),
        metadata: [].into(),
        updated_at: moment(input)?,
        revision: 0,
        event_count: 0,
    })
}

fn gate(input: &mut Unstructured) -> Result<GateResult> {
    let mut gate = GateResult {
        gate_id: Uuid::nil(),
        gate_name: "g".into(),
        required: bool::arbitrary(input)?,
        verdict: verdict(input)?,
        message: String::new(),
        conditions: Vec::new(),
    };
    gate.conditions = several(input, |input| {
        let again = [Again::Soon, Again::Never, Again::After(moment(input)?)];
        let note = if bool::arbitrary(input)? { "noted" } else { "" };
        Ok(ConditionResult {
            condition: Condition {
                kind: *input.choose(&ConditionType::ALL)?,
                operator: *input.choose(&Operator::ALL)?,
                threshold: number(input)?,
                source: Source::Outside,
            },
            actual: None,
            verdict: verdict(input)?,
            note: note.to_owned(),
            again: *input.choose(&again)?,
        })
    })?;
    Ok(gate)
}

fn verdict(input: &mut Unstructured) -> Result<Verdict> {
    let verdicts = [Verdict::Waiting, Verdict::Passed, Verdict::Failed];
    input.choose(&verdicts).copied()
}
