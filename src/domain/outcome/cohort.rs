//! Which users an outcome can be compared with.

use chrono::{DurationRound as _, TimeDelta};
use uuid::Uuid;

use super::report::{Outcome, Reason, Refusal, digest};
use crate::domain::{
    Timestamp,
    analysis::Limits,
    bucket::{PLACES, place},
    traffic::Traffic,
};

/// How many places of a bucket a percent of traffic is.
const PERCENT: u32 = PLACES / 100;

/// Those who were served under one split: a stage of a rollout, or a day of an environment in which
/// nothing was rolled out.
#[derive(Debug, Clone, PartialEq)]
pub struct Cohort {
    /// The same for everybody who comes to it.
    pub id: Uuid,
    /// The traffic that was split.
    pub prompt_id: String,
    /// Where.
    pub environment: String,
    /// The revision of the split.
    pub revision: i64,
    /// The deployment that was rolled out; none where nothing was.
    pub rollout: Option<Uuid>,
    /// The version that was served to the others; 0 for none.
    pub stable_version: i32,
    /// The version that was rolled out; 0 for none.
    pub candidate_version: i32,
    /// Its percent of traffic.
    pub share: u8,
    /// When the first could be served.
    pub began_at: Timestamp,
    /// What a call may take.
    pub limits: Limits,
}

/// Which of two versions that are served side by side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// The one that is being rolled out.
    Candidate,
    /// The one that is being replaced, or the only one.
    Stable,
}

/// What is served, and what was.
#[derive(Debug, Clone, PartialEq)]
pub struct Split {
    /// What is served.
    pub traffic: Traffic,
    /// Since when.
    pub since: Timestamp,
    /// What was, the latest first; as far as it is needed.
    pub past: Vec<Cohort>,
}

impl Cohort {
    /// Those who are served at a moment by a split that began before.
    #[must_use]
    pub fn of(traffic: &Traffic, since: Timestamp, at: Timestamp, limits: Limits) -> Self {
        let day = at.duration_trunc(TimeDelta::days(1)).unwrap_or(since);
        let candidate = traffic.candidate.as_ref();
        // A stage of a rollout goes on over midnight: a unit counts once in it.
        let began_at = match candidate {
            Some(_) => since,
            None => since.max(day),
        };
        let (prompt_id, environment) = (traffic.prompt_id.as_str(), traffic.environment.as_str());
        let id = digest(&[
            prompt_id,
            environment,
            &traffic.revision.to_string(),
            &began_at.timestamp_micros().to_string(),
        ]);
        Self {
            id,
            prompt_id: prompt_id.to_owned(),
            environment: environment.to_owned(),
            revision: traffic.revision,
            rollout: candidate.map(|candidate| candidate.deployment_id),
            stable_version: traffic.stable_version(),
            candidate_version: candidate.map_or(0, |candidate| candidate.version),
            share: candidate.map_or(0, |candidate| candidate.percentage),
            began_at,
            limits,
        }
    }

    /// Within what a unit counts once: a rollout, or else the cohort.
    #[must_use]
    pub fn scope(&self) -> Uuid {
        self.rollout.unwrap_or(self.id)
    }

    /// The side by which it serves a version, to who lies in `band`; none where it does not.
    #[must_use]
    pub fn side(&self, version: i32, band: u8) -> Option<Side> {
        let is_candidate = self.rollout.is_some() && version == self.candidate_version;
        let is_stable = self.stable_version != 0 && version == self.stable_version;
        match (is_candidate, is_stable) {
            // The same version again: who gets it as the new one is known by where they lie.
            (true, true) if band < self.share => Some(Side::Candidate),
            (true, false) => Some(Side::Candidate),
            (_, true) => Some(Side::Stable),
            (false, false) => None,
        }
    }

    /// Where a unit lies, in whole percent, 0 to 99: the candidate gets those below its share. 0
    /// where nothing is rolled out.
    #[must_use]
    pub fn band(&self, unit: &str) -> u8 {
        self.rollout.map_or(0, |deployment| {
            // A place is below PLACES, so that this is below 100.
            (place(deployment, unit) / PERCENT) as u8
        })
    }

    fn serves(&self, version: i32) -> bool {
        self.side(version, 0).is_some()
    }
}

impl Split {
    /// Whether the past has to be known to say where an outcome belongs.
    #[must_use]
    pub fn needs_past(&self, outcome: &Outcome) -> bool {
        outcome.at < self.since || !self.serves(outcome.version)
    }

    /// Where an outcome belongs: to what was served when it happened, or else to the last split
    /// that had its version, since requests are under way while a split changes.
    ///
    /// # Errors
    /// The version was not served.
    pub fn cohort_of(&self, outcome: &Outcome) -> Result<Cohort, Refusal> {
        let (at, version) = (outcome.at, outcome.version);
        let current = || self.current(at);
        if at >= self.since && self.serves(version) {
            return Ok(current());
        }
        let past = || self.past.iter().filter(|cohort| cohort.serves(version));
        let then = past().find(|cohort| cohort.began_at <= at);
        let found = then.cloned();
        let found = found.or_else(|| self.serves(version).then(current));
        found.or_else(|| past().next().cloned()).ok_or_else(|| {
            let served = match (&self.traffic.stable, &self.traffic.candidate) {
                (Some(stable), Some(candidate)) => {
                    format!("versions {} and {}", stable.version, candidate.version)
                }
                (Some(stable), None) => format!("version {}", stable.version),
                (None, Some(candidate)) => format!("version {}", candidate.version),
                (None, None) => "nothing".to_owned(),
            };
            Reason::VersionNotServed.because(format!(
                "version {version} of prompt '{}' is not served in {}, which serves {served}",
                self.traffic.prompt_id, self.traffic.environment
            ))
        })
    }

    /// Whether what belongs to a cohort is still counted: what a rollout was judged by does not
    /// change once it has ended.
    #[must_use]
    pub fn is_open(&self, cohort: &Cohort) -> bool {
        let candidate = self.traffic.candidate.as_ref();
        cohort
            .rollout
            .is_none_or(|rollout| candidate.is_some_and(|now| now.deployment_id == rollout))
    }

    fn current(&self, at: Timestamp) -> Cohort {
        let at = at.max(self.since);
        Cohort::of(&self.traffic, self.since, at, Limits::default())
    }

    fn serves(&self, version: i32) -> bool {
        let Traffic {
            stable, candidate, ..
        } = &self.traffic;
        stable.as_ref().is_some_and(|it| it.version == version)
            || candidate.as_ref().is_some_and(|it| it.version == version)
    }
}
