//! What the reconciler does with a deployment that it has claimed.

use super::{
    Service,
    change::{Change, Stored},
};
use crate::{
    domain::audit::Caller,
    store::{self, Claim, Tx},
};

/// How a claim ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advanced {
    /// What was due has been done, or nothing was.
    Done,
    /// The claim had passed on; nothing was changed.
    Fenced,
}

impl Service {
    /// Makes every transition of a claimed deployment that is due, and ends the claim.
    ///
    /// # Errors
    /// The storage failed, or the deployment can't be read.
    pub async fn advance(&self, claim: &Claim) -> Result<Advanced, store::Error> {
        let fenced = claim.clone();
        let stored = self
            .store
            .write(move |tx| {
                let claim = fenced.clone();
                store::boxed(async move { advance_within(tx, &claim).await })
            })
            .await;
        match stored {
            Ok(stored) => {
                self.done(&stored);
                Ok(Advanced::Done)
            }
            // A conflict that stays one after its retries is a caller's change that came between.
            Err(store::Error::Fenced | store::Error::Conflict) => Ok(Advanced::Fenced),
            Err(error) => Err(error),
        }
    }
}

async fn advance_within(tx: &Tx, claim: &Claim) -> Result<Stored, store::Error> {
    let Some(deployment) = tx.hold_deployment(claim.deployment_id).await? else {
        return Err(store::Error::Corrupt {
            table: "deployment_work",
            what: format!("no deployment {}", claim.deployment_id),
        });
    };
    let now = tx.now().await?.max(deployment.updated_at);
    let served = tx
        .hold_traffic(&deployment.prompt_id, &deployment.environment, now)
        .await?;
    let mut change = Change::of(deployment, served);
    change.settle(tx, now).await?;
    change.store(tx, &Caller::system(), Some(claim), now).await
}
