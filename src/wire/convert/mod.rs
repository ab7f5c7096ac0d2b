//! How messages and values of the domain correspond: once, for every protocol.

mod analysis;
mod outcomes;

pub(super) use outcomes::report;

use std::time::Duration;

use crate::{
    domain::{
        Timestamp,
        audit::Event,
        bucket::Arm,
        convergence::{Convergence, ReplicaConvergence, Report},
        deployment::{Deployment, DeploymentRequest, Rollout},
        gate::{Condition, ConditionRequest, Gate, GateRequest, Source},
        judgement::{ConditionResult, GateResult, Verdict},
        state::Status,
        strategy::{Strategy, StrategyRequest, StrategyType},
        traffic::Traffic,
    },
    service::{
        AllServed, ConditionReport, DeploymentPage, DeploymentQuery, EventPage, EventQuery,
        Progress, RolledBack, Served, Split,
    },
    traffic::Update,
    wire::pb,
};

pub(super) fn deployment_request(request: pb::CreateDeploymentRequest) -> DeploymentRequest {
    let strategy = request.strategy.unwrap_or_default();
    DeploymentRequest {
        prompt_id: request.prompt_id,
        environment: request.environment,
        to_version: request.to_version,
        strategy: StrategyRequest {
            kind: strategy_type(strategy.r#type),
            initial_percentage: strategy.initial_percentage,
            increment: strategy.increment,
            interval_seconds: strategy.interval_seconds,
            auto_rollback: strategy.auto_rollback,
            rollback_threshold: strategy.rollback_threshold,
            analysis: strategy.analysis.map(Into::into).unwrap_or_default(),
        },
        metadata: request.metadata.into_iter().collect(),
        skip_approval: request.skip_approval,
    }
}

pub(super) fn deployment_query(request: pb::ListDeploymentsRequest) -> DeploymentQuery {
    DeploymentQuery {
        prompt_id: request.prompt_id,
        environment: request.environment,
        status: status_filter(request.status),
        limit: request.limit,
        offset: request.offset,
    }
}

pub(super) fn gate_request(request: pb::CreateQualityGateRequest) -> GateRequest {
    let conditions = request
        .conditions
        .into_iter()
        .map(|condition| ConditionRequest {
            kind: condition.r#type,
            operator: condition.operator,
            threshold: condition.threshold,
            eval_run_id: condition.eval_run_id,
            dataset_id: condition.dataset_id,
            url: condition.url,
            baseline: condition.baseline,
        });
    GateRequest {
        name: request.name,
        prompt_id: request.prompt_id,
        conditions: conditions.collect(),
        required: request.required,
    }
}

pub(super) fn event_query(request: pb::ListEventsRequest) -> (EventQuery, i32, String) {
    let query = EventQuery {
        deployment_id: request.deployment_id,
        prompt_id: request.prompt_id,
        environment: request.environment,
        actor: request.actor,
        action: request.action,
    };
    (query, request.page_size, request.page_token)
}

fn strategy_type(number: i32) -> Result<Option<StrategyType>, String> {
    match pb::DeploymentType::try_from(number) {
        Ok(pb::DeploymentType::Unspecified) => Ok(None),
        Ok(pb::DeploymentType::Immediate) => Ok(Some(StrategyType::Immediate)),
        Ok(pb::DeploymentType::Gradual) => Ok(Some(StrategyType::Gradual)),
        Ok(pb::DeploymentType::Canary) => Ok(Some(StrategyType::Canary)),
        Ok(pb::DeploymentType::BlueGreen) => Ok(Some(StrategyType::BlueGreen)),
        Err(_) => Err(format!("is {number}, which is no value of DeploymentType")),
    }
}

fn status_filter(number: i32) -> Result<Option<Status>, String> {
    if number == 0 {
        return Ok(None);
    }
    Status::ALL
        .into_iter()
        .find(|status| pb::DeploymentStatus::from(*status) as i32 == number)
        .map(Some)
        .ok_or_else(|| format!("is {number}, which is no value of DeploymentStatus"))
}

impl From<Status> for pb::DeploymentStatus {
    fn from(status: Status) -> Self {
        match status {
            Status::PendingApproval => Self::PendingApproval,
            Status::PendingGates => Self::PendingGates,
            Status::GatesFailed => Self::GatesFailed,
            Status::InProgress => Self::InProgress,
            Status::Completed => Self::Completed,
            Status::RolledBack => Self::RolledBack,
            Status::Cancelled => Self::Cancelled,
            Status::Failed => Self::Failed,
        }
    }
}

impl From<Deployment> for pb::Deployment {
    fn from(deployment: Deployment) -> Self {
        Self {
            id: deployment.id.to_string(),
            prompt_id: deployment.prompt_id.to_string(),
            from_version: deployment.from_version,
            to_version: deployment.to_version,
            environment: deployment.environment.to_string(),
            strategy: Some(deployment.strategy.into()),
            status: pb::DeploymentStatus::from(deployment.status).into(),
            status_message: deployment.status_message,
            gate_results: all(deployment.gates),
            gates_passed: deployment.gates_passed,
            rollout: deployment.rollout.map(Into::into),
            created_at: Some(deployment.created_at.into()),
            started_at: time(deployment.started_at),
            completed_at: time(deployment.completed_at),
            created_by: deployment.created_by,
            approved_by: deployment.approved_by,
            metadata: deployment.metadata.into_iter().collect(),
            warning: deployment.warning,
        }
    }
}

impl From<Strategy> for pb::DeploymentStrategy {
    fn from(strategy: Strategy) -> Self {
        let kind = match strategy.kind {
            StrategyType::Immediate => pb::DeploymentType::Immediate,
            StrategyType::Gradual => pb::DeploymentType::Gradual,
            StrategyType::Canary => pb::DeploymentType::Canary,
            StrategyType::BlueGreen => pb::DeploymentType::BlueGreen,
        };
        Self {
            r#type: kind.into(),
            initial_percentage: strategy.initial_percentage.into(),
            increment: strategy.increment.into(),
            interval_seconds: count(strategy.interval.as_secs()),
            auto_rollback: strategy.auto_rollback,
            rollback_threshold: strategy.rollback_threshold,
            // All traffic at once is judged by nothing.
            analysis: (strategy.kind != StrategyType::Immediate).then(|| strategy.analysis.into()),
        }
    }
}

impl From<Rollout> for pb::RolloutProgress {
    fn from(rollout: Rollout) -> Self {
        Self {
            current_percentage: rollout.current_percentage.into(),
            target_percentage: rollout.target_percentage.into(),
            last_increment_at: Some(rollout.last_increment_at.into()),
            next_increment_at: time(rollout.next_increment_at),
        }
    }
}

impl From<GateResult> for pb::QualityGateResult {
    fn from(result: GateResult) -> Self {
        Self {
            gate_id: result.gate_id.to_string(),
            gate_name: result.gate_name,
            passed: result.verdict == Verdict::Passed,
            message: result.message,
            condition_results: all(result.conditions),
        }
    }
}

impl From<ConditionResult> for pb::ConditionResult {
    fn from(result: ConditionResult) -> Self {
        Self {
            r#type: result.condition.kind.as_str().to_owned(),
            expected: result.condition.limit(),
            actual: result.actual.unwrap_or_default(),
            passed: result.verdict == Verdict::Passed,
        }
    }
}

impl From<Gate> for pb::QualityGate {
    fn from(gate: Gate) -> Self {
        Self {
            id: gate.id.to_string(),
            name: gate.name,
            prompt_id: gate.prompt_id.to_string(),
            conditions: all(gate.conditions),
            required: gate.required,
            created_at: Some(gate.created_at.into()),
            created_by: gate.created_by.as_str().to_owned(),
        }
    }
}

impl From<Condition> for pb::GateCondition {
    fn from(condition: Condition) -> Self {
        let mut message = Self {
            r#type: condition.kind.as_str().to_owned(),
            operator: condition.operator.as_str().to_owned(),
            threshold: condition.threshold,
            ..Self::default()
        };
        match condition.source {
            Source::Run(id) => message.eval_run_id = id,
            Source::Dataset(id) => message.dataset_id = id,
            Source::Webhook(endpoint) => endpoint.as_str().clone_into(&mut message.url),
            Source::BothVersions(id) => {
                message.dataset_id = id;
                message.baseline = true;
            }
            Source::SameGate | Source::Outside => {}
        }
        message
    }
}

impl From<Event> for pb::Event {
    fn from(event: Event) -> Self {
        let status = |status: Status| i32::from(pb::DeploymentStatus::from(status));
        Self {
            deployment_id: event.deployment_id.to_string(),
            sequence: event.sequence,
            at: Some(event.at.into()),
            actor: event.actor,
            action: event.action.as_str().to_owned(),
            from_status: event.from.map_or(0, status),
            to_status: status(event.to),
            reason: event.reason,
            request_id: event.request_id,
            details: event.details.into_iter().collect(),
        }
    }
}

/// Responses that hold one thing.
macro_rules! holds {
    ($($response:ident { $field:ident: $value:ty }),* $(,)?) => {$(
        impl From<$value> for pb::$response {
            fn from(value: $value) -> Self {
                Self { $field: Some(value.into()) }
            }
        }
    )*};
}

holds! {
    CreateDeploymentResponse { deployment: Deployment },
    GetDeploymentResponse { deployment: Deployment },
    ApproveDeploymentResponse { deployment: Deployment },
    ReportGateConditionResponse { deployment: Deployment },
    CancelDeploymentResponse { deployment: Deployment },
    CreateQualityGateResponse { quality_gate: Gate },
}

impl From<Vec<Gate>> for pb::ListQualityGatesResponse {
    fn from(gates: Vec<Gate>) -> Self {
        Self {
            quality_gates: all(gates),
        }
    }
}

impl From<RolledBack> for pb::RollbackDeploymentResponse {
    fn from(back: RolledBack) -> Self {
        Self {
            deployment: Some(back.deployment.into()),
            rollback_deployment: back.rollback_deployment.map(Into::into),
        }
    }
}

impl From<DeploymentPage> for pb::ListDeploymentsResponse {
    fn from(page: DeploymentPage) -> Self {
        Self {
            deployments: all(page.deployments),
            total_count: count(page.total),
        }
    }
}

impl From<EventPage> for pb::ListEventsResponse {
    fn from(page: EventPage) -> Self {
        Self {
            events: all(page.events),
            next_page_token: page.next_page_token,
        }
    }
}

impl From<Progress> for pb::GetDeploymentStatusResponse {
    fn from(progress: Progress) -> Self {
        let deployment = progress.deployment;
        Self {
            status: pb::DeploymentStatus::from(deployment.status).into(),
            rollout: deployment.rollout.map(Into::into),
            gate_results: all(deployment.gates),
            current_metrics: progress.current.map(Into::into),
            baseline_metrics: progress.baseline.map(Into::into),
            convergence: Some(pb::Convergence {
                observed_share: progress.share.map(|(observed, _)| observed),
                wanted_share: progress.share.map(|(_, wanted)| wanted),
                ..progress.convergence.into()
            }),
        }
    }
}

impl From<Convergence> for pb::Convergence {
    fn from(convergence: Convergence) -> Self {
        let (watchers, watchers_behind) = convergence.watchers();
        Self {
            revision: convergence.revision,
            converged: convergence.is_complete(),
            watchers: count(watchers),
            watchers_behind: count(watchers_behind),
            replicas: all(convergence.replicas),
            observed_share: None,
            wanted_share: None,
        }
    }
}

impl From<ReplicaConvergence> for pb::ReplicaConvergence {
    fn from(replica: ReplicaConvergence) -> Self {
        let Report {
            replica_id,
            seen_at,
            spread,
        } = replica.report;
        Self {
            replica_id: replica_id.to_string(),
            revision: spread.revision,
            watchers: count(spread.watchers),
            watchers_behind: count(spread.watchers_behind),
            seen_at: Some(seen_at.into()),
            silent: replica.is_silent,
        }
    }
}

pub(super) fn condition_report(request: pb::ReportGateConditionRequest) -> ConditionReport {
    ConditionReport {
        gate_id: request.gate_id,
        index: request.index,
        actual: request.actual,
        passed: request.passed,
        message: request.message,
    }
}

/// A count on the wire, which has no larger ones than fit.
fn count<N>(number: N) -> i32
where
    i32: TryFrom<N>,
{
    i32::try_from(number).unwrap_or(i32::MAX)
}

impl From<&Traffic> for pb::Traffic {
    fn from(traffic: &Traffic) -> Self {
        let (stable, candidate) = (traffic.stable.as_ref(), traffic.candidate.as_ref());
        let deployment = candidate.map(|candidate| candidate.deployment_id);
        let deployment = deployment.or(stable.map(|stable| stable.deployment_id));
        Self {
            prompt_id: traffic.prompt_id.to_string(),
            environment: traffic.environment.to_string(),
            stable_version: traffic.stable_version(),
            candidate_version: candidate.map_or(0, |candidate| candidate.version),
            candidate_percentage: candidate.map_or(0, |candidate| candidate.percentage.into()),
            deployment_id: deployment.map_or_else(String::new, |id| id.to_string()),
            revision: traffic.revision,
        }
    }
}

/// A staleness on the wire, 0 for none.
pub(super) fn stale_seconds(staleness: Option<Duration>) -> i32 {
    staleness.map_or(0, |it| count(it.as_secs()))
}

impl From<Served> for pb::GetTrafficResponse {
    fn from(served: Served) -> Self {
        Self {
            traffic: Some(served.traffic.as_ref().into()),
            stale_seconds: stale_seconds(served.staleness),
        }
    }
}

impl From<AllServed> for pb::ListTrafficResponse {
    fn from(served: AllServed) -> Self {
        let traffic = served.traffic.iter();
        Self {
            traffic: traffic.map(|traffic| traffic.as_ref().into()).collect(),
            revision: served.revision,
            stale_seconds: stale_seconds(served.staleness),
        }
    }
}

impl From<Update> for pb::WatchTrafficResponse {
    fn from(update: Update) -> Self {
        Self {
            traffic: update
                .traffic
                .iter()
                .map(|traffic| traffic.as_ref().into())
                .collect(),
            revision: update.revision,
            snapshot: update.snapshot,
            stale_seconds: stale_seconds(update.staleness),
        }
    }
}

impl From<Split> for pb::ResolveVersionResponse {
    fn from(split: Split) -> Self {
        let Split {
            assignment,
            traffic,
            staleness,
        } = split;
        let arm = match assignment.arm {
            Arm::Stable => pb::Arm::Stable,
            Arm::Candidate => pb::Arm::Candidate,
            Arm::Preview => pb::Arm::Preview,
        };
        let deployment_id = assignment.deployment_id.to_string();
        // The first two are OpenTelemetry's GenAI conventions, the others ours.
        let attributes = [
            ("gen_ai.prompt.name", traffic.prompt_id.to_string()),
            ("gen_ai.prompt.version", assignment.version.to_string()),
            ("delos.environment", traffic.environment.to_string()),
            ("delos.deployment.id", deployment_id.clone()),
            ("delos.deployment.arm", arm_name(assignment.arm).to_owned()),
        ];
        Self {
            version: assignment.version,
            arm: arm.into(),
            deployment_id,
            revision: traffic.revision,
            attributes: attributes
                .map(|(name, value)| (name.to_owned(), value))
                .into(),
            stale_seconds: stale_seconds(staleness),
        }
    }
}

/// The name of an arm in attributes.
pub(super) fn arm_name(arm: Arm) -> &'static str {
    match arm {
        Arm::Stable => "stable",
        Arm::Candidate => "candidate",
        Arm::Preview => "preview",
    }
}

/// Each value as its message.
fn all<D, M: From<D>>(values: Vec<D>) -> Vec<M> {
    values.into_iter().map(Into::into).collect()
}

fn time(at: Option<Timestamp>) -> Option<pb::Timestamp> {
    at.map(Into::into)
}
