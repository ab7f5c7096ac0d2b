//! The traffic table.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, ConnectionTrait as _, EntityTrait as _, ExprTrait as _, QueryFilter as _,
    QuerySelect as _,
    sea_query::{Expr, LockType, OnConflict},
};
use sqlx::postgres::PgListener;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::{
    Store, Tx,
    entity::{traffic, traffic_revision},
    error::Error,
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
        let row = traffic::Entity::find_by_id(key(prompt_id, environment))
            .one(self.reader()?)
            .await?;
        read(prompt_id, environment, row)
    }

    /// The last revision given out in each environment.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn traffic_revisions(&self) -> Result<Vec<(String, i64)>, Error> {
        let rows = traffic_revision::Entity::find().all(self.reader()?).await?;
        Ok(rows
            .into_iter()
            .map(|row| (row.environment, row.revision))
            .collect())
    }

    /// What has changed in an environment after a revision, and the revision up to which that is
    /// all of it.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn traffic_after(
        &self,
        environment: &str,
        revision: i64,
    ) -> Result<(Vec<Traffic>, i64), Error> {
        let rows = traffic::Entity::find()
            .filter(traffic::Column::Environment.eq(environment))
            .filter(traffic::Column::Revision.gt(revision))
            .all(self.reader()?)
            .await?;
        // Revisions become visible in their order, so that below the highest one none is missing.
        let highest = rows
            .iter()
            .map(|row| row.revision)
            .max()
            .unwrap_or(revision);
        let rows: Result<Vec<_>, _> = rows.into_iter().map(read_row).collect();
        Ok((rows?, highest))
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
        now: Timestamp,
    ) -> Result<Traffic, Error> {
        if let Some(row) = self.held_row(prompt_id, environment).await? {
            return read(prompt_id, environment, Some(row));
        }
        let first = row(
            &Traffic::none(prompt_id.clone(), environment.clone()),
            0,
            now,
        );
        let unless_there =
            OnConflict::columns([traffic::Column::PromptId, traffic::Column::Environment])
                .do_nothing()
                .to_owned();
        traffic::Entity::insert(first)
            .on_conflict(unless_there)
            .exec_without_returning(&self.db)
            .await?;
        let row = self.held_row(prompt_id, environment).await?;
        read(prompt_id, environment, row)
    }

    async fn held_row(
        &self,
        prompt_id: &PromptId,
        environment: &Environment,
    ) -> Result<Option<traffic::Model>, Error> {
        let row = traffic::Entity::find_by_id(key(prompt_id, environment))
            .lock(LockType::Update)
            .one(&self.db)
            .await?;
        Ok(row)
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

pub(super) fn read_row(row: traffic::Model) -> Result<Traffic, Error> {
    let corrupt = |what| Error::Corrupt {
        table: "traffic",
        what,
    };
    let prompt_id = PromptId::parse(&row.prompt_id).map_err(corrupt)?;
    let environment = Environment::parse(&row.environment).map_err(corrupt)?;
    read(&prompt_id, &environment, Some(row))
}

fn read(
    prompt_id: &PromptId,
    environment: &Environment,
    row: Option<traffic::Model>,
) -> Result<Traffic, Error> {
    let mut traffic = Traffic::none(prompt_id.clone(), environment.clone());
    let Some(row) = row else { return Ok(traffic) };
    traffic.revision = row.revision;
    traffic.stable = match (row.stable_version, row.stable_deployment_id) {
        (Some(version), Some(deployment_id)) => Some(Stable {
            version,
            deployment_id,
        }),
        _ => None,
    };
    traffic.candidate = match (
        row.candidate_version,
        row.candidate_percentage,
        row.candidate_deployment_id,
    ) {
        (Some(version), Some(percentage), Some(deployment_id)) => Some(Candidate {
            version,
            percentage: super::deployments::percent("traffic", percentage)?,
            deployment_id,
        }),
        _ => None,
    };
    Ok(traffic)
}
