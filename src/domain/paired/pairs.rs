//! One difference for each example that both versions were evaluated on.

use std::collections::BTreeMap;

use super::{PAIRED_PERCENT_MIN, PAIRS_MIN, bound::Sample};
use crate::domain::gate::ConditionType;

/// What a run has measured on one example, once.
#[derive(Debug, Clone, PartialEq)]
pub struct Outcome {
    /// The example.
    pub example_id: String,
    /// Whether the example could not be run; its numbers then say nothing.
    pub is_failed: bool,
    /// 0 to 1.
    pub score: f64,
    /// Milliseconds.
    pub latency_ms: f64,
    /// USD.
    pub cost_usd: f64,
}

/// An evaluation of a version, example by example.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// The run.
    pub run_id: String,
    /// The prompt's version.
    pub version: i32,
    /// Its outcomes, in any order; an example may have several.
    pub outcomes: Vec<Outcome>,
}

/// Evaluations of two versions over the same dataset.
#[derive(Debug, Clone, PartialEq)]
pub struct Both {
    /// Of the version that is to be deployed.
    pub candidate: Evaluation,
    /// Of the version that it replaces.
    pub baseline: Evaluation,
}

/// What was measured on an example, over its outcomes.
#[derive(Debug, Clone, Copy, Default)]
struct Example {
    sum: f64,
    measured: u32,
    failed: u32,
}

impl Example {
    /// The mean of what was measured; none where every outcome failed.
    fn mean(self) -> Option<f64> {
        (self.measured > 0).then(|| self.sum / f64::from(self.measured))
    }

    /// The same, where a failure counts as 0.
    fn mean_with_failures(self) -> f64 {
        self.sum / f64::from(self.measured + self.failed)
    }

    /// The same, where one failure leaves the example out.
    fn mean_without_failures(self) -> Option<f64> {
        self.mean().filter(|_| self.failed == 0)
    }
}

impl Both {
    /// The differences by which the candidate is better.
    ///
    /// # Errors
    /// They can't be compared, and why.
    pub(super) fn differences(&self, kind: ConditionType) -> Result<Sample, String> {
        let candidate = self.candidate.examples(kind)?;
        let baseline = self.baseline.examples(kind)?;
        let in_both = candidate.iter().filter_map(|(id, candidate)| {
            let pair = pair(kind, *candidate, *baseline.get(id)?)?;
            Some(pair)
        });
        let pairs: Vec<_> = in_both.collect();
        if pairs.len() < PAIRS_MIN {
            return Err(format!(
                "{} can be compared; it takes at least {PAIRS_MIN} examples that both versions were evaluated on",
                pairs.len()
            ));
        }
        let (of_candidate, of_baseline) = (candidate.len(), baseline.len());
        let larger = of_candidate.max(of_baseline);
        if pairs.len() * 100 < larger * PAIRED_PERCENT_MIN {
            return Err(format!(
                "only {} of {larger} examples can be compared (one has {of_candidate}, the other {of_baseline}, and some may have failed); it takes {PAIRED_PERCENT_MIN} %",
                pairs.len()
            ));
        }
        let worst = match kind {
            ConditionType::EvalScore | ConditionType::Custom => 1.0,
            // Nobody knows how slow or dear a version can be: as much as the most that was seen.
            ConditionType::Latency | ConditionType::Cost => {
                let all = pairs.iter().flat_map(|pair| [pair.0, pair.1]);
                all.fold(0.0, f64::max)
            }
        };
        let better = |(candidate, baseline): &(f64, f64)| match kind {
            ConditionType::EvalScore | ConditionType::Custom => candidate - baseline,
            ConditionType::Latency | ConditionType::Cost => baseline - candidate,
        };
        Ok(Sample::new(pairs.iter().map(better).collect(), worst))
    }
}

/// An example's measure of each version; none where it can't be compared. A failure never helps
/// the candidate: where it is the candidate's it scores 0, where it is the other's there is nothing
/// to compare with.
fn pair(kind: ConditionType, candidate: Example, baseline: Example) -> Option<(f64, f64)> {
    match kind {
        ConditionType::EvalScore => Some((candidate.mean_with_failures(), baseline.mean()?)),
        ConditionType::Latency | ConditionType::Cost => Some((
            candidate.mean_without_failures()?,
            baseline.mean_without_failures()?,
        )),
        ConditionType::Custom => None,
    }
}

impl Evaluation {
    fn examples(&self, kind: ConditionType) -> Result<BTreeMap<&str, Example>, String> {
        let (run, name) = (&self.run_id, kind.as_str());
        let mut examples: BTreeMap<&str, Example> = BTreeMap::new();
        for outcome in &self.outcomes {
            let id = outcome.example_id.as_str();
            if id.is_empty() {
                return Err(format!("run {run} has a result that names no example"));
            }
            let example = examples.entry(id).or_default();
            if outcome.is_failed {
                example.failed += 1;
                continue;
            }
            let value = outcome.measure(kind);
            if !kind.range().contains(&value) {
                return Err(format!(
                    "{value} is no {name} (example '{id}' of run {run})"
                ));
            }
            example.sum += value;
            example.measured += 1;
        }
        let is_zero = examples.values().all(|example| example.sum <= 0.0);
        match kind {
            ConditionType::EvalScore | ConditionType::Custom => {}
            ConditionType::Latency | ConditionType::Cost if is_zero => {
                return Err(format!(
                    "no example of run {run} has a {name} above 0: it was not measured"
                ));
            }
            ConditionType::Latency | ConditionType::Cost => {}
        }
        Ok(examples)
    }
}

impl Outcome {
    fn measure(&self, kind: ConditionType) -> f64 {
        match kind {
            ConditionType::EvalScore => self.score,
            ConditionType::Latency => self.latency_ms,
            ConditionType::Cost => self.cost_usd,
            ConditionType::Custom => f64::NAN,
        }
    }
}
