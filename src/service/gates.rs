//! Creates and lists quality gates.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Error, Service,
    error::of_store,
    once::{Found, Once, Reply},
};
use crate::{
    domain::{
        Timestamp,
        audit::Caller,
        gate::{Gate, GateRequest},
        ids::PromptId,
        violation::Violations,
    },
    store::{self, GATES_PER_PROMPT_MAX, Tx},
};

/// How the transaction of a creation ended.
enum Ended {
    Done(Box<Gate>),
    Before(Vec<u8>),
    KeyUsed,
    TooMany,
}

impl Service {
    /// Creates a gate. It guards each deployment of its prompt whose gates begin to be judged from
    /// then on.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every field that is wrong, [`Error::TooMany`] where the prompt has
    /// as many gates as it may, or that the storage failed.
    pub async fn create_gate(
        &self,
        request: &GateRequest,
        caller: &Caller,
        once: Option<Once<Gate>>,
    ) -> Result<Reply<Gate>, Error> {
        let mut violations = Violations::default();
        // The storage's time is put in once there is a transaction.
        let unset = Timestamp::UNIX_EPOCH;
        let gate = Gate::resolve(
            request,
            Uuid::now_v7(),
            caller.actor.clone(),
            unset,
            &|url| self.sources.webhooks.admit(url),
            &mut violations,
        );
        let gate = Arc::new(violations.finish(gate).map_err(Error::Invalid)?);
        let prompt = gate.prompt_id.to_string();
        let ended = self
            .store
            .write(move |tx| {
                let gate = Arc::clone(&gate);
                store::boxed(async move { create_once(tx, &gate, once).await })
            })
            .await
            .map_err(|error| of_store(&error, "prompt", prompt))?;
        match ended {
            Ended::Done(gate) => Ok(Reply::Now(*gate)),
            Ended::Before(answer) => Ok(Reply::Before(answer)),
            Ended::KeyUsed => Err(Error::KeyUsed),
            Ended::TooMany => Err(Error::TooMany(format!(
                "the prompt has {GATES_PER_PROMPT_MAX} gates, as many as it may"
            ))),
        }
    }

    /// The gates of a prompt, the oldest first.
    ///
    /// # Errors
    /// [`Error::Invalid`], or that the storage failed.
    pub async fn list_gates(&self, prompt_id: &str) -> Result<Vec<Gate>, Error> {
        let mut violations = Violations::default();
        let prompt = violations.take("prompt_id", PromptId::parse(prompt_id));
        let prompt = violations.finish(prompt).map_err(Error::Invalid)?;
        self.store
            .gates(&prompt)
            .await
            .map_err(|error| of_store(&error, "prompt", prompt_id))
    }
}

async fn create_once(
    tx: &Tx,
    gate: &Gate,
    once: Option<Once<Gate>>,
) -> Result<Ended, store::Error> {
    if let Some(once) = &once {
        match once.find(tx).await? {
            Found::Nothing => {}
            Found::Answer(answer) => return Ok(Ended::Before(answer)),
            Found::OtherContent => return Ok(Ended::KeyUsed),
        }
    }
    if tx.gates(&gate.prompt_id).await?.len() >= GATES_PER_PROMPT_MAX {
        return Ok(Ended::TooMany);
    }
    let now = tx.now().await?;
    let gate = Gate {
        created_at: now,
        ..gate.clone()
    };
    tx.insert_gate(&gate).await?;
    if let Some(once) = &once {
        once.keep(tx, &gate, now).await?;
    }
    Ok(Ended::Done(Box::new(gate)))
}
