//! What the reconciler has to do: one row for each deployment that is on its way, taken by lease.
//!
//! `due_at` says when a row may be taken. Who takes it moves `due_at` to the end of the lease and
//! counts up `lease_epoch`; what it then does is written only while the epoch is still its own,
//! so that a replica that was paused beyond its lease changes nothing.

use std::time::{Duration, Instant};

use sea_orm::{
    ActiveValue::Set,
    ColumnTrait as _, EntityTrait as _, ExprTrait as _, PaginatorTrait as _, QueryFilter as _,
    QueryOrder as _, QuerySelect as _,
    sea_query::{Expr, LockBehavior, LockType, OnConflict, SimpleExpr},
};
use uuid::Uuid;

use super::{Store, Tx, aside::Each, entity::work, error::Error, time};
use crate::{
    domain::{
        Timestamp,
        deployment::Deployment,
        ids::{Environment, PromptId},
    },
    faults::{Bug, Point},
};

const WORK: Each = Each {
    table: "deployment_work",
    key: &["deployment_id"],
};

/// How long work is put off that can't be read, or whose deployment can't.
pub const SET_ASIDE: Duration = Duration::from_secs(300);

/// A deployment that a replica has taken to work on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The deployment.
    pub deployment_id: Uuid,
    /// Who took it.
    pub owner: Uuid,
    /// Counts how often it was taken; the fence.
    pub epoch: i64,
    /// How long it had been due when it was taken.
    pub lag: Duration,
    /// Whether another replica had taken it and did not finish.
    pub taken_over: bool,
    /// How often in a row working on it failed.
    pub failures: i32,
    /// When it was taken, by this process's clock.
    pub claimed_at: Instant,
}

impl Store {
    /// Takes up to `limit` deployments that are due, the longest due first, for `lease`.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn claim(
        &self,
        owner: Uuid,
        limit: u64,
        lease: Duration,
    ) -> Result<Vec<Claim>, Error> {
        self.faults.at(Point::ClaimBefore).await?;
        let claims = self
            .write(move |tx| super::boxed(tx.claim(owner, limit, lease)))
            .await?;
        if !claims.is_empty() {
            self.faults.at(Point::ClaimAfter).await?;
        }
        Ok(claims)
    }

    /// How long until something is due, at most `limit`; zero where something is.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn until_due(&self, limit: Duration) -> Result<Duration, Error> {
        let first = work::Entity::find()
            .order_by_asc(work::Column::DueAt)
            .limit(1);
        let due_at = |row: work::Model| Ok(row.due_at);
        let first = WORK.read(self.reader()?, first, due_at).await?.pop();
        let next = match first {
            None => return Ok(limit),
            // Who claims it puts it off.
            Some(Err(_)) => return Ok(Duration::ZERO),
            Some(Ok(next)) => next,
        };
        let now = time::now(self.reader()?, &self.clock).await?;
        Ok((next - now).to_std().unwrap_or_default().min(limit))
    }

    /// Gives back what `owner` had taken and not finished, so that others need not wait for the
    /// leases to end.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn release(&self, owner: Uuid) -> Result<(), Error> {
        self.faults.at(Point::ReleaseBefore).await?;
        self.write(move |tx| super::boxed(tx.release(owner)))
            .await?;
        Ok(self.faults.at(Point::ReleaseAfter).await?)
    }

    /// Whether a claim is still its owner's.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn holds(&self, claim: &Claim) -> Result<bool, Error> {
        let found = work::Entity::find()
            .filter(is_of(claim))
            .count(self.reader()?)
            .await?;
        Ok(found == 1)
    }

    /// Puts off a claim on which working failed, by `delay`.
    ///
    /// # Errors
    /// The storage failed, or the claim has passed on.
    pub async fn put_off(&self, claim: &Claim, delay: Duration) -> Result<(), Error> {
        let claim = claim.clone();
        self.write(move |tx| {
            let claim = claim.clone();
            super::boxed(async move {
                let due_at = tx.now().await? + delay;
                tx.finish(&claim, Some(due_at), claim.failures.saturating_add(1))
                    .await
            })
        })
        .await
    }
}

/// The row of a claim, for as long as it is its owner's.
fn is_of(claim: &Claim) -> SimpleExpr {
    work::Column::DeploymentId
        .eq(claim.deployment_id)
        .and(work::Column::LeaseOwner.eq(claim.owner))
        .and(work::Column::LeaseEpoch.eq(claim.epoch))
}

impl Tx {
    async fn claim(&self, owner: Uuid, limit: u64, lease: Duration) -> Result<Vec<Claim>, Error> {
        let claimed_at = Instant::now();
        let now = self.now().await?;
        let due = work::Entity::find()
            .filter(work::Column::DueAt.lte(now))
            .order_by_asc(work::Column::DueAt)
            .limit(limit)
            .lock_with_behavior(LockType::Update, LockBehavior::SkipLocked);
        let due = WORK.read(&self.db, due, Ok::<work::Model, String>).await?;
        for corrupt in due.iter().filter_map(|row| row.as_ref().err()) {
            self.put_off_unreadable(&corrupt.key, now).await?;
        }
        let due = self
            .aside
            .leave_out(WORK.table, due, |row| row.deployment_id.to_string());
        if due.is_empty() {
            return Ok(Vec::new());
        }
        let ids = due.iter().map(|row| row.deployment_id);
        work::Entity::update_many()
            .col_expr(work::Column::LeaseOwner, Expr::value(owner))
            .col_expr(
                work::Column::LeaseEpoch,
                Expr::col(work::Column::LeaseEpoch).add(1),
            )
            .col_expr(work::Column::DueAt, Expr::value(now + lease))
            .filter(work::Column::DeploymentId.is_in(ids))
            .exec(&self.db)
            .await?;
        let claim = |row: work::Model| Claim {
            deployment_id: row.deployment_id,
            owner,
            epoch: row.lease_epoch + 1,
            lag: (now - row.due_at).to_std().unwrap_or_default(),
            taken_over: row.lease_owner.is_some(),
            failures: row.failures,
            claimed_at,
        };
        Ok(due.into_iter().map(claim).collect())
    }

