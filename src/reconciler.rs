//! The loop that moves deployments: claim what is due, decide, commit. Any number of replicas can
//! run it over one storage.
//!
//! It sleeps until something is due or written. What other replicas write it finds by looking
//! again at least every [`LOOK_AGAIN`].

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

use crate::{
    domain::deployment::Deployment,
    service::{Advanced, Service},
    store::{self, Claim},
    telemetry::StepOutcome,
};

/// How long a replica may work on what it has claimed before others may take it.
const LEASE: Duration = Duration::from_secs(15);
/// How many deployments are claimed at once.
const BATCH: u64 = 32;
/// How many of them are worked on at the same time.
const CONCURRENCY: usize = 4;
/// Of how many deployments evidence is gathered at the same time.
const GATHERING_MAX: usize = 64;
/// How long what has begun may still take when the reconciler stops; the rest is left to others.
const FINISH: Duration = Duration::from_secs(1);
/// The longest sleep: how late it is learnt that another replica has written something.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// The shortest and longest pause after the storage failed, or working on a deployment did.
const PAUSE: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(60));

/// Moves deployments.
#[derive(Debug, Clone)]
pub struct Reconciler {
    service: Service,
    /// Who claims.
    owner: Uuid,
    /// Room for deployments whose evidence is being gathered.
    gathering: Arc<Semaphore>,
    tasks: TaskTracker,
}

impl Reconciler {
    /// A reconciler over a service.
    #[must_use]
    pub fn new(service: &Service) -> Self {
        Self {
            service: service.in_background(),
            owner: service.replica(),
            gathering: Arc::new(Semaphore::new(GATHERING_MAX)),
            tasks: TaskTracker::new(),
        }
    }

    /// Moves deployments until it is told to stop; then gives back what it had claimed.
    pub async fn run(self, stop: CancellationToken) {
        let patience = async {
            stop.cancelled().await;
            tokio::time::sleep(FINISH).await;
        };
        // A transaction that has begun ends by itself, and what others were asked for is found again by
        // who takes over.
        tokio::select! {
            () = self.turns(&stop) => {}
            () = patience => {}
        }
        if let Err(error) = self.service.store().release(self.owner).await {
            tracing::warn!(%error, "claims could not be given back; others take them when the leases end");
        }
    }

