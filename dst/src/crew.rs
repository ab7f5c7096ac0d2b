//! Threads that play runs, each on a stage of its own.

use std::{
    error::Error,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use delos_deploy::faults::Bug;

use crate::{
    errors::Errors,
    play::{Outcome, play},
    stage::Stage,
    trace::Counts,
};

/// Seeds to be played.
#[derive(Debug, Clone, Copy)]
pub struct Seeds {
    /// The first one.
    pub from: u64,
    /// How many.
    pub count: u64,
    /// The bug that is switched on.
    pub bug: Option<Bug>,
}

/// What playing seeds came to.
#[derive(Debug, Clone, Default)]
pub struct Played {
    /// How many were played.
    pub seeds: u64,
    /// What has happened in them.
    pub counts: Counts,
    /// The first seed found on which something does not hold.
    pub broken: Option<(u64, Outcome)>,
}

/// Runs something on a stage of its own, on this thread.
///
/// # Errors
/// The stage can't be opened, or what is run failed.
pub fn on_stage<T>(
    run: impl AsyncFnOnce(&Stage) -> Result<T, Box<dyn Error>>,
) -> Result<T, Box<dyn Error>> {
    let errors = Errors::default();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    tracing::subscriber::with_default(errors.clone(), || {
        runtime.block_on(async {
            let stage = Stage::open(errors).await?;
            run(&stage).await
        })
    })
}

impl Seeds {
    /// Plays them on so many threads, until something does not hold.
    ///
    /// # Errors
    /// A stage can't be opened, or failed.
    pub fn play(self, threads: usize) -> Result<Played, String> {
        let next = AtomicU64::new(self.from);
        let played = Mutex::new(Played::default());
        let each = || {
            on_stage(async |stage| self.play_from(stage, &next, &played).await)
                .map_err(|error| error.to_string())
        };
        thread::scope(|scope| {
            let crew: Vec<_> = (0..threads).map(|_| scope.spawn(each)).collect();
            let ended = crew.into_iter().map(|thread| match thread.join() {
                Ok(ended) => ended,
                Err(_) => Err("a run panicked".into()),
            });
            ended.collect::<Result<Vec<()>, String>>()
        })?;
        Ok(played.into_inner().unwrap_or_else(PoisonError::into_inner))
    }

    async fn play_from(
        self,
        stage: &Stage,
        next: &AtomicU64,
        played: &Mutex<Played>,
    ) -> Result<(), Box<dyn Error>> {
        let end = self.from + self.count;
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= end {
                return Ok(());
            }
            let outcome = play(stage, seed, self.bug).await?;
            let mut played = played.lock().unwrap_or_else(PoisonError::into_inner);
            played.seeds += 1;
            played.counts = played.counts.and(outcome.trace.counts);
            if !outcome.broken.is_empty() {
                next.store(end, Ordering::Relaxed);
                let is_first = played
                    .broken
                    .as_ref()
                    .is_none_or(|(first, _)| seed < *first);
                if is_first {
                    played.broken = Some((seed, outcome));
                }
            }
        }
    }
}