    /// Puts off a row that can't be read, so that it is not found due again and again.
    async fn put_off_unreadable(&self, key: &str, now: Timestamp) -> Result<(), Error> {
        let named = match Uuid::try_parse(key) {
            Ok(id) => work::Column::DeploymentId.eq(id),
            Err(_) => Expr::col(work::Column::DeploymentId).eq(key),
        };
        work::Entity::update_many()
            .col_expr(work::Column::DueAt, Expr::value(now + SET_ASIDE))
            .filter(named)
            .exec(&self.db)
            .await?;
        Ok(())
    }

    async fn release(&self, owner: Uuid) -> Result<(), Error> {
        let now = self.now().await?;
        work::Entity::update_many()
            .col_expr(work::Column::LeaseOwner, Expr::value(None::<Uuid>))
            .col_expr(work::Column::DueAt, Expr::value(now))
            .filter(work::Column::LeaseOwner.eq(owner))
            .exec(&self.db)
            .await?;
        Ok(())
    }

    /// Ends a claim: the deployment is due again at `due_at`, or never.
    ///
    /// # Errors
    /// [`Error::Fenced`] where the claim has passed on; the transaction must then not be committed.
    pub async fn finish(
        &self,
        claim: &Claim,
        due_at: Option<Timestamp>,
        failures: i32,
    ) -> Result<(), Error> {
        let ours = if self.faults.has(Bug::SkipsFence) {
            work::Column::DeploymentId.eq(claim.deployment_id)
        } else {
            is_of(claim)
        };
        let rows = match due_at {
            Some(due_at) => {
                work::Entity::update_many()
                    .col_expr(work::Column::DueAt, Expr::value(due_at))
                    .col_expr(work::Column::LeaseOwner, Expr::value(None::<Uuid>))
                    .col_expr(work::Column::Failures, Expr::value(failures))
                    .filter(ours)
                    .exec(&self.db)
                    .await?
                    .rows_affected
            }
            None => {
                work::Entity::delete_many()
                    .filter(ours)
                    .exec(&self.db)
                    .await?
                    .rows_affected
            }
        };
        if rows == 1 || self.faults.has(Bug::SkipsFence) {
            Ok(())
        } else {
            Err(Error::Fenced)
        }
    }

    /// Makes a deployment due at `due_at`, or never. Whoever has taken it finds its claim passed on.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn schedule(
        &self,
        deployment: &Deployment,
        due_at: Option<Timestamp>,
    ) -> Result<(), Error> {
        let Some(due_at) = due_at else {
            work::Entity::delete_by_id(deployment.id)
                .exec(&self.db)
                .await?;
            return Ok(());
        };
        let row = work::ActiveModel {
            deployment_id: Set(deployment.id),
            prompt_id: Set(deployment.prompt_id.to_string()),
            environment: Set(deployment.environment.to_string()),
            due_at: Set(due_at),
            lease_owner: Set(None),
            lease_epoch: Set(0),
            failures: Set(0),
        };
        let epoch = Expr::col((work::Entity, work::Column::LeaseEpoch)).add(1);
        let again = OnConflict::column(work::Column::DeploymentId)
            .update_columns([
                work::Column::DueAt,
                work::Column::LeaseOwner,
                work::Column::Failures,
            ])
            .value(work::Column::LeaseEpoch, epoch)
            .to_owned();
        work::Entity::insert(row)
            .on_conflict(again)
            .exec_without_returning(&self.db)
            .await?;
        Ok(())
    }

    /// Makes a deployment due now, where nobody has claimed it.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn make_due(&self, id: Uuid, now: Timestamp) -> Result<(), Error> {
        work::Entity::update_many()
            .col_expr(work::Column::DueAt, Expr::value(now))
            .filter(work::Column::DeploymentId.eq(id))
            .filter(work::Column::LeaseOwner.is_null())
            .filter(work::Column::DueAt.gt(now))
            .exec(&self.db)
            .await?;
        Ok(())
    }

    /// Makes the other deployments of a prompt and environment due, so that whichever is next in
    /// line goes on.
    ///
    /// # Errors
    /// The storage failed.
    pub async fn call_line(
        &self,
        prompt_id: &PromptId,
        environment: &Environment,
        now: Timestamp,
    ) -> Result<(), Error> {
        work::Entity::update_many()
            .col_expr(work::Column::DueAt, Expr::value(now))
            .filter(work::Column::PromptId.eq(prompt_id.as_str()))
            .filter(work::Column::Environment.eq(environment.as_str()))
            .filter(work::Column::LeaseOwner.is_null())
            .filter(work::Column::DueAt.gt(now))
            .exec(&self.db)
            .await?;
        Ok(())
    }
}
