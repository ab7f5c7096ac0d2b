//! What the reconciler does with a deployment that it has claimed.

use std::time::Duration;

use super::{
    Service,
    change::{Change, Stored},
    measure::Measured,
};
use crate::{
    domain::{audit::Caller, deployment::Deployment},
    faults::{Bug, Point},
    store::{self, Claim, Tx},
};

/// How long [`Bug::SkipsFence`] takes between reading and writing.
const UNFENCED: Duration = Duration::from_millis(500);

/// How a claim ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Advanced {
    /// What was due has been done, or nothing was.
    Done,
    /// The claim had passed on; nothing was changed.
    Fenced,
    /// Nothing was changed, and the claim goes on: its gates wait for evidence that is kept
    /// elsewhere, which takes its time.
    NeedsEvidence(Box<Deployment>),
}

/// How a transaction over a claim ended.
enum Ended {
    Stored(Box<Stored>),
    NeedsEvidence(Box<Deployment>),
}

impl Service {
    /// Makes every transition of a claimed deployment that is due, and ends the claim.
    ///
    /// # Errors
    /// The storage failed, or the deployment can't be read.
    pub async fn advance(&self, claim: &Claim) -> Result<Advanced, store::Error> {
        self.advance_by(claim, None).await
    }

    /// The same, for one that needs evidence: looks for it first.
    ///
    /// # Errors
    /// The storage failed, or the deployment can't be read.
    pub async fn advance_by_evidence(
        &self,
        claim: &Claim,
        deployment: &Deployment,
    ) -> Result<Advanced, store::Error> {
        let measured = self.measure(claim, deployment).await?;
        self.advance_by(claim, Some(measured)).await
    }

    async fn advance_by(
        &self,
        claim: &Claim,
        measured: Option<Measured>,
    ) -> Result<Advanced, store::Error> {
        let (claim, timeout) = (claim.clone(), self.gate_timeout);
        let read_before = self.read_before(&claim).await?;
        let ended = self
            .store
            .write(move |tx| {
                let (claim, measured) = (claim.clone(), measured.clone());
                let read_before = read_before.clone();
                store::boxed(async move {
                    advance_within(tx, &claim, timeout, measured, read_before).await
                })
            })
            .await;
        match ended {
            Ok(Ended::Stored(stored)) => {
                self.done(&stored);
                Ok(Advanced::Done)
            }
            Ok(Ended::NeedsEvidence(deployment)) => Ok(Advanced::NeedsEvidence(deployment)),
            // A conflict that stays one after its retries is a caller's change that came between.
            Err(store::Error::Fenced | store::Error::Conflict) => Ok(Advanced::Fenced),
            Err(error) => Err(error),
        }
    }

    /// What the bug [`Bug::SkipsFence`] acts on: the deployment as it was a while before the
    /// transaction. Without that bug there is nothing that is read before.
    async fn read_before(&self, claim: &Claim) -> Result<Option<Deployment>, store::Error> {
        if !self.store.faults().has(Bug::SkipsFence) {
            return Ok(None);
        }
        let read = self.store.deployment(claim.deployment_id).await?;
        let faults = self.store.faults();
        faults.pause(Point::FenceSkipped, UNFENCED).await?;
        Ok(read)
    }
}

async fn advance_within(
    tx: &Tx,
    claim: &Claim,
    gate_timeout: Duration,
    measured: Option<Measured>,
    read_before: Option<Deployment>,
) -> Result<Ended, store::Error> {
    let held = tx.hold_deployment(claim.deployment_id).await?;
    let Some(deployment) = read_before.or(held) else {
        let why = format!(
            "there is work on deployment {}, which does not exist",
            claim.deployment_id
        );
        return Err(store::Error::Impossible(why));
    };
    let served = tx
        .hold_traffic(&deployment.prompt_id, &deployment.environment)
        .await?;
    // Only now: what was waited for has happened before.
    let now = tx.now().await?.max(deployment.updated_at);
    let mut change = Change::of(deployment, served);
    change.compare_anew(gate_timeout, now);
    match &measured {
        Some(measured) => change.measure(measured, now)?,
        None if change.deployment.needs_evidence() => {
            return Ok(Ended::NeedsEvidence(Box::new(change.deployment)));
        }
        None => {}
    }
    change.settle(tx, gate_timeout, now).await?;
    let stored = change
        .store(tx, &Caller::system(), Some(claim), now)
        .await?;
    Ok(Ended::Stored(Box::new(stored)))
}
