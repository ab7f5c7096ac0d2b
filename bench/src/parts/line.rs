//! A line of resolves: a server, and what it is asked.

use std::sync::Arc;

use delos_deploy::wire::pb::ResolveVersionResponse;

use crate::{
    Failure,
    calls::{Ask, Asking, Known, json, ofrep::Evaluation, traffic, unleash::Toggle},
    cli::Settings,
    figures::{Figures, Row},
    load::{Load, grpc},
    process::Server,
};

/// What is asked, and how.
pub(super) enum Asks {
    Grpc(Arc<Known<traffic::Client>>),
    Rest(Arc<Known<json::Client<ResolveVersionResponse>>>),
    Ofrep(Arc<Known<json::Client<Evaluation>>>),
    Unleash(Arc<Known<json::Client<Toggle>>>),
}

/// What is asked in turns.
pub(super) struct Line {
    pub(super) row: Row,
    pub(super) asks: Asks,
    port: u16,
}

impl Line {
    pub(super) fn new(part: &'static str, name: &str, server: &Server, asks: Asks) -> Self {
        Self {
            row: Row::new(part, name),
            asks,
            port: server.port,
        }
    }

    /// Measures a round.
    pub(super) async fn measure(&mut self, settings: &Settings) -> Result<(), Failure> {
        let figures = self.run(settings, settings.load()).await?;
        self.row.rounds.push(figures);
        Ok(())
    }

    /// Measures at half of what the last round has come to.
    pub(super) async fn at_half_load(&self, settings: &Settings) -> Result<Figures, Failure> {
        let last = self.row.rounds.last().ok_or("no round was measured")?;
        self.run(settings, settings.half_of(last)).await
    }

    async fn run(&self, settings: &Settings, load: Load) -> Result<Figures, Failure> {
        match &self.asks {
            Asks::Grpc(known) => {
                let make = |channel| Asking::new(traffic::Client::new(channel), known);
                let (connections, calls) = (settings.connections, settings.calls);
                load.run(grpc::callers(connections, calls, self.port, make).await?)
                    .await
            }
            Asks::Rest(known) => self.over_json(settings, load, known).await,
            Asks::Ofrep(known) => self.over_json(settings, load, known).await,
            Asks::Unleash(known) => self.over_json(settings, load, known).await,
        }
    }

    /// HTTP/1.1 answers one call at a time on a connection: each caller has its own.
    async fn over_json<A>(
        &self,
        settings: &Settings,
        load: Load,
        known: &Arc<Known<json::Client<A>>>,
    ) -> Result<Figures, Failure>
    where
        json::Client<A>: Ask,
    {
        let mut callers = Vec::new();
        for _ in 0..settings.concurrency() {
            callers.push(Asking::new(
                json::Client::<A>::open(self.port).await?,
                known,
            ));
        }
        load.run(callers).await
    }
}

impl Asks {
    /// The version that each targeting key is served; a toggle that is on is version 2.
    pub(super) fn versions(&self) -> Vec<i32> {
        match self {
            Self::Grpc(known) => known.answers().map(|answer| answer.version).collect(),
            Self::Rest(known) => known.answers().map(|answer| answer.version).collect(),
            Self::Ofrep(known) => known.answers().map(|answer| answer.value).collect(),
            Self::Unleash(known) => {
                let version = |toggle: &Toggle| if toggle.enabled { 2 } else { 1 };
                known.answers().map(version).collect()
            }
        }
    }
}
