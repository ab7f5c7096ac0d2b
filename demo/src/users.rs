//! Users, as an application serves them: it asks which version each gets, and reports what became of
//! it. Some of the answers are judged at once, some a little later, and some never.

use std::{
    collections::{BTreeMap, VecDeque},
    time::{Duration, Instant},
};

use delos_deploy::wire::pb::{
    Outcome, ReportOutcomesRequest, ResolveVersionRequest, Score,
    telemetry_service_client::TelemetryServiceClient, traffic_service_client::TrafficServiceClient,
};
use rand::{RngExt as _, SeedableRng as _, rngs::Xoshiro256PlusPlus};
use tokio::time::{Interval, MissedTickBehavior};
use tonic::transport::Channel;

use crate::{ENVIRONMENT, Failure, PROMPT, versions};

/// How many users there are.
const USERS: u32 = 20_000;
/// How often what became of requests is reported.
const BEAT: Duration = Duration::from_millis(100);
/// How many of them ask in that time.
const ASK: u32 = 30;
/// How long a judge takes who takes their time.
const JUDGED_AFTER: Duration = Duration::from_millis(700);
/// How far scores are from what a version's are on average, up and down.
const SPREAD: f64 = 0.2;

/// The users, and the application that serves them.
pub(crate) struct Users {
    traffic: TrafficServiceClient<Channel>,
    telemetry: TelemetryServiceClient<Channel>,
    random: Xoshiro256PlusPlus,
    beat: Interval,
    calls: u64,
    /// Scores that are not known yet, and from when on they are.
    later: VecDeque<(Instant, Score)>,
    /// How many requests each version has served.
    served: BTreeMap<i32, u64>,
}

impl Users {
    /// Users of the application that is connected to the service so.
    pub(crate) fn new(channel: &Channel) -> Self {
        let mut beat = tokio::time::interval(BEAT);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        Self {
            traffic: TrafficServiceClient::new(channel.clone()),
            telemetry: TelemetryServiceClient::new(channel.clone()),
            // The same users in each demo. Which of them get which version differs: that depends on
            // the deployment's id.
            random: Xoshiro256PlusPlus::seed_from_u64(1),
            beat,
            calls: 0,
            later: VecDeque::new(),
            served: BTreeMap::new(),
        }
    }

    /// How many requests a version has served so far.
    pub(crate) fn served(&self, version: i32) -> u64 {
        self.served.get(&version).copied().unwrap_or_default()
    }

    /// How many requests there were so far.
    pub(crate) fn asked(&self) -> u64 {
        self.calls
    }

    /// Serves those who ask in the next moment and reports what became of it; says when that was
    /// acknowledged.
    pub(crate) async fn ask(&mut self) -> Result<Instant, Failure> {
        self.beat.tick().await;
        let mut outcomes = Vec::new();
        for _ in 0..ASK {
            let unit = format!("user-{}", self.random.random_range(0..USERS));
            let version = self.version_for(&unit).await?;
            outcomes.push(self.outcome(unit, version));
        }
        let mut scores = Vec::new();
        while let Some((_, score)) = self.later.pop_front_if(|(at, _)| *at <= Instant::now()) {
            scores.push(score);
        }
        let count = outcomes.len() + scores.len();
        let request = ReportOutcomesRequest { outcomes, scores };
        let answer = self.telemetry.report_outcomes(request).await?.into_inner();
        if usize::try_from(answer.accepted) == Ok(count) {
            Ok(Instant::now())
        } else {
            Err(format!("of {count} outcomes and scores not all were accepted: {answer:?}").into())
        }
    }

    /// The version that the service says to serve.
    async fn version_for(&mut self, unit: &str) -> Result<i32, Failure> {
        let request = ResolveVersionRequest {
            prompt_id: PROMPT.into(),
            environment: ENVIRONMENT.into(),
            targeting_key: unit.into(),
            preview: false,
        };
        let answer = self.traffic.resolve_version(request).await?.into_inner();
        *self.served.entry(answer.version).or_default() += 1;
        Ok(answer.version)
    }

    /// What became of a request.
    fn outcome(&mut self, unit: String, version: i32) -> Outcome {
        let does = versions::does(version);
        self.calls += 1;
        let id = format!("call-{}", self.calls);
        let failed = self.random.random_bool(does.fails);
        let off = self.random.random_range(-SPREAD..SPREAD);
        let score = (!failed).then_some((does.for_users + off).clamp(0.0, 1.0));
        let mut quality_score = None;
        match (score, self.random.random_range(0..10)) {
            (Some(score), 0..6) => quality_score = Some(score),
            (Some(score), 6..9) => {
                let score = Score {
                    outcome_id: id.clone(),
                    quality_score: score,
                    at: None,
                };
                self.later.push_back((Instant::now() + JUDGED_AFTER, score));
            }
            // Nobody judges it.
            _ => {}
        }
        Outcome {
            id,
            prompt_id: PROMPT.into(),
            environment: ENVIRONMENT.into(),
            version,
            unit,
            at: None,
            error: failed,
            latency_ms: Some(does.latency_ms * self.random.random_range(0.6..1.6)),
            quality_score,
            cost_usd: Some(does.cost_usd),
        }
    }
}
