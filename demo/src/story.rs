//! What is done, one after the other, while users ask all the time.

use std::time::{Duration, Instant};

use delos_deploy::wire::pb::{DeploymentStatus, ExplainDeploymentResponse, NextAction};
use tokio::sync::mpsc::UnboundedReceiver;
use tonic::transport::Channel;

use crate::{
    Failure, PROMPT, evidence,
    say::{self, Say},
    team::{self, Team},
    traffic::Told,
    users::Users,
};

/// What a version must score on examples.
const SCORE_MIN: f64 = 0.8;
/// How a version is rolled out: its share of users, and for how many seconds.
const CANARY: (i32, i32) = (20, 10);
/// How long users are served a version before the next one comes, and after it has ended.
const MEANWHILE: Duration = Duration::from_secs(2);
/// How often the evidence is shown.
const LOOK: Duration = Duration::from_secs(2);

/// Who and what takes part.
pub(crate) struct Story {
    say: Say,
    team: Team,
    users: Users,
    traffic: UnboundedReceiver<Told>,
    summary: Vec<String>,
}

/// A rollout on its way.
struct Rollout {
    version: i32,
    id: String,
    status: DeploymentStatus,
    /// When the report was acknowledged by which the version was shown to be worse.
    tipped: Option<Instant>,
    shown: Instant,
}

impl Story {
    /// Before anything has happened.
    pub(crate) fn new(say: Say, channel: &Channel, traffic: UnboundedReceiver<Told>) -> Self {
        Self {
            say,
            team: Team::new(channel),
            users: Users::new(channel),
            traffic,
            summary: Vec::new(),
        }
    }

    /// Does everything.
    pub(crate) async fn tell(&mut self) -> Result<(), Failure> {
        self.first().await?;
        self.next(2, DeploymentStatus::Completed).await?;
        self.next(3, DeploymentStatus::RolledBack).await?;
        self.next(4, DeploymentStatus::GatesFailed).await?;
        say::line("");
        for line in &self.summary {
            say::line(line);
        }
        Ok(())
    }

    /// The first version, which there is nothing to compare with, and the gate for those after it.
    async fn first(&mut self) -> Result<(), Failure> {
        let what = format!("deploys version 1 of '{PROMPT}', at once");
        self.say.that("ada", what);
        let deployed = self.team.create(1, team::at_once(), true).await?;
        self.summary
            .push(format!("version 1  {}", name(deployed.status())));
        let what = format!("asks for a score of {SCORE_MIN} on examples from the next version on");
        self.say.that("grace", what);
        self.team.create_gate(SCORE_MIN).await?;
        self.told(|candidate| candidate == 0).await?;
        self.serve_for_a_while().await?;
        Ok(())
    }

    /// A version that is rolled out, and how that should end.
    async fn next(&mut self, version: i32, ends: DeploymentStatus) -> Result<(), Failure> {
        say::line("");
        // What was told of the versions before is over.
        while self.traffic.try_recv().is_ok() {}
        let (percent, seconds) = CANARY;
        let deployed = self
            .team
            .create(version, team::canary(percent, seconds), false);
        let id = deployed.await?.id;
        let what = format!("deploys version {version} as a canary: {percent} % for {seconds} s");
        self.say.that("ada", what);
        self.team.approve(&id).await?;
        self.say.that("grace", "approves it");
        let mut rollout = Rollout {
            version,
            id,
            status: DeploymentStatus::PendingApproval,
            tipped: None,
            shown: Instant::now(),
        };
        while !is_over(rollout.status) {
            self.go_on(&mut rollout).await?;
        }
        if rollout.status != ends {
            let (status, ends) = (name(rollout.status), name(ends));
            return Err(format!("version {version} has ended {status}, not {ends}").into());
        }
        self.end(&rollout).await
    }

