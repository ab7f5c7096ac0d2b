//! Creates and lists quality gates.

use std::sync::Arc;

use uuid::Uuid;

use super::{
    Error, Service,
    error::of_store,
    once::{Once, Reply, at_most_once},
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

/// The prompt has as many gates as it may.
struct TooMany;

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
                store::boxed(async move {
                    at_most_once(tx, once.as_ref(), create_within(tx, &gate)).await
                })
            })
            .await
            .map_err(|error| of_store(&error, "prompt", prompt))?;
        ended.reply(
            |gate| gate,
            |TooMany| {
                Error::TooMany(format!(
                    "the prompt has {GATES_PER_PROMPT_MAX} gates, as many as it may"
                ))
            },
        )
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

async fn create_within(tx: &Tx, gate: &Gate) -> Result<Result<Gate, TooMany>, store::Error> {
    if tx.gate_count(&gate.prompt_id).await? >= GATES_PER_PROMPT_MAX as u64 {
        return Ok(Err(TooMany));
    }
    let gate = Gate {
        created_at: tx.now().await?,
        ..gate.clone()
    };
    tx.insert_gate(&gate).await?;
    Ok(Ok(gate))
}
