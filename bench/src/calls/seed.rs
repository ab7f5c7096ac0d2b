//! Deployments that a part needs before it measures.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use delos_deploy::wire::pb::{
    CreateDeploymentRequest, DeploymentStrategy, DeploymentType, ListTrafficRequest, Traffic,
};
use tokio::task::JoinSet;

use super::{
    deployments::{self, Client, INTERVAL_SECONDS, gradual},
    told, traffic,
};
use crate::Failure;

/// How many deployments are created at a time.
const CALLERS: usize = 16;
/// How long it may take until what was deployed is served.
const PATIENCE: Duration = Duration::from_secs(30);

/// Prompts of version 1, and version 2 underway at ten percent for each; gives back the deployments
/// of version 2, in the order of the prompts.
pub(crate) async fn rollouts(
    port: u16,
    environment: &str,
    prompts: &[String],
) -> Result<Vec<String>, Failure> {
    roll_out(port, environment, prompts, gradual(10, INTERVAL_SECONDS)).await
}

/// The same with canaries at `percent`, which are rolled back by their live evidence.
pub(crate) async fn canaries(
    port: u16,
    environment: &str,
    prompts: &[String],
    percent: i32,
) -> Result<Vec<String>, Failure> {
    let strategy = DeploymentStrategy {
        r#type: DeploymentType::Canary.into(),
        initial_percentage: percent,
        interval_seconds: INTERVAL_SECONDS,
        auto_rollback: true,
        ..Default::default()
    };
    roll_out(port, environment, prompts, strategy).await
}

async fn roll_out(
    port: u16,
    environment: &str,
    prompts: &[String],
    strategy: DeploymentStrategy,
) -> Result<Vec<String>, Failure> {
    versions(port, environment, prompts).await?;
    let mut client = deployments::connect(port).await?;
    let percent = strategy.initial_percentage;
    let mut ids = Vec::new();
    for prompt in prompts {
        ids.push(create(&mut client, environment, prompt, 2, strategy.clone()).await?);
    }
    served(port, environment, prompts.len(), |split| {
        split.candidate_version == 2 && split.candidate_percentage == percent
    })
    .await?;
    Ok(ids)
}

/// Prompts of version 1, served to everybody; returns once all of them are.
pub(crate) async fn versions(
    port: u16,
    environment: &str,
    prompts: &[String],
) -> Result<(), Failure> {
    let client = deployments::connect(port).await?;
    let prompts: Arc<[String]> = prompts.into();
    let next = Arc::new(AtomicUsize::new(0));
    let mut callers = JoinSet::new();
    for _ in 0..CALLERS {
        let (mut client, environment) = (client.clone(), environment.to_owned());
        let (prompts, next) = (Arc::clone(&prompts), Arc::clone(&next));
        callers.spawn(async move {
            while let Some(prompt) = prompts.get(next.fetch_add(1, Ordering::Relaxed)) {
                create(&mut client, &environment, prompt, 1, immediate()).await?;
            }
            Ok::<_, Failure>(())
        });
    }
    while let Some(created) = callers.join_next().await {
        created??;
    }
    served(port, environment, prompts.len(), |split| {
        split.stable_version == 1
    })
    .await
}

fn immediate() -> DeploymentStrategy {
    DeploymentStrategy {
        r#type: DeploymentType::Immediate.into(),
        ..Default::default()
    }
}

async fn create(
    client: &mut Client,
    environment: &str,
    prompt: &str,
    version: i32,
    strategy: DeploymentStrategy,
) -> Result<String, Failure> {
    let request = CreateDeploymentRequest {
        prompt_id: prompt.to_owned(),
        to_version: version,
        environment: environment.to_owned(),
        strategy: Some(strategy),
        skip_approval: true,
        ..Default::default()
    };
    let answer = client.create_deployment(request).await;
    let answer = answer.map_err(|status| told("CreateDeployment", &status))?;
    let deployment = answer.into_inner().deployment;
    Ok(deployment
        .ok_or("CreateDeployment answered no deployment")?
        .id)
}

/// Waits until as many prompts of the environment are served as they should be.
pub(crate) async fn served(
    port: u16,
    environment: &str,
    count: usize,
    as_it_should_be: impl Fn(&Traffic) -> bool,
) -> Result<(), Failure> {
    let mut client = traffic::connect(port)
        .await?
        .max_decoding_message_size(usize::MAX);
    let since = Instant::now();
    loop {
        let request = ListTrafficRequest {
            environment: environment.to_owned(),
        };
        let answer = client.list_traffic(request).await;
        let answer = answer.map_err(|status| told("ListTraffic", &status))?;
        let splits = answer.into_inner().traffic;
        if splits.len() == count && splits.iter().all(&as_it_should_be) {
            return Ok(());
        }
        if since.elapsed() > PATIENCE {
            return Err(format!("{environment} does not serve what was deployed").into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
