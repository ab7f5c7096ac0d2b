//! Creates a deployment, and starts it where nothing stands in its way.

use std::time::Duration;

use uuid::Uuid;

use super::{
    Error, Service,
    change::{Change, Stored, gates_now},
    error::of_store,
    once::{Found, Once, Reply},
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

/// How the transaction of a creation ended.
enum Ended {
    Done(Box<Stored>),
    Before(Vec<u8>),
    KeyUsed,
}

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
                store::boxed(async move { service.create_once(tx, new, &caller, once).await })
            })
            .await
            .map_err(|error| of_store(&error, "prompt", prompt))?;
        match ended {
            Ended::Done(stored) => {
                self.done(&stored);
                Ok(Reply::Now(stored.deployment))
            }
            Ended::Before(answer) => Ok(Reply::Before(answer)),
            Ended::KeyUsed => Err(Error::KeyUsed),
        }
    }

    async fn create_once(
        &self,
        tx: &Tx,
        new: NewDeployment,
        caller: &Caller,
        once: Option<Once<Deployment>>,
    ) -> Result<Ended, store::Error> {
        let Some(once) = once else {
            let stored = self.create_within(tx, new, caller).await?;
            return Ok(Ended::Done(Box::new(stored)));
        };
        match once.find(tx).await? {
            Found::Nothing => {}
            Found::Answer(answer) => return Ok(Ended::Before(answer)),
            Found::OtherContent => return Ok(Ended::KeyUsed),
        }
        let stored = self.create_within(tx, new, caller).await?;
        let now = stored.deployment.created_at;
        once.keep(tx, &stored.deployment, now).await?;
        Ok(Ended::Done(Box::new(stored)))
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
