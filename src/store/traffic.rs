//! The traffic table.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, ConnectionTrait, EntityTrait as _, ExprTrait as _, QueryFilter as _,
    QuerySelect as _,
    sea_query::{Expr, LockType, OnConflict, SimpleExpr},
};
use sqlx::postgres::PgListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Store, Tx,
    aside::{Aside, Each},
    entity::{traffic, traffic_revision},
    error::{Corrupt, Error},
};
use crate::{
    domain::{
        Timestamp,
        ids::{Environment, PromptId},
        traffic::{Candidate, Stable, Traffic},
    },
    faults::{Bug, Point},
};

/// The channel on which replicas hint at changes. A hint holds a lock of the whole database while
/// it commits, so it is sent after the change and not with it.
const CHANNEL: &str = "delos_deploy_traffic";
/// Pause before a broken listener is opened again.
const LISTEN_AGAIN: Duration = Duration::from_secs(1);

pub(super) const TRAFFIC: Each = Each {
    table: "traffic",
    key: &["prompt_id", "environment"],
};
const REVISIONS: Each = Each {
    table: "traffic_revisions",
    key: &["environment"],
};

/// Rows of an environment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Read {
    /// What is served of each prompt.
    pub traffic: Vec<Traffic>,
    /// The prompts of which that can't be read.
    pub unreadable: Vec<String>,
    /// The highest revision of them; up to it these are all that there are.
    pub revision: i64,
}

impl Store {
    /// What an environment serves of a prompt.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn traffic(
        &self,
        prompt_id: &PromptId,
        environment: &Environment,
    ) -> Result<Traffic, Error> {
        let row = one(self.reader()?, &self.aside, prompt_id, environment, false).await?;
        let none = || Traffic::none(prompt_id.clone(), environment.clone());
        Ok(row.unwrap_or_else(none))
    }

    /// The last revision given out in each environment. Where that can't be read it is as high as can
    /// be: the rows have their own.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn traffic_revisions(&self) -> Result<Vec<(String, i64)>, Error> {
        let all = traffic_revision::Entity::find();
        let read = |row: traffic_revision::Model| Ok((row.environment, row.revision));
        let rows = REVISIONS.read(self.reader()?, all, read).await?;
        let revisions = rows.into_iter().map(|row| {
            let environment = match &row {
                Ok((environment, _)) => environment.clone(),
                Err(corrupt) => corrupt.key.clone(),
            };
            self.aside
                .note(REVISIONS.table, || environment.clone(), &row);
            row.unwrap_or((environment, i64::MAX))
        });
        Ok(revisions.collect())
    }

    /// What has changed in an environment after a revision.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn traffic_after(&self, environment: &str, revision: i64) -> Result<Read, Error> {
        let newer = traffic::Column::Revision.gt(revision);
        let mut read = self.traffic_where(environment, newer).await?;
        read.revision = Ord::max(read.revision, revision);
        Ok(read)
    }

    /// The rows of some prompts in an environment, which could not be read before.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn traffic_of(
        &self,
        environment: &str,
        prompts: impl Iterator<Item = String>,
    ) -> Result<Read, Error> {
        self.traffic_where(environment, traffic::Column::PromptId.is_in(prompts))
            .await
    }

    async fn traffic_where(&self, environment: &str, wanted: SimpleExpr) -> Result<Read, Error> {
        let query = traffic::Entity::find()
            .filter(traffic::Column::Environment.eq(environment))
            .filter(wanted);
        let placed = |row: traffic::Model| Ok((row.prompt_id.clone(), row.revision, read(&row)));
        let rows = TRAFFIC.read(self.reader()?, query, placed).await?;
        let mut all = Read::default();
        for row in rows {
            let (prompt, revision, traffic) = match row {
                Ok((prompt, revision, traffic)) => (prompt, revision, traffic),
                Err(corrupt) => {
                    let prompt = corrupt.key.split(" in ").next().unwrap_or_default();
                    (prompt.to_owned(), 0, Err(corrupt))
                }
            };
            // Revisions become visible in their order, so that below the highest one none is missing.
            all.revision = Ord::max(all.revision, revision);
            self.aside
                .note(TRAFFIC.table, || name(&prompt, environment), &traffic);
            match traffic {
                Ok(traffic) => all.traffic.push(traffic),
                Err(_) => all.unreadable.push(prompt),
            }
        }
        Ok(all)
    }

    /// Tells the other replicas that traffic has changed: a hint, which may get lost. Nobody waits
    /// for it.
    pub fn hint_traffic(&self) {
        if !self.is_postgres() {
            return;
        }
        // One hint under way tells of all that was committed before it is sent.
        if self.hint_pending.swap(true, Ordering::AcqRel) {
            return;
        }
        let (store, pending) = (self.clone(), Arc::clone(&self.hint_pending));
        self.transactions.spawn(async move {
            pending.store(false, Ordering::Release);
            if let Err(error) = store.notify().await {
                tracing::debug!(%error, "the other replicas learn of a change by their poll");
            }
        });
    }

    async fn notify(&self) -> Result<(), Error> {
        self.faults.at(Point::NotifyBefore).await?;
        self.background
            .execute_unprepared(&format!("NOTIFY {CHANNEL}"))
            .await?;
        Ok(self.faults.at(Point::NotifyAfter).await?)
    }

    /// Passes on what other replicas hint at, until it is told to stop. Where hints can't be had
    /// there are none; who waits for them must look by itself now and then.
    pub async fn listen_for_traffic(&self, hint: Arc<Notify>, stop: CancellationToken) {
        if !self.is_postgres() {
            return;
        }
        let pool = self.background.get_postgres_connection_pool();
        let listen = async {
            loop {
                if let Ok(mut listener) = PgListener::connect_with(pool).await
                    && listener.listen(CHANNEL).await.is_ok()
                {
                    // What was written while there was no listener has to be looked for.
                    hint.notify_one();
                    while listener.recv().await.is_ok() {
                        hint.notify_one();
                    }
                }
                tokio::time::sleep(LISTEN_AGAIN).await;
            }
        };
        tokio::select! {
            () = listen => {}
            () = stop.cancelled() => {}
        }
    }
}

