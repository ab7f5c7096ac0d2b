//! What else the machine does: a bench beside other work measures that work too.

use std::time::Duration;

/// How long the machine is watched.
const WATCH: Duration = Duration::from_secs(2);

/// The share of the processors' time that is in use, 0 to 1, while the bench does nothing itself;
/// none where the system does not say.
pub(crate) async fn busy() -> Option<f64> {
    let before = Ticks::read()?;
    tokio::time::sleep(WATCH).await;
    Some(Ticks::read()?.busy_since(&before))
}

/// The processors' time since the start, as Linux counts it.
struct Ticks {
    idle: u64,
    all: u64,
}

impl Ticks {
    fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/stat").ok()?)
    }

    /// The first line is `cpu user nice system idle iowait irq softirq steal guest guest_nice`;
    /// the guests' time is in the users' already.
    fn parse(text: &str) -> Option<Self> {
        let line = text.lines().next()?.strip_prefix("cpu ")?;
        let ticks: Vec<u64> = line.split_whitespace().flat_map(str::parse).collect();
        let counted = ticks.get(..8)?;
        Some(Self {
            idle: counted[3] + counted[4],
            all: counted.iter().sum(),
        })
    }

    fn busy_since(&self, before: &Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1) as f64;
        1.0 - self.idle.saturating_sub(before.idle) as f64 / all
    }
}

/// The processor time that this process has used, beside that of all processors.
pub(crate) struct Own {
    used: u64,
    all: u64,
}

impl Own {
    /// None where the system does not say.
    pub(crate) fn read() -> Option<Self> {
        Some(Self {
            used: Self::parse(&std::fs::read_to_string("/proc/self/stat").ok()?)?,
            all: Ticks::read()?.all,
        })
    }

    /// The share of the machine that was used since then, 0 to 1.
    pub(crate) fn share_since(&self, before: &Self) -> f64 {
        let all = self.all.saturating_sub(before.all).max(1) as f64;
        self.used.saturating_sub(before.used) as f64 / all
    }

    /// The line is `pid (name) state …`, and the name may have spaces; the 14th and 15th fields are
    /// the user's and the system's time.
    fn parse(text: &str) -> Option<u64> {
        let (_, fields) = text.rsplit_once(')')?;
        let mut fields = fields.split_whitespace().skip(11);
        let mut next = || fields.next()?.parse::<u64>().ok();
        Some(next()? + next()?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_of_the_time_between_two_readings() {
        let before = Ticks::parse("cpu  100 0 50 800 50 0 0 0 7 7\ncpu0 1").unwrap();
        let after = Ticks::parse("cpu  160 0 65 820 55 0 0 0 9 9\n").unwrap();
        assert!((after.busy_since(&before) - 0.75).abs() < 1e-9);
        assert!(Ticks::parse("intr 1 2").is_none());
    }
    #[test]
    fn the_time_of_a_process_whose_name_has_spaces() {
        let text = "7 (a ) b) S 1 7 7 0 -1 4194560 900 0 0 0 31 11 0 0 20 0 1 0 100 1 1";
        assert_eq!(Own::parse(text), Some(42));
    }
}
