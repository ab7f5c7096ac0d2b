//! The load generator: callers that each make one call after the other, as fast as they are
//! answered or at a fixed rate.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::task::JoinSet;

use crate::{
    Failure,
    figures::{Figures, Latencies, latencies},
    machine,
};

pub(crate) mod grpc;
pub(crate) mod http;
mod pace;

use pace::Pace;

/// Makes one call at a time over a connection of its own or a shared one.
pub(crate) trait Caller: Send + 'static {
    /// Calls once and checks the answer.
    fn call(&mut self) -> impl Future<Output = Result<(), Failure>> + Send;
}

/// How long to call, and how often.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    /// How long calls are made before they are measured.
    pub(crate) warm_up: Duration,
    /// How long they are measured.
    pub(crate) duration: Duration,
    /// Calls a second of all callers together; as many as are answered where there is none.
    pub(crate) per_second: Option<f64>,
}

/// What is measured: the calls that end within it, or that are due within it.
#[derive(Debug, Clone, Copy)]
struct Window {
    begin: Instant,
    end: Instant,
}

impl Load {
    /// Makes calls and measures them. The first that fails ends it.
    pub(crate) async fn run<C: Caller>(self, callers: Vec<C>) -> Result<Figures, Failure> {
        let start = Instant::now();
        let begin = start + self.warm_up;
        let window = Window {
            begin,
            end: begin + self.duration,
        };
        let pace = self
            .per_second
            .map(|per_second| Pace::start(start, window.end, per_second, callers.len()));
        let mut running = JoinSet::new();
        for caller in callers {
            match &pace {
                None => running.spawn(saturate(caller, window)),
                Some(pace) => running.spawn(keep_pace(caller, window, Arc::clone(pace))),
            };
        }
        let (own_share, latencies) = tokio::try_join!(own_share(window), merge(running))?;
        if latencies.is_empty() {
            return Err("no call ended in the time that was measured".into());
        }
        Ok(Figures {
            own_share,
            ..Figures::of(&latencies, self.duration)
        })
    }
}

async fn merge(mut running: JoinSet<Result<Latencies, Failure>>) -> Result<Latencies, Failure> {
    let mut all = latencies()?;
    while let Some(of_one) = running.join_next().await {
        all.add(of_one??)?;
    }
    Ok(all)
}

/// How much of the machine the load generator itself used.
async fn own_share(window: Window) -> Result<Option<f64>, Failure> {
    tokio::time::sleep_until(window.begin.into()).await;
    let before = machine::Own::read();
    tokio::time::sleep_until(window.end.into()).await;
    Ok(before.and_then(|before| Some(machine::Own::read()?.share_since(&before))))
}

/// The next call begins when the last one has been answered.
async fn saturate<C: Caller>(mut caller: C, window: Window) -> Result<Latencies, Failure> {
    let mut latencies = latencies()?;
    loop {
        let started = Instant::now();
        if started >= window.end {
            return Ok(latencies);
        }
        caller.call().await?;
        let ended = Instant::now();
        if (window.begin..window.end).contains(&ended) {
            latencies.record(u64::try_from((ended - started).as_micros())?)?;
        }
    }
}

/// A call begins when it is due, or late if all callers wait for answers then. Its time counts from
/// when it was due: a server that stalls is not spared the calls that it held up.
async fn keep_pace<C: Caller>(
    mut caller: C,
    window: Window,
    pace: Arc<Pace>,
) -> Result<Latencies, Failure> {
    let mut latencies = latencies()?;
    while let Some(due) = pace.next().await {
        caller.call().await?;
        if (window.begin..window.end).contains(&due) {
            latencies.record(u64::try_from(due.elapsed().as_micros())?)?;
        }
    }
    Ok(latencies)
}
