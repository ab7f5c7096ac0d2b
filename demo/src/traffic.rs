//! What an application that watches the traffic is told.

use std::time::Instant;

use delos_deploy::wire::pb::{
    Traffic, WatchTrafficRequest, traffic_service_client::TrafficServiceClient,
};
use tokio::sync::mpsc::UnboundedSender;
use tonic::transport::Channel;

use crate::{ENVIRONMENT, Failure, say::Say};

/// A split, and when it became known.
pub(crate) type Told = (Instant, Traffic);

/// Watches the environment and passes on each split, until the stream ends, which it should not.
pub(crate) async fn watch(
    channel: Channel,
    say: Say,
    told: UnboundedSender<Told>,
) -> Result<(), Failure> {
    let request = WatchTrafficRequest {
        environment: ENVIRONMENT.into(),
        revision: 0,
    };
    let mut client = TrafficServiceClient::new(channel);
    let mut stream = client.watch_traffic(request).await?.into_inner();
    while let Some(message) = stream.message().await? {
        let now = Instant::now();
        for split in message.traffic {
            say.that("traffic", shares(&split));
            // Nobody listens once everything has been told.
            let _ = told.send((now, split));
        }
    }
    Err("the stream of traffic ended".into())
}

fn shares(split: &Traffic) -> String {
    let (stable, candidate) = (split.stable_version, split.candidate_version);
    if candidate == 0 {
        return format!("everybody is served version {stable}");
    }
    let share = split.candidate_percentage;
    format!(
        "{} % are served version {stable}, {share} % version {candidate}",
        100 - share
    )
}
