//! What was answered to requests that count once, for when they come again.

use chrono::TimeDelta;
use sea_orm::{
    ActiveValue::Set, ColumnTrait as _, ConnectionTrait, DbBackend, EntityTrait as _,
    QueryFilter as _,
};
use uuid::Uuid;

use super::{Store, Tx, entity::first_answer, error::Error};
use crate::{domain::Timestamp, faults::Bug};

/// How long an answer is kept.
const KEPT: TimeDelta = TimeDelta::hours(24);

/// The answer to the request that came first under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstAnswer {
    /// A digest of what that request asked for.
    pub content: Uuid,
    /// The answer, as it was encoded.
    pub answer: Vec<u8>,
}

impl Store {
    /// What was answered under a key; none where nothing was, or a day ago.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn first_answer(&self, key: Uuid) -> Result<Option<FirstAnswer>, Error> {
        let now = self.now().await?;
        first_answer(self.reader()?, key, now).await
    }

    /// Forgets answers that are older than a day.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn forget_answers(&self) -> Result<(), Error> {
        self.write(move |tx| {
            super::boxed(async move {
                let before = tx.now().await? - KEPT;
                first_answer::Entity::delete_many()
                    .filter(first_answer::Column::At.lt(before))
                    .exec(&tx.db)
                    .await?;
                Ok(())
            })
        })
        .await
    }
}

impl Tx {
    /// Holds a key until the transaction ends, before anything that belongs to a deployment: who does
    /// the same at the same moment waits here, and then finds the answer. Where it waited only later,
    /// for the deployment, it would find that changed, and be refused what was done for it.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn hold_key(&self, key: Uuid) -> Result<(), Error> {
        // SQLite has one writer.
        if self.db.get_database_backend() == DbBackend::Postgres {
            let (number, _) = key.as_u64_pair();
            let number = number.cast_signed();
            self.db
                .execute_unprepared(&format!("SELECT pg_advisory_xact_lock({number})"))
                .await?;
        }
        Ok(())
    }

    /// What was answered under a key; none where nothing was, or a day ago.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn first_answer(
        &self,
        key: Uuid,
        now: Timestamp,
    ) -> Result<Option<FirstAnswer>, Error> {
        first_answer(&self.db, key, now).await
    }

    /// Keeps an answer with its effect. Who does the same at the same moment waits for this transaction
    /// and then finds it.
    ///
    /// # Errors
    /// [`Error::Conflict`] where somebody was first, or that the storage failed.
    pub async fn put_first_answer(
        &self,
        key: Uuid,
        answer: FirstAnswer,
        now: Timestamp,
    ) -> Result<(), Error> {
        if self.faults.has(Bug::ForgetsAnswer) {
            return Ok(());
        }
        first_answer::Entity::delete_many()
            .filter(first_answer::Column::Key.eq(key))
            .filter(first_answer::Column::At.lt(now - KEPT))
            .exec(&self.db)
            .await?;
        let row = first_answer::ActiveModel {
            key: Set(key),
            content: Set(answer.content),
            answer: Set(answer.answer),
            at: Set(now),
        };
        first_answer::Entity::insert(row)
            .exec_without_returning(&self.db)
            .await?;
        Ok(())
    }
}

async fn first_answer<C: ConnectionTrait>(
    db: &C,
    key: Uuid,
    now: Timestamp,
) -> Result<Option<FirstAnswer>, Error> {
    let row = first_answer::Entity::find_by_id(key)
        .filter(first_answer::Column::At.gte(now - KEPT))
        .one(db)
        .await?;
    Ok(row.map(|row| FirstAnswer {
        content: row.content,
        answer: row.answer,
    }))
}
