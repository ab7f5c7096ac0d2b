//! What happened to a deployment, as it is put on record.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::{
    Timestamp,
    ids::Actor,
    state::{Status, Verb},
};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The deployment was created.
    Create,
    /// A transition of the machine.
    Verb(Verb),
}

impl Action {
    /// The name in the API.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Verb(Verb::Approve) => "approve",
            Self::Verb(Verb::Measure) => "measure",
            Self::Verb(Verb::PassGates) => "pass_gates",
            Self::Verb(Verb::FailGates) => "fail_gates",
            Self::Verb(Verb::Start) => "start",
            Self::Verb(Verb::Step) => "step",
            Self::Verb(Verb::Complete) => "complete",
            Self::Verb(Verb::RollBack) => "roll_back",
            Self::Verb(Verb::Cancel) => "cancel",
            Self::Verb(Verb::Fail) => "fail",
        }
    }

    /// Every action.
    pub fn all() -> impl Iterator<Item = Self> {
        [Self::Create].into_iter().chain(Verb::ALL.map(Self::Verb))
    }

    /// The action of this name.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        Self::all().find(|action| action.as_str() == name)
    }
}

/// What a transition leaves on record. Who asked for it, and with which request, is added where
/// it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What was done.
    pub action: Action,
    /// The status before; none for [`Action::Create`].
    pub from: Option<Status>,
    /// The status after; the same where the attempt was refused.
    pub to: Status,
    /// When.
    pub at: Timestamp,
    /// Why.
    pub reason: String,
    /// The evidence, by name.
    pub details: BTreeMap<&'static str, String>,
    /// Whether the service did it without being asked at that moment.
    pub by_system: bool,
}

impl Record {
    /// A record without reason or details.
    #[must_use]
    pub fn new(action: Action, from: Option<Status>, to: Status, at: Timestamp) -> Self {
        Self {
            action,
            from,
            to,
            at,
            reason: String::new(),
            details: BTreeMap::new(),
            by_system: false,
        }
    }

    /// With a reason.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = reason.into();
        self
    }

    /// With one more piece of evidence.
    #[must_use]
    #[expect(
        clippy::needless_pass_by_value,
        reason = "numbers and ids are given as they are"
    )]
    pub fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.details.insert(name, value.to_string());
        self
    }

    /// As done by the service itself.
    #[must_use]
    pub fn by_system(mut self) -> Self {
        self.by_system = true;
        self
    }
}

/// An entry of the audit trail as it is read back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// UUID v7; orders the events of all deployments.
    pub id: Uuid,
    /// The deployment it belongs to.
    pub deployment_id: Uuid,
    /// Number within the deployment: 1, 2, 3, … without gap.
    pub sequence: i64,
    /// When.
    pub at: Timestamp,
    /// Who.
    pub actor: String,
    /// See [`Record::action`].
    pub action: Action,
    /// See [`Record::from`].
    pub from: Option<Status>,
    /// See [`Record::to`].
    pub to: Status,
    /// Why.
    pub reason: String,
    /// The request that caused it, directly or not; empty for what time caused.
    pub request_id: String,
    /// The evidence, by name.
    pub details: BTreeMap<String, String>,
}

/// Who asks, and with which request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// Who asks.
    pub actor: Actor,
    /// The id of the request, as it is logged and answered; empty for the service itself.
    pub request_id: String,
}

impl Caller {
    /// The service itself.
    #[must_use]
    pub fn system() -> Self {
        Self {
            actor: Actor::system(),
            request_id: String::new(),
        }
    }
}
