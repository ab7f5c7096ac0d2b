//! Redis beside the storage: a hint to the other replicas when something has changed, and the last
//! table known, for a replica that starts while the storage is away.
//!
//! It is a cache. A hint only makes a poll come sooner, and what is read from it is served until
//! the storage answers and not longer; nothing that is decided or stored comes from it.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use redis::{
    AsyncConnectionConfig, AsyncTypedCommands as _, Client, RedisError,
    aio::{MultiplexedConnection, PubSub},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{Stored, Table};
use crate::{clock::Clock, telemetry::Metrics};

mod format;
mod keep;

/// Longest wait for a connection, and for an answer.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause before a connection that could not be had, or broke, is tried again.
const AGAIN: Duration = Duration::from_secs(2);
/// How often it is looked whether who is listened to is still there.
const PING: Duration = Duration::from_secs(5);

/// A Redis that replicas of one database share. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Cache {
    client: Client,
    names: Arc<Names>,
}

/// What is used of Redis, apart from what others keep there.
#[derive(Debug)]
struct Names {
    /// The channel of the hints.
    hints: String,
    /// A hash: what each environment serves, by its name.
    table: String,
    /// When a replica has last seen that the table agrees with the storage, in ms since 1970.
    agreed: String,
}

/// What was kept of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    /// What each environment served.
    pub environments: Vec<Stored>,
    /// How long ago a replica last saw that this was so.
    pub age: Duration,
}

impl Cache {
    /// The cache at a URL, for the replicas of one database.
    ///
    /// # Errors
    /// The URL can't be used. Nothing is connected to yet.
    pub fn new(url: &str, database: &str) -> Result<Self, RedisError> {
        let name = |what| format!("delos-deploy:{database}:{what}");
        Ok(Self {
            client: Client::open(url)?,
            names: Arc::new(Names {
                hints: name("hints"),
                table: name("table"),
                agreed: name("agreed"),
            }),
        })
    }

    /// The last table known; none where Redis does not answer soon, or has none. What can't be
    /// read of it is left out.
    pub async fn read(&self, clock: &Clock) -> Option<Cached> {
        let read = async {
            let mut redis = self.connect().await?;
            let table = redis.hgetall(&self.names.table).await?;
            let agreed = redis.get(&self.names.agreed).await?;
            Ok::<_, RedisError>((table, agreed))
        };
        let (table, agreed) = match read.await {
            Ok(read) => read,
            Err(error) => {
                tracing::debug!(%error, "Redis does not answer either");
                return None;
            }
        };
        let environments: Vec<_> = table
            .iter()
            .filter_map(|(name, text)| {
                format::read(name, text)
                    .inspect_err(|error| tracing::warn!(environment = %name, %error, "what Redis has of an environment can't be read"))
                    .ok()
            })
            .collect();
        let agreed = agreed.and_then(|text| text.parse().ok()).unwrap_or(0);
        let age = clock.now().timestamp_millis().saturating_sub(agreed);
        (!environments.is_empty()).then(|| Cached {
            environments,
            age: Duration::from_millis(age.max(0).unsigned_abs()),
        })
    }

    /// Passes on what other replicas hint at, until it is told to stop.
    pub async fn listen(&self, hint: Arc<Notify>, stop: CancellationToken) {
        let listen = async {
            loop {
                if let Ok(mut hints) = self.subscribe().await {
                    // What was written while there was no listener has to be looked for.
                    hint.notify_one();
                    while next(&mut hints).await.is_some() {
                        hint.notify_one();
                    }
                }
                tokio::time::sleep(AGAIN).await;
            }
        };
        tokio::select! {
            () = listen => {}
            () = stop.cancelled() => {}
        }
    }

    /// Keeps what the table has in Redis, and hints at this replica's own writes, until it is told
    /// to stop.
    pub async fn keep(self, table: Table, clock: Clock, metrics: Metrics, stop: CancellationToken) {
        keep::Keeper::new(self, table, clock, metrics)
            .run(stop)
            .await;
    }

    async fn connect(&self) -> Result<MultiplexedConnection, RedisError> {
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(PATIENCE))
            .set_response_timeout(Some(PATIENCE));
        self.client
            .get_multiplexed_async_connection_with_config(&config)
            .await
    }

    async fn subscribe(&self) -> Result<PubSub, RedisError> {
        let subscribe = async {
            let mut hints = self.client.get_async_pubsub().await?;
            hints.subscribe(&self.names.hints).await?;
            Ok(hints)
        };
        // A driver without a time limit of its own here.
        tokio::time::timeout(PATIENCE, subscribe)
            .await
            .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }
}

/// Waits for the next hint; none when the connection is gone.
async fn next(hints: &mut PubSub) -> Option<()> {
    loop {
        let hint = async { hints.on_message().next().await };
        if let Ok(hint) = tokio::time::timeout(PING, hint).await {
            return hint.map(drop);
        }
        // A peer that is gone without a word would be waited for for ever.
        let pong = tokio::time::timeout(PATIENCE, hints.ping::<String>()).await;
        pong.ok()?.ok()?;
    }
}
