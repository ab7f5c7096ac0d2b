//! What a rollout has to show, and what it has shown.

use crate::{
    domain::{
        analysis::{
            AnalysisPolicy, BreakerRequest, Check, Metric, MetricRequest, PolicyRequest, Subject,
            Verdict, WithoutEvidence,
        },
        state::Status,
    },
    service::{Explained, NextAction},
    wire::pb,
};

use super::{all, count, time};

impl From<pb::AnalysisPolicy> for PolicyRequest {
    fn from(policy: pb::AnalysisPolicy) -> Self {
        let without_evidence = policy.without_evidence;
        Self {
            metrics: policy.metrics.into_iter().map(Into::into).collect(),
            alpha_rollback: policy.alpha_rollback,
            alpha_advance: policy.alpha_advance,
            units_rollback_min: policy.min_units_rollback,
            units_advance_min: policy.min_units_advance,
            without_evidence: match pb::WithoutEvidence::try_from(without_evidence) {
                Ok(pb::WithoutEvidence::Unspecified) => None,
                Ok(pb::WithoutEvidence::Hold) => Some(Ok(WithoutEvidence::Hold)),
                Ok(pb::WithoutEvidence::Advance) => Some(Ok(WithoutEvidence::Advance)),
                Ok(pb::WithoutEvidence::Rollback) => Some(Ok(WithoutEvidence::RollBack)),
                Err(_) => Some(Err(format!(
                    "is {without_evidence}, which is no value of WithoutEvidence"
                ))),
            },
            hold_seconds: policy.hold_seconds,
            breaker: policy.breaker.map(|breaker| BreakerRequest {
                calls: breaker.calls,
                failed: breaker.failed,
                stable_failed_share_max: breaker.stable_failed_share_max,
                off: breaker.off,
            }),
            provider_margin: policy.provider_margin,
            quality_margin: policy.quality_margin,
        }
    }
}

impl From<pb::MetricPolicy> for MetricRequest {
    fn from(policy: pb::MetricPolicy) -> Self {
        let number = policy.metric;
        Self {
            metric: match pb::Metric::try_from(number) {
                Ok(pb::Metric::Quality) => Ok(Metric::Quality),
                Ok(pb::Metric::Success) => Ok(Metric::Success),
                Ok(pb::Metric::Latency) => Ok(Metric::Latency),
                Ok(pb::Metric::Cost) => Ok(Metric::Cost),
                Ok(pb::Metric::Unspecified) => Err("is required: METRIC_QUALITY, \
                     METRIC_SUCCESS, METRIC_LATENCY or METRIC_COST"
                    .into()),
                Err(_) => Err(format!("is {number}, which is no value of Metric")),
            },
            tolerance: policy.tolerance,
            margin: policy.margin,
            limit: policy.limit,
        }
    }
}

impl From<AnalysisPolicy> for pb::AnalysisPolicy {
    fn from(policy: AnalysisPolicy) -> Self {
        let limits = policy.limits;
        let metrics = policy.comparisons.iter().map(|asked| pb::MetricPolicy {
            metric: pb::Metric::from(asked.metric).into(),
            tolerance: asked.tolerance,
            margin: asked.margin,
            limit: match asked.metric {
                Metric::Latency => limits.latency_ms.unwrap_or_default(),
                Metric::Cost => limits.cost_usd.unwrap_or_default(),
                Metric::Quality | Metric::Success => 0.0,
            },
        });
        let without_evidence = match policy.without_evidence {
            WithoutEvidence::Hold => pb::WithoutEvidence::Hold,
            WithoutEvidence::Advance => pb::WithoutEvidence::Advance,
            WithoutEvidence::RollBack => pb::WithoutEvidence::Rollback,
        };
        Self {
            metrics: metrics.collect(),
            alpha_rollback: policy.alpha_rollback,
            alpha_advance: policy.alpha_advance,
            min_units_rollback: count(policy.units_rollback_min),
            min_units_advance: count(policy.units_advance_min),
            without_evidence: without_evidence.into(),
            hold_seconds: count(policy.hold_max.as_secs()),
            breaker: Some(pb::CircuitBreaker {
                calls: count(policy.breaker.calls),
                failed: count(policy.breaker.failed),
                stable_failed_share_max: policy.breaker.stable_failed_share_max,
                off: policy.breaker.calls == 0,
            }),
            provider_margin: policy.provider_margin,
            quality_margin: policy.floor.map_or(0.0, |floor| floor.margin),
        }
    }
}

impl From<Metric> for pb::Metric {
    fn from(metric: Metric) -> Self {
        match metric {
            Metric::Quality => Self::Quality,
            Metric::Success => Self::Success,
            Metric::Latency => Self::Latency,
            Metric::Cost => Self::Cost,
        }
    }
}

impl From<Explained> for pb::ExplainDeploymentResponse {
    fn from(explained: Explained) -> Self {
        let deployment = explained.deployment;
        Self {
            status: pb::DeploymentStatus::from(deployment.status).into(),
            summary: explained.summary,
            next_action: pb::NextAction::from(explained.next_action).into(),
            next_check_at: time(explained.next_check_at),
            blocked_by: explained.blocked_by,
            gate_results: all(deployment.gates),
            checks: all(explained.checks),
            held_until: time(explained.held_until),
            acts: deployment.strategy.auto_rollback && deployment.status == Status::InProgress,
        }
    }
}

impl From<NextAction> for pb::NextAction {
    fn from(action: NextAction) -> Self {
        match action {
            NextAction::Nothing => Self::Unspecified,
            NextAction::Approve => Self::Approve,
            NextAction::JudgeGates => Self::JudgeGates,
            NextAction::Start => Self::Start,
            NextAction::Step => Self::Step,
            NextAction::Complete => Self::Complete,
            NextAction::Hold => Self::Hold,
            NextAction::RollBack => Self::RollBack,
            NextAction::Fail => Self::Fail,
        }
    }
}

impl From<Check> for pb::AnalysisCheck {
    fn from(check: Check) -> Self {
        let kind = match check.subject {
            Subject::Breaker => pb::CheckKind::Breaker,
            Subject::Comparison(_) => pb::CheckKind::Comparison,
            Subject::Floor => pb::CheckKind::Floor,
            Subject::Provider(_) => pb::CheckKind::Provider,
            Subject::Assignment => pb::CheckKind::Assignment,
        };
        let verdict = match check.verdict {
            Verdict::Good => pb::CheckVerdict::Good,
            Verdict::Bad => pb::CheckVerdict::Bad,
            Verdict::NoEvidence => pb::CheckVerdict::NoEvidence,
        };
        let metric = check.subject.metric().map(pb::Metric::from);
        let whole = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
        Self {
            kind: kind.into(),
            metric: metric.unwrap_or_default().into(),
            verdict: verdict.into(),
            candidate_count: whole(check.n_candidate),
            stable_count: whole(check.n_stable),
            estimate: check.numbers.map(|numbers| numbers.estimate),
            bound: check.numbers.map(|numbers| numbers.bound),
            threshold: check.numbers.map(|numbers| numbers.threshold),
            message: check.why,
            blocks: check.blocks,
        }
    }
}
