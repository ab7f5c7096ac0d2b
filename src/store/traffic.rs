//! The traffic table.

use sea_orm::{
    ActiveValue::Set,
    EntityTrait as _, ExprTrait as _, QuerySelect as _,
    sea_query::{Expr, LockType, OnConflict},
};

use super::{
    Store, Tx,
    entity::{traffic, traffic_revision},
    error::Error,
};
use crate::domain::{
    Timestamp,
    ids::{Environment, PromptId},
    traffic::{Candidate, Stable, Traffic},
};

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
            .one(&self.reader)
            .await?;
        read(prompt_id, environment, row)
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
    pub async fn put_traffic(&self, after: &Traffic, now: Timestamp) -> Result<(), Error> {
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
