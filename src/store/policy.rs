//! The analysis policy of a strategy, as JSON with every number in it: what was promised when a
//! deployment was created holds also when the defaults change.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::domain::analysis::{
    AnalysisPolicy, Breaker, Comparison, Floor, Limits, Metric, WithoutEvidence,
};

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    alpha_rollback: f64,
    alpha_advance: f64,
    alpha_assignment: f64,
    units_rollback_min: u64,
    units_advance_min: u64,
    sharpest_at_units: f64,
    comparisons: Vec<StoredComparison>,
    latency_limit_ms: Option<f64>,
    cost_limit_usd: Option<f64>,
    floor: Option<StoredFloor>,
    breaker_calls: u64,
    breaker_failed: u64,
    breaker_stable_failed_share_max: f64,
    provider_margin: f64,
    without_evidence: String,
    hold_seconds: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredComparison {
    metric: String,
    tolerance: f64,
    margin: f64,
}

#[derive(Debug, Serialize, Deserialize)]
struct StoredFloor {
    threshold: f64,
    margin: f64,
}

const WITHOUT_EVIDENCE: [(WithoutEvidence, &str); 3] = [
    (WithoutEvidence::Hold, "HOLD"),
    (WithoutEvidence::Advance, "ADVANCE"),
    (WithoutEvidence::RollBack, "ROLLBACK"),
];

/// A policy as it is stored.
pub(super) fn write(policy: &AnalysisPolicy) -> serde_json::Value {
    let comparison = |asked: &Comparison| StoredComparison {
        metric: asked.metric.as_str().to_owned(),
        tolerance: asked.tolerance,
        margin: asked.margin,
    };
    let named = WITHOUT_EVIDENCE
        .iter()
        .find(|(choice, _)| *choice == policy.without_evidence);
    let stored = Stored {
        alpha_rollback: policy.alpha_rollback,
        alpha_advance: policy.alpha_advance,
        alpha_assignment: policy.alpha_assignment,
        units_rollback_min: policy.units_rollback_min,
        units_advance_min: policy.units_advance_min,
        sharpest_at_units: policy.sharpest_at_units,
        comparisons: policy.comparisons.iter().map(comparison).collect(),
        latency_limit_ms: policy.limits.latency_ms,
        cost_limit_usd: policy.limits.cost_usd,
        floor: policy.floor.map(|floor| StoredFloor {
            threshold: floor.threshold,
            margin: floor.margin,
        }),
        breaker_calls: policy.breaker.calls,
        breaker_failed: policy.breaker.failed,
        breaker_stable_failed_share_max: policy.breaker.stable_failed_share_max,
        provider_margin: policy.provider_margin,
        without_evidence: named.map_or("HOLD", |(_, name)| name).to_owned(),
        hold_seconds: policy.hold_max.as_secs(),
    };
    serde_json::json!(stored)
}

/// A stored policy; of a deployment from before there were any, the default with the floor that its
/// threshold asks for.
pub(super) fn read(
    stored: Option<serde_json::Value>,
    quality_min: f64,
) -> Result<AnalysisPolicy, String> {
    let Some(stored) = stored else {
        return Ok(AnalysisPolicy {
            floor: (quality_min > 0.0).then(|| Floor::at(quality_min)),
            ..AnalysisPolicy::default()
        });
    };
    let stored: Stored = serde_json::from_value(stored).map_err(corrupt)?;
    let comparison = |stored: &StoredComparison| {
        let metrics = Metric::ALL.into_iter();
        let metric = metrics
            .into_iter()
            .find(|metric| metric.as_str() == stored.metric);
        Ok(Comparison {
            metric: metric.ok_or_else(|| corrupt(format!("metric '{}'", stored.metric)))?,
            tolerance: stored.tolerance,
            margin: stored.margin,
        })
    };
    let without_evidence = WITHOUT_EVIDENCE
        .iter()
        .find(|(_, name)| *name == stored.without_evidence);
    let comparisons = stored.comparisons.iter().map(comparison);
    Ok(AnalysisPolicy {
        alpha_rollback: stored.alpha_rollback,
        alpha_advance: stored.alpha_advance,
        units_rollback_min: stored.units_rollback_min,
        units_advance_min: stored.units_advance_min,
        sharpest_at_units: stored.sharpest_at_units,
        comparisons: comparisons.collect::<Result<_, String>>()?,
        limits: Limits {
            latency_ms: stored.latency_limit_ms,
            cost_usd: stored.cost_limit_usd,
        },
        floor: stored.floor.map(|floor| Floor {
            threshold: floor.threshold,
            margin: floor.margin,
        }),
        breaker: Breaker {
            calls: stored.breaker_calls,
            failed: stored.breaker_failed,
            stable_failed_share_max: stored.breaker_stable_failed_share_max,
        },
        provider_margin: stored.provider_margin,
        alpha_assignment: stored.alpha_assignment,
        without_evidence: without_evidence
            .map(|(choice, _)| *choice)
            .ok_or_else(|| corrupt(format!("without_evidence '{}'", stored.without_evidence)))?,
        hold_max: Duration::from_secs(stored.hold_seconds),
    })
}

fn corrupt(what: impl std::fmt::Display) -> String {
    format!("analysis: {what}")
}
