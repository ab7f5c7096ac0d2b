//! The steps of a rollout: which share of traffic, for how long.
//!
//! A plan is a function of the strategy alone, so that it can be shown before it runs, and is
//! the same on every replica and after every restart.

use std::time::Duration;

use super::strategy::{Strategy, StrategyType};

/// One step of a rollout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stage {
    /// Percent of traffic that the new version receives, 0 to 100.
    pub percentage: u8,
    /// How long it is held before the next step. Zero at 100 %, where the rollout ends.
    pub hold: Duration,
}

/// The steps of a rollout, from the first share of traffic to all of it. Shares only grow, and
/// the last one, and only that, is 100 %.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan(Vec<Stage>);

impl Plan {
    /// The plan of a strategy.
    #[must_use]
    pub fn of(strategy: &Strategy) -> Self {
        let first = match strategy.kind {
            StrategyType::Immediate => 100,
            StrategyType::BlueGreen => 0,
            StrategyType::Gradual | StrategyType::Canary => strategy.initial_percentage.min(100),
        };
        let step = match strategy.kind {
            StrategyType::Gradual => strategy.increment.max(1),
            StrategyType::Immediate | StrategyType::Canary | StrategyType::BlueGreen => 100,
        };
        let held = (first..100).step_by(step.into()).map(|percentage| Stage {
            percentage,
            hold: strategy.interval,
        });
        let last = Stage {
            percentage: 100,
            hold: Duration::ZERO,
        };
        Self(held.chain([last]).collect())
    }

    /// The step with this number, counted from 0; none past the end.
    #[must_use]
    pub fn stage(&self, number: usize) -> Option<Stage> {
        self.0.get(number).copied()
    }

    /// All steps in order.
    #[must_use]
    pub fn stages(&self) -> &[Stage] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prop_assert, prop_assert_eq, prop_oneof, proptest, strategy::Just};

    use super::*;

    fn strategy(kind: StrategyType, initial_percentage: u8, increment: u8) -> Strategy {
        Strategy {
            kind,
            initial_percentage,
            increment,
            interval: Duration::from_secs(300),
            ..Strategy::immediate()
        }
    }

    fn percentages(kind: StrategyType, initial: u8, increment: u8) -> Vec<u8> {
        let plan = Plan::of(&strategy(kind, initial, increment));
        plan.stages().iter().map(|stage| stage.percentage).collect()
    }

    #[test]
    fn the_contract_s_plans() {
        assert_eq!(percentages(StrategyType::Immediate, 0, 0), [100]);
        assert_eq!(
            percentages(StrategyType::Gradual, 10, 20),
            [10, 30, 50, 70, 90, 100]
        );
        assert_eq!(percentages(StrategyType::Gradual, 100, 10), [100]);
        assert_eq!(percentages(StrategyType::Canary, 5, 0), [5, 100]);
        assert_eq!(percentages(StrategyType::BlueGreen, 0, 0), [0, 100]);
    }

    proptest! {
        #[test]
        fn never_down_never_past_all_and_it_ends(
            kind in prop_oneof![
                Just(StrategyType::Immediate),
                Just(StrategyType::Gradual),
                Just(StrategyType::Canary),
                Just(StrategyType::BlueGreen),
            ],
            initial in 0_u8..=u8::MAX,
            increment in 0_u8..=u8::MAX,
        ) {
            let plan = percentages(kind, initial, increment);
            prop_assert!(plan.is_sorted_by(|a, b| a < b), "{plan:?}");
            prop_assert_eq!(plan.last(), Some(&100));
            prop_assert!(plan.len() <= 101);
        }

        #[test]
        fn only_the_last_step_is_not_held(initial in 1_u8..=100, increment in 1_u8..=100) {
            let plan = Plan::of(&strategy(StrategyType::Gradual, initial, increment));
            for stage in plan.stages() {
                prop_assert_eq!(stage.hold.is_zero(), stage.percentage == 100);
            }
        }
    }
}
