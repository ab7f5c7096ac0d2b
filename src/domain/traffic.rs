//! Which versions of a prompt an environment serves, and in which shares.

use uuid::Uuid;

use super::ids::{Environment, PromptId};

/// A version that receives a share of traffic beside the stable one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// The version.
    pub version: i32,
    /// Percent of traffic, 0 to 99. At 0 it can only be asked for as a preview.
    pub percentage: u8,
    /// The deployment that rolls it out.
    pub deployment_id: Uuid,
}

/// The version that everybody gets who does not get the candidate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stable {
    /// The version.
    pub version: i32,
    /// The deployment that brought it.
    pub deployment_id: Uuid,
}

/// One row of the traffic table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Traffic {
    /// The prompt.
    pub prompt_id: PromptId,
    /// The environment.
    pub environment: Environment,
    /// What is served; none where the environment serves nothing.
    pub stable: Option<Stable>,
    /// What is being rolled out.
    pub candidate: Option<Candidate>,
    /// Grows with each change of any row of the environment; 0 before the first.
    pub revision: i64,
}

impl Traffic {
    /// An environment that has never served the prompt.
    #[must_use]
    pub fn none(prompt_id: PromptId, environment: Environment) -> Self {
        Self {
            prompt_id,
            environment,
            stable: None,
            candidate: None,
            revision: 0,
        }
    }

    /// The stable version, 0 where there is none.
    #[must_use]
    pub fn stable_version(&self) -> i32 {
        self.stable.as_ref().map_or(0, |stable| stable.version)
    }

    /// Whether both serve the same versions in the same shares, whatever their revisions.
    #[must_use]
    pub fn serves_the_same_as(&self, other: &Self) -> bool {
        self.stable == other.stable && self.candidate == other.candidate
    }
}
