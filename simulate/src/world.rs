//! What users see.

use rand::RngExt as _;

use crate::runs::Random;

/// How a judge with five levels scores at a mean of 0.8: much praise, some middling, little blame.
const JUDGE: [f64; 5] = [0.02, 0.05, 0.13, 0.31, 0.49];

/// How the outcome of a unit is distributed, between 0 and 1.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Outcome {
    /// Passes with this probability.
    Passes(f64),
    /// A judge's level, 0 to 4, over 4, with these probabilities.
    Judged([f64; 5]),
}

impl Outcome {
    /// A judge whose mean is `mean`: the levels of [`JUDGE`], tilted.
    pub(crate) fn judged(mean: f64) -> Self {
        let (mut low, mut high) = (-5.0, 5.0);
        let mut levels = JUDGE;
        for _ in 0..60 {
            let tilt = f64::midpoint(low, high);
            levels = JUDGE;
            for (level, weight) in levels.iter_mut().enumerate() {
                *weight *= (tilt * level as f64).exp();
            }
            let sum: f64 = levels.iter().sum();
            levels = levels.map(|weight| weight / sum);
            if Self::Judged(levels).mean() < mean {
                low = tilt;
            } else {
                high = tilt;
            }
        }
        Self::Judged(levels)
    }

    fn mean(self) -> f64 {
        match self {
            Self::Passes(rate) => rate,
            Self::Judged(levels) => {
                let each = levels.iter().enumerate();
                each.map(|(level, weight)| level as f64 / 4.0 * weight)
                    .sum()
            }
        }
    }

    pub(crate) fn draw(self, random: &mut Random) -> f64 {
        match self {
            Self::Passes(rate) => f64::from(u8::from(random.random_bool(rate))),
            Self::Judged(levels) => {
                let mut left: f64 = random.random();
                let level = levels.iter().position(|weight| {
                    left -= weight;
                    left < 0.0
                });
                level.unwrap_or(4) as f64 / 4.0
            }
        }
    }
}

/// What the candidate's users see, and those of the stable version.
#[derive(Debug, Clone, Copy)]
pub(crate) struct World {
    pub(crate) candidate: Outcome,
    pub(crate) stable: Outcome,
    /// The candidate's share of the units, 0 to 1.
    pub(crate) share: f64,
}

impl World {
    pub(crate) fn passes(candidate: f64, stable: f64, share: f64) -> Self {
        Self {
            candidate: Outcome::Passes(candidate),
            stable: Outcome::Passes(stable),
            share,
        }
    }

    pub(crate) fn judged(candidate: f64, stable: f64, share: f64) -> Self {
        Self {
            candidate: Outcome::judged(candidate),
            stable: Outcome::judged(stable),
            share,
        }
    }
}
