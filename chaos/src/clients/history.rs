//! What the clients did and were told: the one side of what is checked.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use delos_deploy::wire::pb::{
    ApproveDeploymentRequest, CancelDeploymentRequest, CreateDeploymentRequest,
    CreateQualityGateRequest, Deployment, ReportOutcomesRequest, ReportOutcomesResponse,
    RollbackDeploymentRequest,
};
use tonic::Code;

/// A call that changes something.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Call {
    Create(CreateDeploymentRequest),
    CreateGate(CreateQualityGateRequest),
    Approve(ApproveDeploymentRequest),
    RollBack(RollbackDeploymentRequest),
    Cancel(CancelDeploymentRequest),
    Report(ReportOutcomesRequest),
}

impl Call {
    /// The key under which it counts once; outcomes have ids of their own.
    pub(crate) fn key(&self) -> &str {
        match self {
            Self::Create(request) => &request.request_id,
            Self::CreateGate(request) => &request.request_id,
            Self::Approve(request) => &request.request_id,
            Self::RollBack(request) => &request.request_id,
            Self::Cancel(request) => &request.request_id,
            Self::Report(_) => "",
        }
    }

    /// The action that it leaves on record, where it leaves one.
    pub(crate) fn action(&self) -> Option<&'static str> {
        match self {
            Self::Create(_) => Some("create"),
            Self::Approve(_) => Some("approve"),
            Self::RollBack(_) => Some("roll_back"),
            Self::Cancel(_) => Some("cancel"),
            Self::CreateGate(_) | Self::Report(_) => None,
        }
    }
}

/// What a call was answered.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Done {
    /// The deployment, and the one that was made by taking it back.
    Deployment(Box<Deployment>, Option<Box<Deployment>>),
    /// The gate's id.
    Gate(String),
    /// What became of a report.
    Reported(ReportOutcomesResponse),
}

/// What a call has come to, after all that it was tried.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Answer {
    /// It was done.
    Done(Done),
    /// It was refused, for a reason that its caller can understand.
    Refused(Code, String),
    /// Something was answered that never should be.
    Wrong(String),
    /// Nobody knows: it may have been done.
    Unknown(String),
}

/// A call, from when it was first tried to its answer.
#[derive(Debug, Clone)]
pub(crate) struct Op {
    /// Which client's it was.
    pub(crate) client: usize,
    pub(crate) call: Call,
    /// Since the run began.
    pub(crate) began: Duration,
    pub(crate) ended: Duration,
    /// How often it was sent.
    pub(crate) sent: u32,
    pub(crate) answer: Answer,
}

/// What all clients did. Cheap to clone.
#[derive(Clone)]
pub(crate) struct History {
    began: Instant,
    ops: Arc<Mutex<Vec<Op>>>,
}

impl History {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            ops: Arc::default(),
        }
    }

    /// How long the run has taken.
    pub(crate) fn now(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn add(&self, op: Op) {
        self.lock().push(op);
    }

    /// All of it so far.
    pub(crate) fn ops(&self) -> Vec<Op> {
        self.lock().clone()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Op>> {
        self.ops.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