    /// Serves users for a moment, and looks what follows from it.
    async fn go_on(&mut self, rollout: &mut Rollout) -> Result<(), Failure> {
        let acknowledged = self.users.ask().await?;
        let explained = self.team.explain(&rollout.id).await?;
        let is_tipped = explained.next_action() == NextAction::RollBack
            || explained.status() == DeploymentStatus::RolledBack;
        if is_tipped && rollout.tipped.is_none() {
            rollout.tipped = Some(acknowledged);
            let version = rollout.version;
            let what = format!("shows that version {version} is worse; it is taken back by this:");
            self.say.that("evidence", what);
            for sentence in evidence::sentences(&explained.checks) {
                self.say.that("", sentence);
            }
        }
        self.show_evidence(rollout, &explained);
        if explained.status() != rollout.status {
            rollout.status = explained.status();
            rollout.shown = Instant::now();
            let message = self.team.get(&rollout.id).await?.status_message;
            self.say
                .that("service", format!("{}: {message}", name(rollout.status)));
        }
        Ok(())
    }

    /// Shows the evidence from time to time, while the version gets traffic.
    fn show_evidence(&self, rollout: &mut Rollout, explained: &ExplainDeploymentResponse) {
        let is_served = explained.status() == DeploymentStatus::InProgress;
        if !is_served || rollout.tipped.is_some() || rollout.shown.elapsed() < LOOK {
            return;
        }
        if let Some(line) = evidence::line(&explained.checks) {
            rollout.shown = Instant::now();
            self.say.that("evidence", line);
        }
    }

    /// Shows what has become of a rollout and, where the version is not served, what there is on
    /// record of it.
    async fn end(&mut self, rollout: &Rollout) -> Result<(), Failure> {
        let version = rollout.version;
        let mut line = format!("version {version}  {}", name(rollout.status));
        if let Some(tipped) = rollout.tipped {
            let back = self.told(|candidate| candidate == 0).await?;
            // What is there before the answer took no time after it.
            let took = back.saturating_duration_since(tipped).as_millis();
            let what = format!("traffic was back {took} ms after the report that showed it");
            line = format!("{line}; {what}");
            self.say.that("traffic", what);
        }
        let before = self.users.served(version);
        let asked = self.serve_for_a_while().await?;
        self.summary
            .push(format!("{line}; {before} requests until then"));
        if rollout.status == DeploymentStatus::Completed {
            return Ok(());
        }
        let after = self.users.served(version) - before;
        let what = format!("{asked} requests since, {after} of them served version {version}");
        self.say.that("users", what);
        for event in self.team.events(&rollout.id).await? {
            let (number, actor, action) = (event.sequence, event.actor, event.action);
            let what = format!("{number}. {actor} {action} {}", event.reason);
            self.say.that("audit", what.trim_end());
        }
        if after == 0 {
            Ok(())
        } else {
            Err(format!("version {version} is still served").into())
        }
    }

    /// Serves users for a while; says how many requests that were.
    async fn serve_for_a_while(&mut self) -> Result<u64, Failure> {
        let (since, before) = (Instant::now(), self.users.asked());
        while since.elapsed() < MEANWHILE {
            self.users.ask().await?;
        }
        Ok(self.users.asked() - before)
    }

    /// Waits until who watches is told of a split with such a candidate; says when that was.
    async fn told(&mut self, is_meant: impl Fn(i32) -> bool) -> Result<Instant, Failure> {
        while let Some((at, split)) = self.traffic.recv().await {
            if is_meant(split.candidate_version) {
                return Ok(at);
            }
        }
        Err("nobody is told of the traffic any more".into())
    }
}

fn is_over(status: DeploymentStatus) -> bool {
    match status {
        DeploymentStatus::Unspecified
        | DeploymentStatus::PendingApproval
        | DeploymentStatus::PendingGates
        | DeploymentStatus::InProgress => false,
        DeploymentStatus::GatesFailed
        | DeploymentStatus::Completed
        | DeploymentStatus::RolledBack
        | DeploymentStatus::Cancelled
        | DeploymentStatus::Failed => true,
    }
}

/// The status without what all of them begin with.
fn name(status: DeploymentStatus) -> &'static str {
    status
        .as_str_name()
        .trim_start_matches("DEPLOYMENT_STATUS_")
}
