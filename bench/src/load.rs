//! The load generator: every caller makes one call after the other, for a time.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;
use tonic::transport::Endpoint;

use crate::{
    Failure,
    calls::{Call, Client},
    figures::{Figures, Latencies, latencies},
};

/// How many call, and for how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// HTTP/2 connections.
    pub(crate) connections: usize,
    /// Concurrent calls on each.
    pub(crate) calls: usize,
    /// How long calls are made before they are measured.
    pub(crate) warm_up: Duration,
    /// How long they are measured.
    pub(crate) duration: Duration,
}

/// Connects.
pub(crate) async fn connect(port: u16) -> Result<Client, Failure> {
    let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?
        .connect()
        .await?;
    Ok(Client::new(channel))
}

impl Load {
    /// Makes calls and measures them. The first that fails ends it.
    pub(crate) async fn run(self, port: u16, call: &Arc<Call>) -> Result<Figures, Failure> {
        let begin = Instant::now() + self.warm_up;
        let end = begin + self.duration;
        let mut callers = JoinSet::new();
        for _ in 0..self.connections {
            let client = connect(port).await?;
            for _ in 0..self.calls {
                callers.spawn(caller(client.clone(), Arc::clone(call), begin, end));
            }
        }
        let mut all = latencies()?;
        while let Some(of_one) = callers.join_next().await {
            all.add(of_one??)?;
        }
        if all.is_empty() {
            return Err("no call ended in the time that was measured".into());
        }
        Ok(Figures::of(&all, self.duration))
    }
}

async fn caller(
    mut client: Client,
    call: Arc<Call>,
    begin: Instant,
    end: Instant,
) -> Result<Latencies, Failure> {
    let mut latencies = latencies()?;
    loop {
        let started = Instant::now();
        if started >= end {
            return Ok(latencies);
        }
        call.make(&mut client).await?;
        let ended = Instant::now();
        if (begin..end).contains(&ended) {
            latencies.record(u64::try_from((ended - started).as_micros())?)?;
        }
    }
}
