//! A deployment: one attempt to bring one version of a prompt to the users of an environment.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    Timestamp,
    ids::{Actor, Environment, PromptId},
    judgement::GateResult,
    state::Status,
    strategy::{Strategy, StrategyRequest, StrategyType},
    violation::Violations,
};

/// Most entries of a deployment's metadata.
pub const METADATA_ENTRIES_MAX: usize = 64;
/// Longest key of a deployment's metadata, in characters.
pub const METADATA_KEY_MAX: usize = 63;
/// Longest value of a deployment's metadata, in characters.
pub const METADATA_VALUE_MAX: usize = 1024;
/// Metadata key, the service's own: the deployment that this one takes back.
pub const ROLLBACK_FROM: &str = "rollback_from";

/// One attempt to bring one version of a prompt to an environment.
#[derive(Debug, Clone, PartialEq)]
pub struct Deployment {
    /// UUID v7.
    pub id: Uuid,
    /// The prompt.
    pub prompt_id: PromptId,
    /// The environment.
    pub environment: Environment,
    /// The version that a rollback restores; 0 for none.
    pub from_version: i32,
    /// Whether `from_version` has ever had all traffic. Where it has not (the way back from a
    /// rollout that did not complete), a rollback may not restore it.
    pub from_version_proven: bool,
    /// The version being deployed; at least 1.
    pub to_version: i32,
    /// How traffic shifts.
    pub strategy: Strategy,
    /// Where it is in its life.
    pub status: Status,
    /// Why, in a sentence.
    pub status_message: String,
    /// What there was to warn of when it was created; empty for nothing.
    pub warning: String,
    /// Its gates and what became of them.
    pub gates: Vec<GateResult>,
    /// Whether every required gate has passed.
    pub gates_passed: bool,
    /// When its gates must have been measured; none before they begin to be.
    pub gates_due_at: Option<Timestamp>,
    /// How far its rollout has come; none before it starts.
    pub rollout: Option<Rollout>,
    /// When it was created.
    pub created_at: Timestamp,
    /// When its rollout started.
    pub started_at: Option<Timestamp>,
    /// When it last reached a status that ends it.
    pub completed_at: Option<Timestamp>,
    /// Who created it.
    pub created_by: String,
    /// Who approved it; empty for nobody.
    pub approved_by: String,
    /// Labels of the caller's.
    pub metadata: BTreeMap<String, String>,
    /// When it last changed, or a change of it was refused; never runs backwards.
    pub updated_at: Timestamp,
    /// Counts its changes: what a write compares, so that it changes only what it has seen.
    pub revision: i64,
    /// How many events it has on record.
    pub event_count: i64,
}

/// How far a rollout has come.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rollout {
    /// Number of the step of the plan, counted from 0.
    pub stage: usize,
    /// Percent of traffic now.
    pub current_percentage: u8,
    /// Percent of traffic that it ends at.
    pub target_percentage: u8,
    /// When the share last changed.
    pub last_increment_at: Timestamp,
    /// When the next step is due; none where there is none.
    pub next_increment_at: Option<Timestamp>,
}

impl Deployment {
    /// Whether its gates have passed and it waits for its turn to start.
    #[must_use]
    pub fn is_in_line(&self) -> bool {
        self.status == Status::PendingGates && self.gates_passed
    }

    /// Whether it is judged by what becomes of the requests that it serves.
    #[must_use]
    pub fn is_judged_live(&self) -> bool {
        self.status == Status::InProgress && self.strategy.kind != StrategyType::Immediate
    }

    /// Whether its gates wait for evidence that has to be looked for.
    #[must_use]
    pub fn needs_evidence(&self) -> bool {
        let mut missing = self
            .gates
            .iter()
            .flat_map(GateResult::conditions_to_measure);
        self.status == Status::PendingGates && !self.gates_passed && missing.next().is_some()
    }
}

/// A deployment as a caller asks for it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeploymentRequest {
    /// See [`Deployment::prompt_id`].
    pub prompt_id: String,
    /// See [`Deployment::environment`].
    pub environment: String,
    /// See [`Deployment::to_version`].
    pub to_version: i32,
    /// See [`Deployment::strategy`].
    pub strategy: StrategyRequest,
    /// See [`Deployment::metadata`].
    pub metadata: BTreeMap<String, String>,
    /// Whether the deployment needs no approval.
    pub skip_approval: bool,
}

/// What is asked for, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct NewDeployment {
    /// See [`Deployment::id`].
    pub id: Uuid,
    /// See [`Deployment::prompt_id`].
    pub prompt_id: PromptId,
    /// See [`Deployment::environment`].
    pub environment: Environment,
    /// See [`Deployment::to_version`].
    pub to_version: i32,
    /// See [`Deployment::strategy`].
    pub strategy: Strategy,
    /// See [`Deployment::metadata`].
    pub metadata: BTreeMap<String, String>,
    /// Whether the deployment needs no approval.
    pub skip_approval: bool,
    /// Who asks for it.
    pub created_by: Actor,
    /// See [`Deployment::warning`].
    pub warning: String,
}

impl NewDeployment {
    /// Checks what is asked for, noting each field that is wrong.
    pub fn resolve(
        request: DeploymentRequest,
        id: Uuid,
        created_by: Actor,
        violations: &mut Violations,
    ) -> Option<Self> {
        let prompt_id = violations.take("prompt_id", PromptId::parse(&request.prompt_id));
        let environment = violations.take("environment", Environment::parse(&request.environment));
        if request.to_version < 1 {
            violations.add(
                "to_version",
                format!("is {}; must be at least 1", request.to_version),
            );
        }
        let strategy = Strategy::resolve(request.strategy, violations);
        check_metadata(&request.metadata, violations);
        Some(Self {
            id,
            prompt_id: prompt_id?,
            environment: environment?,
            to_version: request.to_version,
            strategy: strategy?,
            metadata: request.metadata,
            skip_approval: request.skip_approval,
            created_by,
            warning: String::new(),
        })
    }
}

fn check_metadata(metadata: &BTreeMap<String, String>, violations: &mut Violations) {
    if metadata.len() > METADATA_ENTRIES_MAX {
        violations.add(
            "metadata",
            format!(
                "has {} entries; at most {METADATA_ENTRIES_MAX} are allowed",
                metadata.len()
            ),
        );
        return;
    }
    for (key, value) in metadata {
        let shown: String = key.chars().take(METADATA_KEY_MAX).collect();
        let field = format!("metadata[\"{shown}\"]");
        if key.is_empty() {
            violations.add(field.clone(), "has an empty key");
        }
        if key.chars().count() > METADATA_KEY_MAX {
            violations.add(
                field.clone(),
                format!("has a key longer than {METADATA_KEY_MAX} characters"),
            );
        }
        if key == ROLLBACK_FROM {
            violations.add(
                field.clone(),
                "is written by the service alone; choose another key",
            );
        }
        violations.check_characters(&field, key);
        violations.check_length(&field, value, METADATA_VALUE_MAX);
    }
}