impl Tx {
    /// What an environment serves of a prompt, held until the transaction ends: whoever starts or
    /// ends a rollout there comes one after the other.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn hold_traffic(
        &self,
        prompt_id: &PromptId,
        environment: &Environment,
    ) -> Result<Traffic, Error> {
        let held = || one(&self.db, &self.aside, prompt_id, environment, true);
        if let Some(traffic) = held().await? {
            return Ok(traffic);
        }
        let none = Traffic::none(prompt_id.clone(), environment.clone());
        let now = self.now().await?;
        let unless_there =
            OnConflict::columns([traffic::Column::PromptId, traffic::Column::Environment])
                .do_nothing()
                .to_owned();
        traffic::Entity::insert(row(&none, 0, now))
            .on_conflict(unless_there)
            .exec_without_returning(&self.db)
            .await?;
        Ok(held().await?.unwrap_or(none))
    }

    /// Stores a change of traffic under the next revision of its environment. Call it last: the
    /// revision is held until the transaction ends, so that revisions become visible in order.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn put_traffic(&self, after: &mut Traffic, now: Timestamp) -> Result<(), Error> {
        if after.candidate.is_none() && self.faults.has(Bug::ForgetsTraffic) {
            return Ok(());
        }
        let first = traffic_revision::ActiveModel {
            environment: Set(after.environment.to_string()),
            revision: Set(1),
        };
        let next = Expr::col((traffic_revision::Entity, traffic_revision::Column::Revision)).add(1);
        let count_up = OnConflict::column(traffic_revision::Column::Environment)
            .value(traffic_revision::Column::Revision, next)
            .to_owned();
        let given = traffic_revision::Entity::insert(first)
            .on_conflict(count_up)
            .exec_with_returning(&self.db)
            .await?;
        after.revision = given.revision;
        traffic::Entity::update(row(after, given.revision, now))
            .exec_without_returning(&self.db)
            .await?;
        Ok(())
    }
}

fn key(prompt_id: &PromptId, environment: &Environment) -> (String, String) {
    (prompt_id.to_string(), environment.to_string())
}

fn row(traffic: &Traffic, revision: i64, now: Timestamp) -> traffic::ActiveModel {
    let (stable, candidate) = (&traffic.stable, &traffic.candidate);
    traffic::ActiveModel {
        prompt_id: Set(traffic.prompt_id.to_string()),
        environment: Set(traffic.environment.to_string()),
        stable_version: Set(stable.as_ref().map(|stable| stable.version)),
        stable_deployment_id: Set(stable.as_ref().map(|stable| stable.deployment_id)),
        candidate_version: Set(candidate.as_ref().map(|candidate| candidate.version)),
        candidate_percentage: Set(candidate
            .as_ref()
            .map(|candidate| candidate.percentage.into())),
        candidate_deployment_id: Set(candidate.as_ref().map(|candidate| candidate.deployment_id)),
        revision: Set(revision),
        updated_at: Set(now),
    }
}

/// What an environment serves of a prompt, and whether it is to be held.
async fn one<C: ConnectionTrait>(
    db: &C,
    aside: &Aside,
    prompt_id: &PromptId,
    environment: &Environment,
    is_held: bool,
) -> Result<Option<Traffic>, Error> {
    let mut query = traffic::Entity::find_by_id(key(prompt_id, environment));
    if is_held {
        query = query.lock(LockType::Update);
    }
    let mut rows = TRAFFIC
        .read(db, query, Ok::<traffic::Model, String>)
        .await?;
    let Some(row) = rows.pop() else {
        return Ok(None);
    };
    let traffic = row.and_then(|row| read(&row));
    aside.note(
        TRAFFIC.table,
        || name(prompt_id.as_str(), environment.as_str()),
        &traffic,
    );
    Ok(Some(traffic?))
}

/// How a row is named.
pub(super) fn name(prompt_id: &str, environment: &str) -> String {
    format!("{prompt_id} in {environment}")
}

pub(super) fn read(row: &traffic::Model) -> Result<Traffic, Corrupt> {
    let key = name(&row.prompt_id, &row.environment);
    meant(row).map_err(|what| Corrupt {
        table: TRAFFIC.table,
        key,
        what,
    })
}

/// A version is served with its deployment and, where it is a candidate, its share; a half of that
/// means nothing, and not that nothing is served.
fn meant(row: &traffic::Model) -> Result<Traffic, String> {
    let prompt_id = PromptId::parse(&row.prompt_id)?;
    let environment = Environment::parse(&row.environment)?;
    let stable = match (row.stable_version, row.stable_deployment_id) {
        (Some(version @ 1..), Some(deployment_id)) => Some(Stable {
            version,
            deployment_id,
        }),
        (None, None) => None,
        half => return Err(format!("the stable version is {half:?}")),
    };
    let candidate = match (
        row.candidate_version,
        row.candidate_percentage,
        row.candidate_deployment_id,
    ) {
        (Some(version @ 1..), Some(percentage), Some(deployment_id)) => Some(Candidate {
            version,
            percentage: super::deployments::percent(percentage)?,
            deployment_id,
        }),
        (None, None, None) => None,
        half => return Err(format!("the candidate is {half:?}")),
    };
    Ok(Traffic {
        prompt_id,
        environment,
        stable,
        candidate,
        revision: row.revision,
    })
}
