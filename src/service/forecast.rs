//! What there is to warn of before a rollout: that its evidence will not show what it is asked to
//! show.

use super::{Error, Service, error::of_store};
use crate::{
    domain::{
        Timestamp,
        analysis::{Comparison, Expected, Metric, Moments, WithoutEvidence},
        deployment::NewDeployment,
        plan::{Plan, Stage},
        strategy::{Strategy, StrategyType},
        traffic::Traffic,
    },
    store::{self, LastDay},
};

const SECONDS_A_DAY: f64 = 86_400.0;

impl Service {
    /// What there is to warn of; empty for nothing.
    pub(super) async fn warning(&self, new: &NewDeployment) -> Result<String, Error> {
        let is_judged = new.strategy.kind != StrategyType::Immediate && new.strategy.auto_rollback;
        if !is_judged {
            return Ok(String::new());
        }
        let failed = |error: store::Error| of_store(&error, "prompt", new.prompt_id.as_str());
        let (prompt_id, environment) = (&new.prompt_id, &new.environment);
        let served = self.store.traffic(prompt_id, environment).await;
        let served: Traffic = served.map_err(failed)?;
        // The first version is compared with nothing.
        let Some(stable) = &served.stable else {
            return Ok(String::new());
        };
        let now: Timestamp = self.store.now().await.map_err(failed)?;
        let last_day = self
            .store
            .last_day(prompt_id, environment, stable.version, now);
        let last_day = last_day.await.map_err(failed)?;
        Ok(warning(&new.strategy, last_day.as_ref()).unwrap_or_default())
    }
}

fn warning(strategy: &Strategy, last_day: Option<&LastDay>) -> Option<String> {
    let policy = &strategy.analysis;
    let ending = match policy.without_evidence {
        WithoutEvidence::Hold => "it will be held and then fail",
        WithoutEvidence::Advance => "it will go on unproven",
        WithoutEvidence::RollBack => "it will be held and then rolled back",
    };
    let Some(last_day) = last_day else {
        return Some(format!(
            "no outcomes of the running version were reported in the last day: unless that changes, \
             {ending}"
        ));
    };
    let silent = policy.comparisons.iter().find(|asked| {
        // Of those that need a limit nothing is known before there is one.
        let is_known = matches!(asked.metric, Metric::Quality | Metric::Success);
        is_known && last_day.of(asked.metric).n == 0
    });
    if let Some(silent) = silent {
        return Some(format!(
            "no {} was reported of the running version in the last day: unless that changes, {ending}",
            silent.metric.in_words()
        ));
    }
    let stages = expected(strategy, last_day.units);
    let candidates: f64 = stages.iter().map(|stage| stage.candidate).sum();
    let time = policy.hold_max.as_secs();
    let traffic = format!(
        "at the traffic of the last day ({:.0} units) about {candidates:.0} get the new version before \
         it is given up",
        last_day.units
    );
    if candidates < policy.units_advance_min as f64 {
        let min = policy.units_advance_min;
        return Some(format!(
            "{traffic}, and it takes {min} to find it good: {ending}. Raise initial_percentage, or \
             analysis.hold_seconds ({time})"
        ));
    }
    policy
        .comparisons
        .iter()
        .find_map(|asked| blind(strategy, asked, last_day, &stages, &traffic))
}

/// What a comparison can't see, where it can't see what its margin asks for.
fn blind(
    strategy: &Strategy,
    asked: &Comparison,
    last_day: &LastDay,
    stages: &[Expected],
    traffic: &str,
) -> Option<String> {
    let running: Moments = last_day.of(asked.metric);
    if running.n == 0 {
        return None;
    }
    let what = asked.metric.in_words();
    let margin = 100.0 * asked.margin;
    match strategy.analysis.smallest_drop(asked, &running, stages) {
        Some(drop) if drop <= asked.margin => None,
        Some(drop) => Some(format!(
            "{traffic}: of its {what} a drop below {:.1} points is more likely missed than found, and \
             its margin is {margin:.1}",
            100.0 * drop
        )),
        None => Some(format!(
            "{traffic}: no drop of its {what} can be found, and its margin is {margin:.1} points"
        )),
    }
}

/// How many units each stage will have, until it is given up.
fn expected(strategy: &Strategy, units_a_day: f64) -> Vec<Expected> {
    let plan = Plan::of(strategy);
    let stages = plan.stages().iter();
    let mut stages: Vec<_> = stages
        .filter(|stage| stage.percentage < 100)
        .copied()
        .collect();
    let Some(last) = stages.last_mut() else {
        return Vec::new();
    };
    last.hold += strategy.analysis.hold_max;
    // Who gets the new version later on is no evidence for the old one.
    let stable = 100 - last.percentage;
    let expected = |stage: &Stage| {
        let units = units_a_day * stage.hold.as_secs_f64() / SECONDS_A_DAY;
        let share = |percent: u8| units * f64::from(percent) / 100.0;
        Expected {
            candidate: share(stage.percentage),
            stable: share(stable),
        }
    };
    stages.iter().map(expected).collect()
}
