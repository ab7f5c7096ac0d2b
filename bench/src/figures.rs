//! What a phase measured, and what several rounds of it come to.

use std::time::Duration;

use hdrhistogram::Histogram;

use crate::Failure;

/// How long calls took, in microseconds, to three digits.
pub(crate) type Latencies = Histogram<u64>;

/// An empty histogram.
pub(crate) fn latencies() -> Result<Latencies, Failure> {
    Ok(Histogram::new(3)?)
}

/// What one phase measured.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Figures {
    /// How many a second.
    pub(crate) per_second: f64,
    /// Median latency.
    pub(crate) p50_ms: f64,
    /// The latency that one in a hundred exceeds.
    pub(crate) p99_ms: f64,
    /// The longest latency.
    pub(crate) max_ms: f64,
    /// The share of the machine that the load generator itself used, 0 to 1; none where that is
    /// another program.
    pub(crate) own_share: Option<f64>,
}

impl Figures {
    /// Of the calls that ended within `duration`.
    pub(crate) fn of(latencies: &Latencies, duration: Duration) -> Self {
        let ms = |quantile| micros_as_ms(latencies.value_at_quantile(quantile));
        Self {
            per_second: as_f64(latencies.len()) / duration.as_secs_f64(),
            p50_ms: ms(0.5),
            p99_ms: ms(0.99),
            max_ms: micros_as_ms(latencies.max()),
            own_share: None,
        }
    }
}

/// A line of the report.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    /// The part it belongs to.
    pub(crate) part: &'static str,
    /// What was measured.
    pub(crate) name: String,
    /// What each round measured.
    pub(crate) rounds: Vec<Figures>,
    /// How many a second, against the peer; none for the peer itself and where there is none.
    pub(crate) ratio: Option<f64>,
}

impl Row {
    /// A line without a peer.
    pub(crate) fn new(part: &'static str, name: &str) -> Self {
        Self {
            part,
            name: name.to_owned(),
            rounds: Vec::new(),
            ratio: None,
        }
    }

    /// Compares with `peer`.
    pub(crate) fn compare(&mut self, peer: &Self) {
        self.ratio = Some(self.ratio_to(peer));
    }

    /// The median of the rounds' ratios, since a round's phases run right after one another and a
    /// machine drifts.
    pub(crate) fn ratio_to(&self, peer: &Self) -> f64 {
        let rounds = self.rounds.iter().zip(&peer.rounds);
        median(rounds.map(|(ours, theirs)| ours.per_second / theirs.per_second))
    }

    /// The median of the rounds.
    pub(crate) fn median(&self) -> Figures {
        let of = |read: fn(&Figures) -> f64| median(self.rounds.iter().map(read));
        Figures {
            per_second: of(|figures| figures.per_second),
            p50_ms: of(|figures| figures.p50_ms),
            p99_ms: of(|figures| figures.p99_ms),
            max_ms: of(|figures| figures.max_ms),
            own_share: self
                .rounds
                .iter()
                .map(|figures| figures.own_share)
                .collect::<Option<Vec<_>>>()
                .map(|shares| median(shares.into_iter())),
        }
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match values.len() {
        0 => f64::NAN,
        even if even % 2 == 0 => f64::midpoint(values[middle - 1], values[middle]),
        _ => values[middle],
    }
}

fn micros_as_ms(micros: u64) -> f64 {
    as_f64(micros) / 1e3
}

fn as_f64(count: u64) -> f64 {
    // Exact up to 2^53.
    count as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert!((median([3.0, 1.0, 2.0].into_iter()) - 2.0).abs() < f64::EPSILON);
        assert!((median([4.0, 1.0].into_iter()) - 2.5).abs() < f64::EPSILON);
        assert!(median(std::iter::empty()).is_nan());
    }

    #[test]
    fn a_ratio_is_taken_round_by_round() {
        let row = |rates: [f64; 3]| Row {
            rounds: rates
                .map(|per_second| Figures {
                    per_second,
                    p50_ms: 1.0,
                    p99_ms: 2.0,
                    max_ms: 3.0,
                    own_share: None,
                })
                .to_vec(),
            ..Row::new("reads", "a")
        };
        let mut ours = row([50.0, 10.0, 40.0]);
        ours.compare(&row([100.0, 20.0, 100.0]));
        assert_eq!(ours.ratio, Some(0.5));
    }
}
