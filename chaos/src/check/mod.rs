//! Proves what the service promises, from what clients were told and what the tables hold:
//!
//! - I1: the events of a deployment are one legal path, without gap or double, and no step is early
//! - I2: nothing that was acknowledged is missing
//! - I3: traffic is always what the plan allows, and back where it was after a rollback
//! - I4: nothing starts past its gates or its approval
//! - I5: a request has one effect, however often it is sent; an evaluation run is started once
//! - I8: once nothing goes wrong any more, every rollout ends or waits for a human
//! - I9: no session stays in a transaction

mod acknowledged;
mod path;
mod stored;
mod traffic;

use std::fmt;

use crate::{Failure, clients::Op, cluster::Cluster};

pub(crate) use stored::Strategy;

use stored::Stored;

/// Something that must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Which promise is broken.
    pub(crate) promise: &'static str,
    pub(crate) what: String,
    /// The deployment that it is about, where there is one.
    pub(crate) deployment: Option<String>,
}

impl Violation {
    pub(crate) fn of(promise: &'static str, what: String) -> Self {
        Self {
            promise,
            what,
            deployment: None,
        }
    }

    pub(crate) fn about(self, deployment: &str) -> Self {
        Self {
            deployment: Some(deployment.to_owned()),
            ..self
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)?;
        match &self.deployment {
            Some(id) => write!(f, " (deployment {id})"),
            None => Ok(()),
        }
    }
}

/// What was found.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) violations: Vec<Violation>,
    pub(crate) deployments: usize,
    pub(crate) events: usize,
    pub(crate) outcomes: i64,
}

/// Checks everything, when nothing goes on any more.
pub(crate) async fn check(cluster: &Cluster, ops: &[Op]) -> Result<Found, Failure> {
    let mut session = cluster.postgres.connect().await?;
    let stored = Stored::read(&mut session).await?;
    let mut violations = Vec::new();
    for deployment in &stored.deployments {
        violations.extend(path::check(deployment));
    }
    violations.extend(traffic::check(&stored));
    violations.extend(acknowledged::check(&stored, ops));
    violations.extend(acknowledged::runs(&cluster.eval.names()));
    let (acknowledged, sent) = acknowledged::outcomes(ops);
    violations.extend(stored.outcomes.check(acknowledged, sent));
    Ok(Found {
        violations,
        deployments: stored.deployments.len(),
        events: stored.deployments.iter().map(|d| d.events.len()).sum(),
        outcomes: stored.outcomes.kept,
    })
}

/// The events of a deployment, for who looks into a violation.
pub(crate) async fn story(cluster: &Cluster, deployment: &str) -> Result<String, Failure> {
    let mut session = cluster.postgres.connect().await?;
    let stored = Stored::read(&mut session).await?;
    let found = stored
        .deployments
        .iter()
        .find(|known| known.id.to_string() == deployment);
    Ok(found.map_or_else(|| "it is not stored".to_owned(), stored::Deployment::tell))
}
