//! Creates a deployment, and starts it where nothing stands in its way.

use uuid::Uuid;

use super::{
    Error, Service,
    change::{Change, Stored, gates_now},
    error::of_store,
};
use crate::{
    domain::{
        audit::Caller,
        deployment::{Deployment, DeploymentRequest, NewDeployment},
        lifecycle::Gates,
        state::Status,
        violation::Violations,
    },
    store::{self, Tx},
};

impl Service {
    /// Creates a deployment.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every field that is wrong, or that the storage failed.
    pub async fn create(
        &self,
        request: DeploymentRequest,
        caller: &Caller,
    ) -> Result<Deployment, Error> {
        let mut violations = Violations::default();
        let new = NewDeployment::resolve(
            request,
            Uuid::now_v7(),
            caller.actor.clone(),
            &mut violations,
        );
        let new = violations.finish(new).map_err(Error::Invalid)?;
        let (service, caller, prompt) = (self.clone(), caller.clone(), new.prompt_id.to_string());
        let stored = self
            .store
            .write(move |tx| {
                let (service, new, caller) = (service.clone(), new.clone(), caller.clone());
                store::boxed(async move { service.create_within(tx, new, &caller).await })
            })
            .await
            .map_err(|error| of_store(&error, "prompt", prompt))?;
        self.done(&stored);
        Ok(stored.deployment)
    }

    async fn create_within(
        &self,
        tx: &Tx,
        new: NewDeployment,
        caller: &Caller,
    ) -> Result<Stored, store::Error> {
        let now = tx.now().await?;
        let traffic = tx
            .hold_traffic(&new.prompt_id, &new.environment, now)
            .await?;
        let gates = if new.skip_approval {
            gates_now(tx, &new.prompt_id, self.gate_timeout, now).await?
        } else {
            Gates {
                results: Vec::new(),
                due_at: now,
            }
        };
        let (deployment, record) = Deployment::create(new, &traffic, gates, now);
        let mut change = Change::new(deployment, vec![record], traffic);
        if change.deployment.status != Status::PendingApproval {
            change.settle(tx, now).await?;
        }
        change.store(tx, caller, None, now).await
    }
}
