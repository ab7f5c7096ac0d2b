//! ReportOutcomes of users who are served by a rollout.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

use delos_deploy::{
    domain::bucket::{PLACES, place},
    wire::pb::{Outcome, ReportOutcomesRequest, telemetry_service_client::TelemetryServiceClient},
};
use tonic::transport::Channel;
use uuid::Uuid;

use super::{told, traffic::ENVIRONMENT};
use crate::{
    Failure,
    load::{Caller, grpc},
};

/// A client over one connection.
pub(crate) type Client = TelemetryServiceClient<Channel>;

/// Connects.
pub(crate) async fn connect(port: u16) -> Result<Client, Failure> {
    Ok(Client::new(grpc::connect(port).await?))
}

/// A user of a prompt, and the version that they are served.
#[derive(Debug)]
pub(crate) struct User {
    number: u32,
    prompt_id: String,
    unit: String,
    version: i32,
}

/// As many users, spread evenly over prompts, of each of which version 2 is at `percent` by a
/// deployment.
pub(crate) fn users(
    count: u32,
    prompts: &[String],
    deployments: &[String],
    percent: u32,
) -> Result<Vec<User>, Failure> {
    let ids = deployments.iter().map(|id| Uuid::parse_str(id));
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    let rollouts = prompts.iter().zip(ids).cycle();
    let user = |(number, (prompt_id, deployment)): (u32, (&String, Uuid))| {
        let unit = format!("user-{number}");
        let is_new = place(deployment, &unit) < percent * (PLACES / 100);
        User {
            number,
            prompt_id: prompt_id.clone(),
            version: if is_new { 2 } else { 1 },
            unit,
        }
    };
    Ok((0..count).zip(rollouts).map(user).collect())
}

impl User {
    /// Their number, from 0.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// The prompt that they use.
    pub(crate) fn prompt_id(&self) -> &str {
        &self.prompt_id
    }

    /// Whether they are served the version that is rolled out.
    pub(crate) fn has_new(&self) -> bool {
        self.version == 2
    }

    /// What became of a request of theirs.
    pub(crate) fn outcome(&self, id: String, quality: f64) -> Outcome {
        Outcome {
            id,
            prompt_id: self.prompt_id.clone(),
            environment: ENVIRONMENT.into(),
            version: self.version,
            unit: self.unit.clone(),
            at: None,
            error: false,
            latency_ms: Some(640.0),
            quality_score: Some(quality),
            cost_usd: Some(0.0031),
        }
    }
}

/// Reports, each of outcomes that nobody has reported before.
#[derive(Debug)]
pub(crate) struct Reports {
    /// Tells the outcomes of one load from those of the others.
    pub(crate) name: String,
    /// Whose outcomes they are.
    pub(crate) users: Arc<[User]>,
    /// Outcomes in a report.
    pub(crate) batch: u32,
    /// How many outcomes were reported.
    pub(crate) begun: AtomicU64,
}

impl Reports {
    /// The next one. Users come up as if at random, each as often as the others.
    fn next(&self) -> Vec<Outcome> {
        const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;
        let batch = u64::from(self.batch);
        let first = self.begun.fetch_add(batch, Ordering::Relaxed);
        let outcome = |number: u64| {
            let place = number.wrapping_mul(GOLDEN) >> 32;
            let user = &self.users[(place as usize * self.users.len()) >> 32];
            // From 0.7 to 0.9, whichever the version.
            let quality = 0.7 + (number % 201) as f64 / 1000.0;
            user.outcome(format!("{}-{number}", self.name), quality)
        };
        (first..first + batch).map(outcome).collect()
    }
}

/// Reports over and over; every outcome must be accepted.
pub(crate) struct Reporting {
    client: Client,
    reports: Arc<Reports>,
}

impl Reporting {
    /// Reports over a connection.
    pub(crate) fn new(channel: Channel, reports: &Arc<Reports>) -> Self {
        Self {
            client: Client::new(channel),
            reports: Arc::clone(reports),
        }
    }
}

impl Caller for Reporting {
    async fn call(&mut self) -> Result<(), Failure> {
        report(&mut self.client, self.reports.next()).await
    }
}

/// Reports; all must be accepted.
pub(crate) async fn report(client: &mut Client, outcomes: Vec<Outcome>) -> Result<(), Failure> {
    let count = outcomes.len();
    let request = ReportOutcomesRequest {
        outcomes,
        scores: Vec::new(),
    };
    let answer = client.report_outcomes(request).await;
    let answer = answer
        .map_err(|status| told("ReportOutcomes", &status))?
        .into_inner();
    if usize::try_from(answer.accepted) == Ok(count) {
        Ok(())
    } else {
        Err(format!("ReportOutcomes of {count} answered {answer:?}").into())
    }
}
