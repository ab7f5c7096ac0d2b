//! Those who deploy: Ada, who writes prompts, and Grace, who approves them.

use delos_deploy::wire::pb::{
    ApproveDeploymentRequest, CreateDeploymentRequest, CreateQualityGateRequest, Deployment,
    DeploymentStrategy, DeploymentType, Event, ExplainDeploymentRequest, ExplainDeploymentResponse,
    GateCondition, GetDeploymentRequest, ListEventsRequest,
    audit_service_client::AuditServiceClient, deploy_service_client::DeployServiceClient,
};
use tonic::{Request, metadata::MetadataValue, transport::Channel};

use crate::{DATASET, ENVIRONMENT, Failure, PROMPT};

/// What the team calls.
pub(crate) struct Team {
    deploy: DeployServiceClient<Channel>,
    audit: AuditServiceClient<Channel>,
}

impl Team {
    /// The team, connected to the service so.
    pub(crate) fn new(channel: &Channel) -> Self {
        Self {
            deploy: DeployServiceClient::new(channel.clone()),
            audit: AuditServiceClient::new(channel.clone()),
        }
    }

    /// Ada deploys a version.
    pub(crate) async fn create(
        &mut self,
        version: i32,
        strategy: DeploymentStrategy,
        skip_approval: bool,
    ) -> Result<Deployment, Failure> {
        let request = CreateDeploymentRequest {
            prompt_id: PROMPT.into(),
            to_version: version,
            environment: ENVIRONMENT.into(),
            strategy: Some(strategy),
            skip_approval,
            ..Default::default()
        };
        let answer = self.deploy.create_deployment(by("ada", request)).await?;
        let deployment = answer.into_inner().deployment;
        deployment.ok_or_else(|| "CreateDeployment answered no deployment".into())
    }

    /// Grace approves a deployment.
    pub(crate) async fn approve(&mut self, id: &str) -> Result<(), Failure> {
        let request = ApproveDeploymentRequest {
            id: id.to_owned(),
            comment: "reads well".into(),
            request_id: String::new(),
        };
        self.deploy.approve_deployment(by("grace", request)).await?;
        Ok(())
    }

    /// Grace asks that a version has a score on examples before it gets any traffic.
    pub(crate) async fn create_gate(&mut self, score_min: f64) -> Result<(), Failure> {
        let request = CreateQualityGateRequest {
            name: "answers on examples".into(),
            prompt_id: PROMPT.into(),
            conditions: vec![GateCondition {
                r#type: "eval_score".into(),
                operator: "gte".into(),
                threshold: score_min,
                dataset_id: DATASET.into(),
                ..Default::default()
            }],
            required: true,
            request_id: String::new(),
        };
        self.deploy
            .create_quality_gate(by("grace", request))
            .await?;
        Ok(())
    }

    /// A deployment as it is now.
    pub(crate) async fn get(&mut self, id: &str) -> Result<Deployment, Failure> {
        let request = GetDeploymentRequest { id: id.to_owned() };
        let answer = self.deploy.get_deployment(request).await?.into_inner();
        let deployment = answer.deployment;
        deployment.ok_or_else(|| "GetDeployment answered no deployment".into())
    }

    /// Why a deployment is where it is.
    pub(crate) async fn explain(&mut self, id: &str) -> Result<ExplainDeploymentResponse, Failure> {
        let request = ExplainDeploymentRequest { id: id.to_owned() };
        Ok(self.deploy.explain_deployment(request).await?.into_inner())
    }

    /// Who has done what to a deployment.
    pub(crate) async fn events(&mut self, id: &str) -> Result<Vec<Event>, Failure> {
        let request = ListEventsRequest {
            deployment_id: id.to_owned(),
            ..Default::default()
        };
        Ok(self.audit.list_events(request).await?.into_inner().events)
    }
}

/// All traffic at once.
pub(crate) fn at_once() -> DeploymentStrategy {
    DeploymentStrategy {
        r#type: DeploymentType::Immediate.into(),
        ..Default::default()
    }
}

/// A share of traffic for some seconds, then all of it where the evidence is good, or none.
pub(crate) fn canary(percent: i32, seconds: i32) -> DeploymentStrategy {
    DeploymentStrategy {
        r#type: DeploymentType::Canary.into(),
        initial_percentage: percent,
        interval_seconds: seconds,
        auto_rollback: true,
        ..Default::default()
    }
}

/// A call by somebody.
fn by<T>(actor: &'static str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let metadata = request.metadata_mut();
    metadata.insert("x-delos-actor", MetadataValue::from_static(actor));
    request
}
