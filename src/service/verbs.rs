//! What callers do to a deployment: approve, roll back, cancel. A verb that is refused is put on
//! record too.

use std::sync::Arc;

use futures_util::future::BoxFuture;
use uuid::Uuid;

use super::{
    Error, Service,
    change::{Change, Stored, gates_now},
    check_text, deployment_id,
    error::of_store,
    not_found,
    once::{Once, Reply, at_most_once},
};
use crate::{
    domain::{Timestamp, audit::Caller, deployment::Deployment, lifecycle::Denied, state::Verb},
    store::{self, Tx},
};

/// What a rollback leaves.
#[derive(Debug, Clone, PartialEq)]
pub struct RolledBack {
    /// The deployment that was taken back.
    pub deployment: Deployment,
    /// The deployment that restored the version before; none where there was none.
    pub rollback_deployment: Option<Deployment>,
}

/// What a verb does within its transaction. Where it is denied, nothing has changed.
pub(super) type Effect = dyn for<'t> Fn(
        &'t Tx,
        &'t mut Change,
        Timestamp,
    ) -> BoxFuture<'t, Result<Result<(), Denied>, store::Error>>
    + Send
    + Sync;

/// A verb as a caller asks for it.
struct Request<T> {
    id: Uuid,
    verb: Verb,
    caller: Caller,
    effect: Box<Effect>,
    once: Option<Once<T>>,
}

/// Why a verb was not done.
enum Refused {
    Denied(Denied),
    NotFound,
}

impl From<Stored> for Deployment {
    fn from(stored: Stored) -> Self {
        stored.deployment
    }
}

impl From<Stored> for RolledBack {
    fn from(stored: Stored) -> Self {
        Self {
            deployment: stored.deployment,
            rollback_deployment: stored.made,
        }
    }
}

impl Service {
    /// Approves a deployment that waits for it, and sends it on to its gates.
    ///
    /// # Errors
    /// The status forbids it, there is no such deployment, or the storage failed.
    pub async fn approve(
        &self,
        id: &str,
        comment: &str,
        caller: &Caller,
        once: Option<Once<Deployment>>,
    ) -> Result<Reply<Deployment>, Error> {
        check_text("comment", comment)?;
        let (timeout, by, comment) = (self.gate_timeout, caller.actor.clone(), comment.to_owned());
        let effect: Box<Effect> = Box::new(move |tx, change, now| {
            let (by, comment) = (by.clone(), comment.clone());
            store::boxed(async move {
                let gates = gates_now(tx, &change.deployment.prompt_id, timeout, now).await?;
                match change.deployment.approve(&by, &comment, gates, now) {
                    Ok(record) => change.records.push(record),
                    Err(denied) => return Ok(Err(denied)),
                }
                change.settle(tx, timeout, now).await.map(Ok)
            })
        });
        self.verb(id, Verb::Approve, caller, effect, once).await
    }

    /// Takes a version back.
    ///
    /// # Errors
    /// The status forbids it, something else is served, there is no such deployment, or the
    /// storage failed.
    pub async fn roll_back(
        &self,
        id: &str,
        reason: &str,
        caller: &Caller,
        once: Option<Once<RolledBack>>,
    ) -> Result<Reply<RolledBack>, Error> {
        check_text("reason", reason)?;
        let (by, reason) = (caller.actor.clone(), reason.to_owned());
        let effect: Box<Effect> = Box::new(move |_, change, now| {
            let id = Uuid::now_v7();
            let back = change
                .deployment
                .roll_back(&mut change.traffic, &reason, &by, id, now);
            let outcome = back.map(|back| {
                change.records.push(back.record);
                change.made = back.reverse;
            });
            store::boxed(async move { Ok(outcome) })
        });
        self.verb(id, Verb::RollBack, caller, effect, once).await
    }

    /// Cancels a deployment before it has all traffic.
    ///
    /// # Errors
    /// The status forbids it, there is no such deployment, or the storage failed.
    pub async fn cancel(
        &self,
        id: &str,
        reason: &str,
        caller: &Caller,
        once: Option<Once<Deployment>>,
    ) -> Result<Reply<Deployment>, Error> {
        check_text("reason", reason)?;
        let reason = reason.to_owned();
        let effect: Box<Effect> = Box::new(move |_, change, now| {
            let outcome = change.deployment.cancel(&mut change.traffic, &reason, now);
            let outcome = outcome.map(|record| change.records.push(record));
            store::boxed(async move { Ok(outcome) })
        });
        self.verb(id, Verb::Cancel, caller, effect, once).await
    }

    pub(super) async fn verb<T>(
        &self,
        id: &str,
        verb: Verb,
        caller: &Caller,
        effect: Box<Effect>,
        once: Option<Once<T>>,
    ) -> Result<Reply<T>, Error>
    where
        T: From<Stored> + Send + Sync + 'static,
    {
        let request = Arc::new(Request {
            id: deployment_id(id)?,
            verb,
            caller: caller.clone(),
            effect,
            once,
        });
        let ended = self
            .store
            .write(move |tx| {
                let request = Arc::clone(&request);
                store::boxed(async move {
                    at_most_once(tx, request.once.as_ref(), request.run(tx)).await
                })
            })
            .await
            .map_err(|error| of_store(&error, "deployment", id))?;
        let done = |stored: Stored| {
            self.done(&stored);
            stored.into()
        };
        ended.reply(done, |refused| match refused {
            Refused::NotFound => not_found(id),
            Refused::Denied(denied) => {
                let error = Error::Denied { verb, denied };
                self.refused(&error);
                error
            }
        })
    }
}

impl<T> Request<T> {
    async fn run(&self, tx: &Tx) -> Result<Result<Stored, Refused>, store::Error> {
        let Some(before) = tx.hold_deployment(self.id).await? else {
            return Ok(Err(Refused::NotFound));
        };
        let served = tx
            .hold_traffic(&before.prompt_id, &before.environment)
            .await?;
        // Only now: what was waited for has happened before.
        let now = tx.now().await?.max(before.updated_at);
        let mut change = Change::of(before, served);
        match (self.effect)(tx, &mut change, now).await? {
            Ok(()) => change.store(tx, &self.caller, None, now).await.map(Ok),
            Err(denied) => {
                self.record_refusal(tx, change.deployment, &denied, now)
                    .await?;
                Ok(Err(Refused::Denied(denied)))
            }
        }
    }

    async fn record_refusal(
        &self,
        tx: &Tx,
        mut deployment: Deployment,
        denied: &Denied,
        now: Timestamp,
    ) -> Result<(), store::Error> {
        let error = Error::Denied {
            verb: self.verb,
            denied: denied.clone(),
        };
        let record = deployment.refused(self.verb, denied, error.reason(), now);
        deployment.event_count += 1;
        deployment.updated_at = now;
        tx.put_event_count(&deployment).await?;
        tx.append(
            &deployment,
            deployment.event_count,
            vec![record],
            &self.caller,
        )
        .await
    }
}
