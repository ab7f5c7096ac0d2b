//! Everybody who watches an environment on a replica.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use delos_deploy::wire::pb::{Traffic, WatchTrafficRequest, WatchTrafficResponse};
use tokio::{sync::mpsc, task::JoinSet};
use tonic::Streaming;

use crate::{Failure, calls::traffic};

/// As many streams as the service takes on one connection.
const STREAMS: usize = 100;

/// Streams of changes.
pub(super) struct Watchers {
    watching: JoinSet<Failure>,
    /// Prompts that all of them know to be rolled back, and when the last one learned it.
    told: mpsc::UnboundedReceiver<(String, Instant)>,
}

/// How many watchers have yet to learn that a prompt was rolled back.
struct Outstanding {
    prompts: HashMap<String, AtomicUsize>,
    told: mpsc::UnboundedSender<(String, Instant)>,
}

impl Watchers {
    /// Opens the streams; each has been told of all prompts when this returns.
    pub(super) async fn open(
        port: u16,
        environment: &str,
        count: usize,
        prompts: &[String],
    ) -> Result<Self, Failure> {
        let (sender, told) = mpsc::unbounded_channel();
        let outstanding = |prompt: &String| (prompt.clone(), AtomicUsize::new(count));
        let outstanding = Arc::new(Outstanding {
            prompts: prompts.iter().map(outstanding).collect(),
            told: sender,
        });
        let mut watching = JoinSet::new();
        let mut client = traffic::connect(port).await?;
        for number in 1..=count {
            let request = WatchTrafficRequest {
                environment: environment.to_owned(),
                revision: 0,
            };
            let mut stream = client.watch_traffic(request).await?.into_inner();
            let first = stream.message().await?.unwrap_or_default();
            if !first.snapshot || first.traffic.len() != prompts.len() {
                return Err(format!("a stream began with {first:?}").into());
            }
            let outstanding = Arc::clone(&outstanding);
            watching.spawn(async move { outstanding.watch(stream).await });
            if number % STREAMS == 0 {
                client = traffic::connect(port).await?;
            }
        }
        Ok(Self { watching, told })
    }

    /// Waits until the last one knows of a prompt, and says when that was.
    pub(super) async fn told(&mut self, prompt: &str) -> Result<Instant, Failure> {
        tokio::select! {
            Some((told, at)) = self.told.recv() => {
                if told == prompt {
                    Ok(at)
                } else {
                    Err(format!("the watchers were told of {told}, not of {prompt}").into())
                }
            }
            Some(failure) = self.watching.join_next() => Err(failure?),
            else => Err("nobody watches".into()),
        }
    }
}

impl Outstanding {
    /// Reads until the stream ends, which it should not.
    async fn watch(&self, mut stream: Streaming<WatchTrafficResponse>) -> Failure {
        loop {
            match stream.message().await {
                Ok(Some(message)) => message
                    .traffic
                    .into_iter()
                    .for_each(|split| self.saw(split)),
                Ok(None) => return "a stream of changes ended".into(),
                Err(status) => return format!("a stream of changes ended: {status}").into(),
            }
        }
    }

    fn saw(&self, split: Traffic) {
        if (split.stable_version, split.candidate_version) != (1, 0) {
            return;
        }
        let now = Instant::now();
        let left = self.prompts.get(&split.prompt_id);
        if left.is_some_and(|left| left.fetch_sub(1, Ordering::Relaxed) == 1) {
            // Who waited may have given up.
            let _ = self.told.send((split.prompt_id, now));
        }
    }
}
