//! Calls of DeployService.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use delos_deploy::wire::pb::{
    CreateDeploymentRequest, Deployment, DeploymentStatus, DeploymentStrategy, DeploymentType,
    ExplainDeploymentRequest, GetDeploymentRequest, GetDeploymentResponse, HealthRequest,
    NextAction, RolloutProgress, Timestamp, deploy_service_client::DeployServiceClient,
};
use tonic::transport::Channel;

use super::told;
use crate::{
    Failure,
    load::{Caller, grpc},
};

/// A client over one connection.
pub(crate) type Client = DeployServiceClient<Channel>;

/// A day: longer than the bench, so that the reconciler leaves the deployments of the other parts
/// alone.
pub(super) const INTERVAL_SECONDS: i32 = 86_400;

/// What is called.
#[derive(Debug)]
pub(crate) enum Call {
    /// Health, which asks nothing of the storage.
    Health,
    /// GetDeployment of one deployment.
    Get(Box<GetDeploymentResponse>),
    /// CreateDeployment of a prompt that had none.
    Create(Create),
}

/// Makes a call over and over.
pub(crate) struct Calling {
    client: Client,
    call: Arc<Call>,
}

impl Calling {
    /// Makes `call` over a connection.
    pub(crate) fn new(channel: Channel, call: &Arc<Call>) -> Self {
        Self {
            client: Client::new(channel),
            call: Arc::clone(call),
        }
    }
}

impl Caller for Calling {
    async fn call(&mut self) -> Result<(), Failure> {
        self.call.make(&mut self.client).await
    }
}

/// Connects.
pub(crate) async fn connect(port: u16) -> Result<Client, Failure> {
    Ok(Client::new(grpc::connect(port).await?))
}

/// Creations, each of its own prompt.
#[derive(Debug)]
pub(crate) struct Create {
    /// Tells the prompts of one load from those of the others.
    pub(crate) name: String,
    /// Environments to spread over.
    pub(crate) environments: u64,
    /// How traffic shifts.
    pub(crate) strategy: DeploymentStrategy,
    /// How many were begun.
    pub(crate) begun: AtomicU64,
}

impl Call {
    /// A GetDeployment whose every answer must be equal to the first.
    pub(crate) async fn get(client: &mut Client, id: &str) -> Result<Self, Failure> {
        let answer = get(client, id).await?;
        let found = answer.deployment.as_ref().map(|deployment| &*deployment.id);
        if found != Some(id) {
            return Err(format!("GetDeployment of {id} answered {answer:?}").into());
        }
        Ok(Self::Get(Box::new(answer)))
    }

    /// Calls once and checks the answer.
    async fn make(&self, client: &mut Client) -> Result<(), Failure> {
        match self {
            Self::Health => health(client).await,
            Self::Get(expected) => {
                let id = expected
                    .deployment
                    .as_ref()
                    .map_or("", |deployment| &deployment.id);
                let answer = get(client, id).await?;
                if answer == **expected {
                    Ok(())
                } else {
                    Err(format!("GetDeployment answered {answer:?}, before {expected:?}").into())
                }
            }
            Self::Create(create) => create.one(client).await.map(|_| ()),
        }
    }
}

impl Create {
    /// Gradual rollouts that stay at their first step.
    pub(crate) fn new(name: String, environments: u64) -> Self {
        Self {
            name,
            environments,
            strategy: gradual(10, INTERVAL_SECONDS),
            begun: AtomicU64::new(0),
        }
    }

    /// Creates the next one.
    pub(crate) async fn one(&self, client: &mut Client) -> Result<Deployment, Failure> {
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let request = CreateDeploymentRequest {
            prompt_id: format!("{}-{number}", self.name),
            to_version: 1,
            environment: format!("production-{}", number % self.environments + 1),
            strategy: Some(self.strategy.clone()),
            skip_approval: true,
            metadata: labels(),
            request_id: String::new(),
        };
        let prompt_id = request.prompt_id.clone();
        let answer = client.create_deployment(request).await;
        let answer = answer.map_err(|status| told("CreateDeployment", &status))?;
        let deployment = answer.into_inner().deployment.unwrap_or_default();
        let percentage = deployment.rollout.map(|rollout| rollout.current_percentage);
        let is_right = deployment.prompt_id == prompt_id
            && deployment.status() == DeploymentStatus::InProgress
            && percentage == Some(self.strategy.initial_percentage);
        if is_right {
            Ok(deployment)
        } else {
            Err(format!("CreateDeployment of {prompt_id} answered {deployment:?}").into())
        }
    }
}

/// A gradual rollout with steps of `percent`.
pub(crate) fn gradual(percent: i32, interval_seconds: i32) -> DeploymentStrategy {
    DeploymentStrategy {
        r#type: DeploymentType::Gradual.into(),
        initial_percentage: percent,
        increment: percent,
        interval_seconds,
        ..Default::default()
    }
}

/// What the echo answers: as large as what the service answers for a deployment of [`Create`].
pub(crate) fn example() -> Deployment {
    let now = Timestamp {
        seconds: 1_790_000_000,
        nanos: 555_019_000,
    };
    let next = Timestamp {
        seconds: now.seconds + i64::from(INTERVAL_SECONDS),
        ..now
    };
    Deployment {
        id: "01a20fb2-eba8-7620-81ec-a98593c1d4b4".into(),
        prompt_id: "support-answer-0".into(),
        from_version: 0,
        to_version: 1,
        environment: "production-1".into(),
        strategy: Some(gradual(10, INTERVAL_SECONDS)),
        status: DeploymentStatus::InProgress.into(),
        status_message: "version 1 receives 10 % of traffic; 20 % at 2026-09-22T14:13:20.555019Z"
            .into(),
        gates_passed: true,
        rollout: Some(RolloutProgress {
            current_percentage: 10,
            target_percentage: 100,
            last_increment_at: Some(now),
            next_increment_at: Some(next),
        }),
        created_at: Some(now),
        started_at: Some(now),
        created_by: "anonymous".into(),
        metadata: labels(),
        ..Default::default()
    }
}

fn labels() -> HashMap<String, String> {
    HashMap::from([
        ("team".to_owned(), "support".to_owned()),
        ("ticket".to_owned(), "CHG-20417".to_owned()),
    ])
}

/// Whether what is known by now takes a version back, or has done so.
pub(crate) async fn is_rolled_back(client: &mut Client, id: &str) -> Result<bool, Failure> {
    let request = ExplainDeploymentRequest { id: id.to_owned() };
    let answer = client.explain_deployment(request).await;
    let answer = answer
        .map_err(|status| told("ExplainDeployment", &status))?
        .into_inner();
    Ok(answer.status() == DeploymentStatus::RolledBack
        || answer.next_action() == NextAction::RollBack)
}

async fn get(client: &mut Client, id: &str) -> Result<GetDeploymentResponse, Failure> {
    let request = GetDeploymentRequest { id: id.to_owned() };
    let answer = client.get_deployment(request).await;
    Ok(answer
        .map_err(|status| told("GetDeployment", &status))?
        .into_inner())
}

async fn health(client: &mut Client) -> Result<(), Failure> {
    let answer = client.health(HealthRequest {}).await;
    let answer = answer
        .map_err(|status| told("Health", &status))?
        .into_inner();
    if answer.status == "healthy" {
        Ok(())
    } else {
        Err(format!("Health answered {answer:?}").into())
    }
}
