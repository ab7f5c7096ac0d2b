//! What replicas report of themselves: how far they have spread what is served.
//!
//! Only a storage that several replicas can share is told; of its own replica each knows.

use std::collections::{BTreeMap, HashMap};

use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, EntityTrait as _, QueryFilter as _, sea_query::OnConflict,
};
use uuid::Uuid;

use super::{
    Store, Tx,
    entity::{replica, replica_spread},
    error::Error,
    time,
};
use crate::domain::{
    Timestamp,
    convergence::{GONE_AFTER, Report, Spread},
};

impl Store {
    /// Notes how far a replica has spread the splits of each environment, by name.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn report_replica(
        &self,
        id: Uuid,
        spreads: BTreeMap<String, Spread>,
    ) -> Result<(), Error> {
        if !self.is_postgres() {
            return Ok(());
        }
        self.write(move |tx| {
            let spreads = spreads.clone();
            super::boxed(async move { tx.report_replica(id, &spreads).await })
        })
        .await
    }

    /// Notes that a replica serves no more.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn retire_replica(&self, id: Uuid) -> Result<(), Error> {
        if !self.is_postgres() {
            return Ok(());
        }
        self.write(move |tx| {
            super::boxed(async move {
                replica::Entity::delete_by_id(id).exec(&tx.db).await?;
                Ok(())
            })
        })
        .await
    }

    /// What the replicas have reported of an environment, and the storage's time. Those that have
    /// been silent for long may be among them.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn replicas(&self, environment: &str) -> Result<(Vec<Report>, Timestamp), Error> {
        let now = time::now(self.reader()?, &self.clock).await?;
        if !self.is_postgres() {
            return Ok((Vec::new(), now));
        }
        let replicas = replica::Entity::find().all(self.reader()?).await?;
        let spreads = replica_spread::Entity::find()
            .filter(replica_spread::Column::Environment.eq(environment))
            .all(self.reader()?)
            .await?;
        let mut spreads: HashMap<_, _> = spreads
            .into_iter()
            .map(|row| (row.replica_id, spread(&row)))
            .collect();
        let reports = replicas.into_iter().map(|row| Report {
            replica_id: row.id,
            seen_at: row.seen_at,
            spread: spreads.remove(&row.id).unwrap_or_default(),
        });
        Ok((reports.collect(), now))
    }
}

impl Tx {
    async fn report_replica(
        &self,
        id: Uuid,
        spreads: &BTreeMap<String, Spread>,
    ) -> Result<(), Error> {
        let now = self.now().await?;
        let seen = replica::ActiveModel {
            id: Set(id),
            seen_at: Set(now),
        };
        let again = OnConflict::column(replica::Column::Id)
            .update_column(replica::Column::SeenAt)
            .to_owned();
        replica::Entity::insert(seen)
            .on_conflict(again)
            .exec_without_returning(&self.db)
            .await?;
        if !spreads.is_empty() {
            let rows = spreads.iter().map(|(name, spread)| row(id, name, *spread));
            let again = OnConflict::columns([
                replica_spread::Column::ReplicaId,
                replica_spread::Column::Environment,
            ])
            .update_columns([
                replica_spread::Column::Revision,
                replica_spread::Column::Watchers,
                replica_spread::Column::WatchersBehind,
            ])
            .to_owned();
            replica_spread::Entity::insert_many(rows)
                .on_conflict(again)
                .exec_without_returning(&self.db)
                .await?;
        }
        // Those that were killed.
        replica::Entity::delete_many()
            .filter(replica::Column::SeenAt.lt(now - 10 * GONE_AFTER))
            .exec(&self.db)
            .await?;
        Ok(())
    }
}

fn row(id: Uuid, environment: &str, spread: Spread) -> replica_spread::ActiveModel {
    let count = |count: u32| i32::try_from(count).unwrap_or(i32::MAX);
    replica_spread::ActiveModel {
        replica_id: Set(id),
        environment: Set(environment.to_owned()),
        revision: Set(spread.revision),
        watchers: Set(count(spread.watchers)),
        watchers_behind: Set(count(spread.watchers_behind)),
    }
}

fn spread(row: &replica_spread::Model) -> Spread {
    Spread {
        revision: row.revision,
        watchers: row.watchers.unsigned_abs(),
        watchers_behind: row.watchers_behind.unsigned_abs(),
    }
}
