//! Creates a deployment, and starts it where nothing stands in its way.

use std::{convert::Infallible, time::Duration};

use uuid::Uuid;

use super::{
    Error, Service,
    change::{Change, Stored, gates_now},
    error::of_store,
    once::{Once, Reply, at_most_once},
};
use crate::{
    domain::{
        audit::Caller,
        deployment::{Deployment, DeploymentRequest, NewDeployment},
        lifecycle::Gates,
        state::Status,
        violation::Violations,
    },
    evidence::Version,
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
        once: Option<Once<Deployment>>,
    ) -> Result<Reply<Deployment>, Error> {
        let mut violations = Violations::default();
        let new = NewDeployment::resolve(
            request,
            Uuid::now_v7(),
            caller.actor.clone(),
            &mut violations,
        );
        let mut new = violations.finish(new).map_err(Error::Invalid)?;
        if let Some(before) = self.answered(once.as_ref()).await? {
            return Ok(before);
        }
        self.check_version(&new).await?;
        new.warning = self.warning(&new).await?;
        let (service, caller, prompt) = (self.clone(), caller.clone(), new.prompt_id.to_string());
        let ended = self
            .store
            .write(move |tx| {
                let (service, new, caller) = (service.clone(), new.clone(), caller.clone());
                store::boxed(async move {
                    let create = async {
                        let stored = service.create_within(tx, new, &caller).await?;
                        Ok(Ok::<_, Infallible>(stored))
                    };
                    at_most_once(tx, once.as_ref(), create).await
                })
            })
            .await
            .map_err(|error| of_store(&error, "prompt", prompt))?;
        let done = |stored: Stored| {
            self.done(&stored);
            stored.deployment
        };
        ended.reply(done, |never| match never {})
    }

    /// Asks whether the version exists, where there is somebody to ask.
    async fn check_version(&self, new: &NewDeployment) -> Result<(), Error> {
        let Some(prompts) = &self.sources.prompts else {
            return Ok(());
        };
        let (prompt_id, version) = (new.prompt_id.as_str(), new.to_version);
        let found = prompts.version(prompt_id, version).await.map_err(|why| {
            tracing::warn!(%why, "a deployment could not be created");
            Error::Unavailable {
                what: "the Prompt service",
                retry_after: Duration::from_secs(1),
            }
        })?;
        match found {
            Version::Exists => Ok(()),
            Version::NoPrompt => Err(Error::NotFound {
                what: "prompt",
                id: prompt_id.to_owned(),
            }),
            Version::Missing { newest } => {
                let mut violations = Violations::default();
                violations.add(
                    "to_version",
                    format!("is {version}; prompt '{prompt_id}' has no such version, its newest is {newest}"),
                );
                violations.finish(Some(())).map_err(Error::Invalid)
            }
        }
    }

    async fn create_within(
        &self,
        tx: &Tx,
        new: NewDeployment,
        caller: &Caller,
    ) -> Result<Stored, store::Error> {
        let traffic = tx.hold_traffic(&new.prompt_id, &new.environment).await?;
        let now = tx.now().await?;
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
            change.settle(tx, self.gate_timeout, now).await?;
        }
        let Deployment {
            warning,
            status_message,
            ..
        } = &mut change.deployment;
        if !warning.is_empty() {
            status_message.push_str("; warning: ");
            status_message.push_str(warning);
        }
        change.store(tx, caller, None, now).await
    }
}
