//! Processes that are killed, started again, and run beside each other on one storage.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use delos_deploy::wire::pb::{
    CreateDeploymentRequest, DeploymentStrategy, DeploymentType, Event, GetDeploymentRequest,
    audit_service_client::AuditServiceClient, deploy_service_client::DeployServiceClient,
};
use migration::{Migrator, MigratorTrait as _};
use sqlx::Connection as _;
use tonic::transport::Channel;

use crate::harness::{Storage, audit, binary::Binary, postgres, settings};

async fn channel(address: &str) -> Channel {
    Channel::from_shared(format!("http://{address}"))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

fn gradual(prompt: &str, increment: i32) -> CreateDeploymentRequest {
    CreateDeploymentRequest {
        prompt_id: prompt.into(),
        environment: "production".into(),
        to_version: 1,
        strategy: Some(DeploymentStrategy {
            r#type: DeploymentType::Gradual.into(),
            initial_percentage: 10,
            increment,
            interval_seconds: 1,
            ..Default::default()
        }),
        skip_approval: true,
        ..Default::default()
    }
}

/// The shares of traffic that a rollout has gone through, by its events.
fn shares(events: &[Event]) -> Vec<i32> {
    events
        .iter()
        .filter(|event| ["start", "step", "complete"].contains(&event.action.as_str()))
        .map(|event| event.details["to_percentage"].parse().unwrap())
        .collect()
}

async fn has_ended(address: &str, id: &str) -> bool {
    let request = GetDeploymentRequest { id: id.into() };
    let answer = DeployServiceClient::new(channel(address).await)
        .get_deployment(request)
        .await;
    answer
        .unwrap()
        .into_inner()
        .deployment
        .unwrap()
        .completed_at
        .is_some()
}

/// Kills the process again and again in the middle of a rollout.
async fn killed_again_and_again(storage: Storage) {
    const KILLS: u32 = 8;
    let files = tempfile::tempdir().unwrap();
    let settings = settings(storage, files.path()).await;
    let mut binary = Binary::start(&settings);
    let created = DeployServiceClient::new(channel(&binary.address).await)
        .create_deployment(gradual("greeting", 10))
        .await
        .unwrap();
    let id = created.into_inner().deployment.unwrap().id;
    for kill in 0..KILLS {
        // At another place within the interval each time, some of them on the step itself.
        tokio::time::sleep(Duration::from_millis(400 + u64::from(kill) * 90)).await;
        binary.kill();
        binary = Binary::start(&settings);
    }
    let patience = Instant::now() + Duration::from_secs(60);
    while !has_ended(&binary.address, &id).await {
        assert!(Instant::now() < patience, "the rollout does not go on");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let events = audit::events(
        &mut AuditServiceClient::new(channel(&binary.address).await),
        &id,
    )
    .await;
    audit::check(
        &events,
        Some(delos_deploy::domain::state::Status::Completed),
    );
    assert_eq!(shares(&events), [10, 20, 30, 40, 50, 60, 70, 80, 90, 100]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_goes_on_after_the_process_is_killed_on_sqlite() {
    killed_again_and_again(Storage::SqliteFile).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_goes_on_after_the_process_is_killed_on_postgres() {
    killed_again_and_again(Storage::Postgres).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_replicas_take_every_step_of_a_hundred_rollouts_once_while_they_are_killed() {
    const ROLLOUTS: usize = 100;
    const KILLS: usize = 12;
    let files = tempfile::tempdir().unwrap();
    let settings = settings(Storage::Postgres, files.path()).await;
    let mut replicas = start(&settings, 3).await;
    let mut ids = Vec::new();
    for number in 0..ROLLOUTS {
        let address = &replicas[number % replicas.len()].address;
        let answer = DeployServiceClient::new(channel(address).await)
            .create_deployment(gradual(&format!("prompt-{number}"), 20))
            .await
            .unwrap();
        ids.push(answer.into_inner().deployment.unwrap().id);
    }
    for kill in 0..KILLS {
        tokio::time::sleep(Duration::from_millis(300 + 17 * kill as u64)).await;
        replicas.remove(0).kill();
        replicas.push(Binary::start(&settings));
    }
    // What a killed replica had claimed is taken over when the lease has ended.
    let patience = Instant::now() + Duration::from_secs(120);
    let address = replicas[0].address.clone();
    for id in &ids {
        while !has_ended(&address, id).await {
            assert!(Instant::now() < patience, "rollout {id} does not go on");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
    let mut client = AuditServiceClient::new(channel(&address).await);
    for id in &ids {
        let events = audit::events(&mut client, id).await;
        audit::check(
            &events,
            Some(delos_deploy::domain::state::Status::Completed),
        );
        assert_eq!(shares(&events), [10, 30, 50, 70, 90, 100], "{id}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn five_replicas_can_start_together_on_an_empty_database() {
    let files = tempfile::tempdir().unwrap();
    let settings = settings(Storage::Postgres, files.path()).await;
    let replicas = start(&settings, 5).await;
    assert_eq!(replicas.len(), 5);
    let mut database = postgres::connect(&settings).await;
    let applied: i64 = sqlx::query_scalar("SELECT count(*) FROM seaql_migrations")
        .fetch_one(&mut database)
        .await
        .unwrap();
    let known = Migrator::migrations().len();
    assert_eq!(usize::try_from(applied).unwrap(), known);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stops_leaves_its_work_to_the_others_at_once() {
    let files = tempfile::tempdir().unwrap();
    let settings = settings(Storage::Postgres, files.path()).await;
    let mut replicas = start(&settings, 2).await;
    let mut client = DeployServiceClient::new(channel(&replicas[1].address).await);
    let created = client
        .create_deployment(gradual("greeting", 30))
        .await
        .unwrap();
    let id = created.into_inner().deployment.unwrap().id;
    let mut stopped = replicas.remove(0);
    stopped.terminate();
    assert!(stopped.wait().success());
    let mut database = postgres::connect(&settings).await;
    let leased: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM deployment_work WHERE due_at > now() + interval '3 s'",
    )
    .fetch_one(&mut database)
    .await
    .unwrap();
    assert_eq!(leased, 0, "a claim is still held");
    while !has_ended(&replicas[0].address, &id).await {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Each step waits for a lock, four at a time; the others have not been begun.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_stops_does_not_wait_for_what_the_database_holds_up() {
    const LEASED: &str = "SELECT count(*) FROM deployment_work WHERE lease_owner IS NOT NULL";
    let files = tempfile::tempdir().unwrap();
    let settings = settings(Storage::Postgres, files.path()).await;
    let mut replica = Binary::start(&settings);
    let mut client = DeployServiceClient::new(channel(&replica.address).await);
    for number in 0..20 {
        let request = gradual(&format!("prompt-{number}"), 5);
        client.create_deployment(request).await.unwrap();
    }
    let mut locker = postgres::connect(&settings).await;
    let mut held = locker.begin().await.unwrap();
    sqlx::query("LOCK TABLE traffic IN EXCLUSIVE MODE")
        .execute(&mut *held)
        .await
        .unwrap();
    let mut database = postgres::connect(&settings).await;
    let mut leased = async || -> i64 {
        let leased = sqlx::query_scalar(LEASED).fetch_one(&mut database).await;
        leased.unwrap()
    };
    while leased().await < 12 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    replica.terminate();
    let since = Instant::now();
    while leased().await > 0 {
        assert!(
            since.elapsed() < Duration::from_secs(5),
            "claims are held that nobody works on"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    held.commit().await.unwrap();
    assert!(replica.wait().success());
}

/// The database breaks off between a replica's first look at it and its second.
#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_starts_waits_for_a_database_that_breaks_off() {
    let files = tempfile::tempdir().unwrap();
    let settings = settings(Storage::Postgres, files.path()).await;
    Binary::start(&settings).kill();
    let mut database = postgres::connect(&settings).await;
    let mut held = database.begin().await.unwrap();
    // Longer than a statement waits for a lock.
    sqlx::query("LOCK TABLE traffic_revisions")
        .execute(&mut *held)
        .await
        .unwrap();
    let start = tokio::task::spawn_blocking({
        let settings = settings.clone();
        move || Binary::start(&settings)
    });
    tokio::time::sleep(Duration::from_millis(3500)).await;
    assert!(
        !start.is_finished(),
        "it serves a table that it could not read"
    );
    held.commit().await.unwrap();
    start.await.unwrap().wait_until_ready().await;
}

/// Starts replicas at the same moment.
async fn start(settings: &BTreeMap<String, String>, count: usize) -> Vec<Binary> {
    let starts = (0..count).map(|_| {
        let settings = settings.clone();
        tokio::task::spawn_blocking(move || Binary::start(&settings))
    });
    let mut replicas = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        replicas.push(start.await.unwrap());
    }
    replicas
}
