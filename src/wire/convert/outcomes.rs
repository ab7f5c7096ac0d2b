//! Outcomes, and the live metrics that they come to.

use chrono::{DateTime, Utc};

use super::count;
use crate::{
    domain::outcome::{OutcomeReport, Refusal, ScoreReport},
    service::Reported,
    store::Arm,
    wire::pb,
};

pub(in crate::wire) fn report(
    request: pb::ReportOutcomesRequest,
) -> (Vec<OutcomeReport>, Vec<ScoreReport>) {
    let outcomes = request.outcomes.into_iter().map(|outcome| OutcomeReport {
        id: outcome.id,
        prompt_id: outcome.prompt_id,
        environment: outcome.environment,
        version: outcome.version,
        unit: Some(outcome.unit),
        at: outcome.at.map(moment),
        error: outcome.error,
        latency_ms: outcome.latency_ms,
        quality_score: outcome.quality_score,
        cost_usd: outcome.cost_usd,
    });
    let scores = request.scores.into_iter().map(|score| ScoreReport {
        outcome_id: score.outcome_id,
        quality_score: score.quality_score,
        at: score.at.map(moment),
    });
    (outcomes.collect(), scores.collect())
}

fn moment(timestamp: pb::Timestamp) -> Result<DateTime<Utc>, String> {
    DateTime::try_from(timestamp).map_err(|why| format!("is {why}"))
}

impl From<Reported> for pb::ReportOutcomesResponse {
    fn from(reported: Reported) -> Self {
        let refused = reported.refused.into_iter();
        Self {
            accepted: count(reported.accepted),
            duplicates: count(reported.duplicates),
            refused: refused
                .map(|(place, refusal)| refused_outcome(place, refusal))
                .collect(),
        }
    }
}

fn refused_outcome(place: usize, refusal: Refusal) -> pb::RefusedOutcome {
    pb::RefusedOutcome {
        index: count(place),
        reason: refusal.reason.as_str().to_owned(),
        message: refusal.message,
    }
}

impl From<Arm> for pb::DeploymentMetrics {
    fn from(arm: Arm) -> Self {
        let (metrics, latency) = (arm.metrics, arm.latency.unwrap_or_default());
        Self {
            avg_latency_ms: metrics.latency_ms,
            error_rate: metrics.error_rate,
            quality_score: metrics.quality,
            request_count: count(metrics.calls),
            unit_count: metrics.units,
            score_count: metrics.scores,
            avg_cost_usd: metrics.cost_usd,
            latency_p50_ms: latency.p50_ms,
            latency_p95_ms: latency.p95_ms,
            latency_p99_ms: latency.p99_ms,
        }
    }
}
