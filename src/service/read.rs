//! Reads deployments.

use super::{Error, Service, deployment_id, error::of_store, not_found};
use crate::{
    domain::{
        convergence::{Convergence, Report},
        deployment::Deployment,
        ids::{Environment, PromptId},
        state::Status,
        violation::Violations,
    },
    store::{self, Arm, DeploymentFilter},
};

/// How many deployments a page has where the caller does not say.
pub(super) const PAGE_DEFAULT: i32 = 50;
/// How many deployments or events a page has at most.
pub(super) const PAGE_MAX: i32 = 1000;

/// Which deployments to list; what is empty matches all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeploymentQuery {
    /// Only of this prompt.
    pub prompt_id: String,
    /// Only to this environment.
    pub environment: String,
    /// Only in this status; or why it can't be read.
    pub status: Result<Option<Status>, String>,
    /// How many; 0 for the default.
    pub limit: i32,
    /// How many to pass over.
    pub offset: i32,
}

/// A page of deployments.
#[derive(Debug, Clone, PartialEq)]
pub struct DeploymentPage {
    /// The newest first.
    pub deployments: Vec<Deployment>,
    /// How many match in all.
    pub total: u64,
}

/// Where a deployment stands now.
#[derive(Debug, Clone, PartialEq)]
pub struct Progress {
    /// The deployment.
    pub deployment: Deployment,
    /// The live metrics of the version that is rolled out; none until an outcome is reported.
    pub current: Option<Arm>,
    /// Those of the version that it replaces, from requests served beside it.
    pub baseline: Option<Arm>,
    /// The candidate's share of the units since the split began, as it was and as it was meant, 0 to
    /// 1; none where there were none.
    pub share: Option<(f64, f64)>,
    /// How far the split has spread that is served now.
    pub convergence: Convergence,
}

impl Service {
    /// A deployment by its id.
    ///
    /// # Errors
    /// There is none, or the storage failed.
    pub async fn deployment(&self, id: &str) -> Result<Deployment, Error> {
        let found = self.store.deployment(deployment_id(id)?).await;
        found
            .map_err(|error| of_store(&error, "deployment", id))?
            .ok_or_else(|| not_found(id))
    }

    /// Where a deployment stands now.
    ///
    /// # Errors
    /// There is none, or the storage failed.
    pub async fn progress(&self, id: &str) -> Result<Progress, Error> {
        let deployment = self.deployment(id).await?;
        let failed = |error: store::Error| of_store(&error, "deployment", id);
        let observed = self.store.observed(&deployment).await.map_err(failed)?;
        let arms = observed.as_ref().map(|seen| (seen.candidate, seen.stable));
        let (current, baseline) = arms
            .filter(|(current, baseline)| current.metrics.calls + baseline.metrics.calls > 0)
            .unzip();
        let is_rolling_out = deployment.status == Status::InProgress;
        let share = observed.and_then(|seen| seen.share);
        let convergence = self.convergence(&deployment).await.map_err(failed)?;
        Ok(Progress {
            deployment,
            current,
            baseline,
            share: share.filter(|_| is_rolling_out),
            convergence,
        })
    }

    /// How far the split has spread that is served now where a deployment goes.
    async fn convergence(&self, deployment: &Deployment) -> Result<Convergence, store::Error> {
        let (prompt, environment) = (&deployment.prompt_id, &deployment.environment);
        let served = self.store.traffic(prompt, environment).await?;
        let (mut reports, now) = self.store.replicas(environment.as_str()).await?;
        // Of itself a replica knows what it has not reported yet.
        reports.retain(|report| report.replica_id != self.replica);
        let own = self.traffic.spread().remove(environment.as_str());
        reports.push(Report {
            replica_id: self.replica,
            seen_at: now,
            spread: own.unwrap_or_default(),
        });
        Ok(Convergence::of(served.revision, reports, now))
    }

    /// The deployments that match, the newest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] with every field that is wrong, or that the storage failed.
    pub async fn deployments(&self, query: &DeploymentQuery) -> Result<DeploymentPage, Error> {
        let mut violations = Violations::default();
        let filter = DeploymentFilter {
            prompt_id: prompt_filter(&query.prompt_id, &mut violations),
            environment: environment_filter(&query.environment, &mut violations),
            status: violations.take("status", query.status.clone()).flatten(),
        };
        let limit = page_size("limit", query.limit, &mut violations);
        if query.offset < 0 {
            violations.add(
                "offset",
                format!("is {}; must not be negative", query.offset),
            );
        }
        let limit = violations.finish(limit).map_err(Error::Invalid)?;
        let (deployments, total) = self
            .store
            .deployments(&filter, limit, query.offset.unsigned_abs().into())
            .await
            .map_err(|error| of_store(&error, "deployments", ""))?;
        Ok(DeploymentPage { deployments, total })
    }
}

/// A prompt to filter by; none where the field is empty.
pub(super) fn prompt_filter(text: &str, violations: &mut Violations) -> Option<String> {
    let prompt = (!text.is_empty()).then(|| violations.take("prompt_id", PromptId::parse(text)));
    prompt.flatten().map(|prompt| prompt.to_string())
}

/// An environment to filter by; none where the field is empty.
pub(super) fn environment_filter(text: &str, violations: &mut Violations) -> Option<String> {
    let environment =
        (!text.is_empty()).then(|| violations.take("environment", Environment::parse(text)));
    environment
        .flatten()
        .map(|environment| environment.to_string())
}

/// How many to return: the default for 0, never more than [`PAGE_MAX`].
pub(super) fn page_size(field: &str, asked: i32, violations: &mut Violations) -> Option<u64> {
    match asked {
        0 => Some(PAGE_DEFAULT.unsigned_abs().into()),
        1.. => Some(asked.min(PAGE_MAX).unsigned_abs().into()),
        _ => {
            violations.add(
                field,
                format!("is {asked}; must be 1 to {PAGE_MAX}, or 0 for {PAGE_DEFAULT}"),
            );
            None
        }
    }
}
