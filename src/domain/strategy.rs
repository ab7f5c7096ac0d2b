//! How traffic shifts to a new version, with the defaults of each type.

use std::time::Duration;

use super::{
    analysis::{AnalysisPolicy, PolicyRequest},
    violation::Violations,
};

/// The kind of rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StrategyType {
    /// All traffic at once.
    Immediate,
    /// In equal steps.
    Gradual,
    /// A small share for validation, then all.
    Canary,
    /// Ready beside the old version without live traffic, then all at once.
    BlueGreen,
}

/// A strategy with its defaults filled in and its ranges checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Strategy {
    /// The kind of rollout.
    pub kind: StrategyType,
    /// Percent of traffic of the first step, 1 to 100; 0 where the kind has no such step.
    pub initial_percentage: u8,
    /// Percent of traffic added with each step, 1 to 100; 0 where the kind has no such step.
    pub increment: u8,
    /// Time between two steps; zero where there is but one.
    pub interval: Duration,
    /// Roll back on bad live evidence.
    pub auto_rollback: bool,
    /// Lowest acceptable quality score, 0 to 1; 0 for none.
    pub rollback_threshold: f64,
    /// What live evidence has to show.
    pub analysis: AnalysisPolicy,
}

/// A strategy as a caller asks for it: zero means the default.
#[derive(Debug, Clone, PartialEq)]
pub struct StrategyRequest {
    /// The kind of rollout, none for [`StrategyType::Immediate`]; or why it can't be read.
    pub kind: Result<Option<StrategyType>, String>,
    /// See [`Strategy::initial_percentage`].
    pub initial_percentage: i32,
    /// See [`Strategy::increment`].
    pub increment: i32,
    /// See [`Strategy::interval`], in seconds.
    pub interval_seconds: i32,
    /// See [`Strategy::auto_rollback`].
    pub auto_rollback: bool,
    /// See [`Strategy::rollback_threshold`].
    pub rollback_threshold: f64,
    /// See [`Strategy::analysis`].
    pub analysis: PolicyRequest,
}

impl Default for StrategyRequest {
    fn default() -> Self {
        Self {
            kind: Ok(None),
            initial_percentage: 0,
            increment: 0,
            interval_seconds: 0,
            auto_rollback: false,
            rollback_threshold: 0.0,
            analysis: PolicyRequest::default(),
        }
    }
}

/// Longest interval, in seconds: a year.
pub const INTERVAL_SECONDS_MAX: i32 = 31_536_000;
const INTERVAL_SECONDS_DEFAULT: i32 = 300;

impl Strategy {
    /// All traffic at once.
    #[must_use]
    pub fn immediate() -> Self {
        Self {
            kind: StrategyType::Immediate,
            initial_percentage: 0,
            increment: 0,
            interval: Duration::ZERO,
            auto_rollback: false,
            rollback_threshold: 0.0,
            analysis: AnalysisPolicy::default(),
        }
    }

    /// Fills in the defaults of the kind asked for. A value that is out of range is noted in
    /// `violations`, also where the kind makes no use of it.
    pub fn resolve(request: StrategyRequest, violations: &mut Violations) -> Option<Self> {
        let kind = violations.take("strategy.type", request.kind);
        let percentages = [
            ("strategy.initial_percentage", request.initial_percentage),
            ("strategy.increment", request.increment),
        ];
        let mut good = true;
        for (field, percent) in percentages {
            if !(0..=100).contains(&percent) {
                violations.add(
                    field,
                    format!("is {percent}; must be 1 to 100, or 0 for the default"),
                );
                good = false;
            }
        }
        if !(0..=INTERVAL_SECONDS_MAX).contains(&request.interval_seconds) {
            violations.add(
                "strategy.interval_seconds",
                format!(
                    "is {}; must be 1 to {INTERVAL_SECONDS_MAX}, or 0 for the default",
                    request.interval_seconds
                ),
            );
            good = false;
        }
        if !(0.0..=1.0).contains(&request.rollback_threshold) {
            violations.add(
                "strategy.rollback_threshold",
                format!("is {}; must be 0 to 1", request.rollback_threshold),
            );
            good = false;
        }
        let quality_min = request.rollback_threshold;
        let analysis = AnalysisPolicy::resolve(request.analysis, quality_min, violations);
        let kind = kind?.unwrap_or(StrategyType::Immediate);
        let analysis = analysis?;
        good.then(|| Self {
            kind,
            initial_percentage: kind.initial_percentage(request.initial_percentage),
            increment: kind.increment(request.increment),
            interval: kind.interval(request.interval_seconds),
            auto_rollback: request.auto_rollback,
            rollback_threshold: request.rollback_threshold,
            analysis,
        })
    }
}

impl StrategyType {
    fn initial_percentage(self, asked: i32) -> u8 {
        match self {
            Self::Immediate | Self::BlueGreen => 0,
            Self::Gradual => percent_or(asked, 10),
            Self::Canary => percent_or(asked, 5),
        }
    }

    fn increment(self, asked: i32) -> u8 {
        match self {
            Self::Immediate | Self::BlueGreen | Self::Canary => 0,
            Self::Gradual => percent_or(asked, 10),
        }
    }

    fn interval(self, asked_seconds: i32) -> Duration {
        let seconds = match (self, asked_seconds) {
            (Self::Immediate, _) => 0,
            (Self::Gradual | Self::Canary | Self::BlueGreen, 0) => INTERVAL_SECONDS_DEFAULT,
            (Self::Gradual | Self::Canary | Self::BlueGreen, asked) => asked,
        };
        Duration::from_secs(seconds.unsigned_abs().into())
    }
}

fn percent_or(asked: i32, default: u8) -> u8 {
    match u8::try_from(asked) {
        Ok(percent @ 1..=100) => percent,
        Ok(_) | Err(_) => default,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolve(request: StrategyRequest) -> Result<Strategy, Vec<String>> {
        let mut violations = Violations::default();
        let strategy = Strategy::resolve(request, &mut violations);
        violations
            .finish(strategy)
            .map_err(|all| all.into_iter().map(|violation| violation.field).collect())
    }

    #[test]
    fn zero_means_the_default_of_the_kind() {
        let of = |kind| {
            let strategy = resolve(StrategyRequest {
                kind: Ok(kind),
                ..Default::default()
            })
            .unwrap();
            (
                strategy.initial_percentage,
                strategy.increment,
                strategy.interval.as_secs(),
            )
        };
        assert_eq!(of(None), (0, 0, 0));
        assert_eq!(of(Some(StrategyType::Gradual)), (10, 10, 300));
        assert_eq!(of(Some(StrategyType::Canary)), (5, 0, 300));
        assert_eq!(of(Some(StrategyType::BlueGreen)), (0, 0, 300));
    }

    #[test]
    fn every_value_out_of_range_is_named() {
        let refused = resolve(StrategyRequest {
            kind: Err("is 99".into()),
            initial_percentage: 101,
            increment: -1,
            interval_seconds: -5,
            auto_rollback: false,
            rollback_threshold: f64::NAN,
            analysis: PolicyRequest::default(),
        });
        assert_eq!(
            refused.unwrap_err(),
            [
                "strategy.type",
                "strategy.initial_percentage",
                "strategy.increment",
                "strategy.interval_seconds",
                "strategy.rollback_threshold"
            ]
        );
    }
}
