//! Which run over a dataset is wanted: found where there is one, or else started.

use super::{EvalRun, EvalRunStatus, is_of};
use crate::{domain::deployment::Deployment, evidence::pb::eval::EvalConfig};

/// Which version of a deployment a run is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    /// The one that is to be deployed.
    Candidate,
    /// The one that is served.
    Baseline,
}

/// A run over a dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Wanted {
    /// The dataset.
    pub(super) dataset: String,
    /// Which version it is of.
    pub(super) side: Side,
    /// How it evaluates, where that is not left to the Eval service.
    pub(super) config: Option<EvalConfig>,
}

impl Side {
    pub(super) fn version(self, deployment: &Deployment) -> i32 {
        match self {
            Self::Candidate => deployment.to_version,
            Self::Baseline => deployment.from_version,
        }
    }
}

impl Wanted {
    /// A run of the version that is to be deployed.
    pub(super) fn candidate(dataset: &str) -> Self {
        Self {
            dataset: dataset.to_owned(),
            side: Side::Candidate,
            config: None,
        }
    }

    /// A run of the version that is served, which evaluates as one of the new version does.
    pub(super) fn baseline(dataset: &str, candidate: &EvalRun) -> Self {
        Self {
            dataset: dataset.to_owned(),
            side: Side::Baseline,
            config: candidate.config.clone(),
        }
    }

    /// The dataset that it is over.
    #[must_use]
    pub fn dataset(&self) -> &str {
        &self.dataset
    }

    /// The name it is started by: the same whoever starts it, and however often it is tried.
    #[must_use]
    pub fn name(&self, deployment: &Deployment) -> String {
        let (id, dataset) = (deployment.id, &self.dataset);
        match self.side {
            Side::Candidate => format!("delos-deploy/{id}/{dataset}"),
            Side::Baseline => format!("delos-deploy/{id}/{dataset}/baseline"),
        }
    }

    /// The run that counts: the newest of the version that has completed; or else one that is on
    /// its way; or else one that was started for this deployment and came to nothing, which is
    /// not started again.
    pub(super) fn that_counts<'r>(
        &self,
        runs: &'r [EvalRun],
        deployment: &Deployment,
    ) -> Option<&'r EvalRun> {
        let version = self.side.version(deployment);
        let runs = || runs.iter().filter(|run| is_of(run, deployment, version));
        let newest = |status: EvalRunStatus| {
            let runs = runs().filter(|run| run.status() == status && self.evaluates_as(run));
            runs.max_by_key(|run| {
                let at = run.completed_at.or(run.created_at).unwrap_or_default();
                (at.seconds, at.nanos)
            })
        };
        let found = [
            EvalRunStatus::Completed,
            EvalRunStatus::Running,
            EvalRunStatus::Pending,
        ]
        .into_iter()
        .find_map(newest);
        let name = self.name(deployment);
        found.or_else(|| runs().find(|run| run.name == name))
    }

    /// Whether a run can stand beside the one of the other version: by the same evaluators, provider
    /// and model. Otherwise they would differ by more than the prompt.
    pub(super) fn evaluates_as(&self, run: &EvalRun) -> bool {
        let how = |config: Option<&EvalConfig>| {
            let config = config.cloned().unwrap_or_default();
            (config.evaluators, config.provider, config.model)
        };
        match self.side {
            Side::Candidate => true,
            Side::Baseline => how(self.config.as_ref()) == how(run.config.as_ref()),
        }
    }
}