    /// Does what is due, until it is told to stop and has ended what it had begun.
    async fn turns(&self, stop: &CancellationToken) {
        let mut failures = 0;
        while !stop.is_cancelled() {
            let pause = match self.turn(stop).await {
                Ok(pause) => {
                    failures = 0;
                    pause
                }
                Err(error) => {
                    if failures == 0 {
                        tracing::warn!(%error, "the reconciler can't reach the storage; it tries again");
                    }
                    failures += 1;
                    backoff(failures).min(Duration::from_secs(5))
                }
            };
            self.sleep(pause, stop).await;
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Does all that is due now. For tests, which move the clock themselves.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn tick(&self) -> Result<(), store::Error> {
        loop {
            let claimed = self.work(&CancellationToken::new()).await?;
            while !self.tasks.is_empty() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            if claimed == 0 {
                return Ok(());
            }
        }
    }

    /// Does what is due, and says how long to sleep after.
    async fn turn(&self, stop: &CancellationToken) -> Result<Duration, store::Error> {
        loop {
            let pause = self.service.store().until_due(LOOK_AGAIN).await?;
            if !pause.is_zero() {
                return Ok(pause);
            }
            if stop.is_cancelled() || self.work(stop).await? == 0 {
                // Another replica was faster, or it is due within less than the clock tells apart.
                return Ok(Duration::from_millis(5));
            }
        }
    }

    /// Claims what is due and works on it, as long as it is not told to stop; says how many claims that
    /// were.
    async fn work(&self, stop: &CancellationToken) -> Result<usize, store::Error> {
        let claims = self.service.store().claim(self.owner, BATCH, LEASE).await?;
        let count = claims.len();
        stream::iter(claims)
            .for_each_concurrent(CONCURRENCY, |claim| async move {
                if !stop.is_cancelled() {
                    self.advance(&claim).await;
                }
            })
            .await;
        Ok(count)
    }

    async fn advance(&self, claim: &Claim) {
        let metrics = self.service.metrics();
        metrics.reconciler_lag(claim.lag);
        if claim.taken_over {
            metrics.lease_takeover();
            tracing::info!(deployment_id = %claim.deployment_id, "took over from a replica that did not finish");
        }
        match self.service.advance(claim).await {
            Ok(Advanced::NeedsEvidence(deployment)) => self.gather(claim, deployment).await,
            ended => self.note(claim, ended).await,
        }
    }

    /// Leaves a deployment whose gates wait for evidence to a task of its own: other services may
    /// take their time, and those that need none must not wait for them.
    async fn gather(&self, claim: &Claim, deployment: Box<Deployment>) {
        let Ok(room) = Arc::clone(&self.gathering).try_acquire_owned() else {
            self.put_off_by(claim, Duration::from_secs(1)).await;
            return;
        };
        let (reconciler, claim) = (self.clone(), claim.clone());
        self.tasks.spawn(async move {
            let _room = room;
            let ended = reconciler
                .service
                .advance_by_evidence(&claim, &deployment)
                .await;
            reconciler.note(&claim, ended).await;
        });
    }

    /// Counts how work on a claim ended, and puts it off where that failed.
    async fn note(&self, claim: &Claim, ended: Result<Advanced, store::Error>) {
        let outcome = match ended {
            Ok(Advanced::Done | Advanced::NeedsEvidence(_)) => StepOutcome::Done,
            Ok(Advanced::Fenced) => StepOutcome::Fenced,
            Err(error) => self.put_off(claim, &error).await,
        };
        self.service.metrics().reconciler_step(outcome);
    }

    /// Puts off a deployment that can't be worked on, so that it does not keep the others; says how that
    /// counts.
    async fn put_off(&self, claim: &Claim, error: &store::Error) -> StepOutcome {
        let deployment_id = claim.deployment_id;
        let delay = backoff(claim.failures.unsigned_abs() + 1);
        match error {
            // Its lease ends by itself.
            store::Error::Unavailable(_) => {
                tracing::warn!(%error, %deployment_id, "a deployment was not moved")
            }
            // The storage has given the alarm, once.
            store::Error::Corrupt(_) => {
                tracing::debug!(%error, %deployment_id, "work on a deployment is set aside");
                return self.put_off_by(claim, store::SET_ASIDE).await;
            }
            store::Error::Conflict
            | store::Error::Fenced
            | store::Error::Impossible(_)
            | store::Error::Panicked
            | store::Error::Internal(_) => {
                tracing::error!(%error, %deployment_id, ?delay, "a deployment can't be moved; it is tried again later")
            }
        }
        self.put_off_by(claim, delay).await
    }

    async fn put_off_by(&self, claim: &Claim, delay: Duration) -> StepOutcome {
        let Err(error) = self.service.store().put_off(claim, delay).await else {
            return StepOutcome::Failed;
        };
        let deployment_id = claim.deployment_id;
        tracing::debug!(%error, %deployment_id, "it could not be put off; its lease will end");
        match error {
            // It failed because its time was up, such as where the server had ended its session.
            store::Error::Fenced => StepOutcome::Fenced,
            store::Error::Conflict
            | store::Error::Unavailable(_)
            | store::Error::Corrupt(_)
            | store::Error::Impossible(_)
            | store::Error::Panicked
            | store::Error::Internal(_) => StepOutcome::Failed,
        }
    }

    async fn sleep(&self, pause: Duration, stop: &CancellationToken) {
        let clock = self.service.store().clock();
        let pause = chrono::TimeDelta::from_std(pause).unwrap_or_default();
        tokio::select! {
            () = clock.sleep(pause) => {}
            () = self.service.written() => {}
            () = stop.cancelled() => {}
        }
    }
}

/// Twice as long with each failure, within [`PAUSE`].
fn backoff(failures: u32) -> Duration {
    let (shortest, longest) = PAUSE;
    shortest
        .saturating_mul(1 << failures.saturating_sub(1).min(16))
        .min(longest)
}
