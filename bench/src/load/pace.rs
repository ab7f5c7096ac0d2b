//! Calls that fall due at a fixed rate, whether or not the ones before have been answered.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// How often it is looked what has fallen due. A thread sleeps that short; tokio's timer knows
/// milliseconds only, which would be most of what is measured.
const TICK: Duration = Duration::from_micros(100);

/// The calls of one phase.
#[derive(Debug)]
pub(super) struct Pace {
    start: Instant,
    end: Instant,
    per_second: f64,
    /// A permit for each call that is due and that nobody has begun.
    due: Semaphore,
    begun: AtomicU64,
}

impl Pace {
    /// Calls fall due from `start` to `end`, for that many callers.
    pub(super) fn start(
        start: Instant,
        end: Instant,
        per_second: f64,
        callers: usize,
    ) -> Arc<Self> {
        let pace = Arc::new(Self {
            start,
            end,
            per_second,
            due: Semaphore::new(0),
            begun: AtomicU64::new(0),
        });
        let ticking = Arc::clone(&pace);
        thread::spawn(move || ticking.tick(callers));
        pace
    }

    /// Waits for a call that is due and says when it was; none when the time is up.
    pub(super) async fn next(&self) -> Option<Instant> {
        self.due.acquire().await.ok()?.forget();
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        let due = self.start + Duration::from_secs_f64(number as f64 / self.per_second);
        (due < self.end).then_some(due)
    }

    fn tick(&self, callers: usize) {
        let mut given = 0;
        while Instant::now() < self.end {
            let due = self.due_after(self.start.elapsed());
            self.due.add_permits(due - given);
            given = due;
            thread::sleep(TICK);
        }
        let all = self.due_after(self.end - self.start);
        // One more for each caller, to learn that the time is up.
        self.due
            .add_permits(all.saturating_sub(given) + callers + 1);
    }

    /// How many have fallen due after a time, the first of them at once.
    fn due_after(&self, time: Duration) -> usize {
        (time.as_secs_f64() * self.per_second) as usize + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_call_falls_due_once_and_each_caller_learns_of_the_end() {
        let start = Instant::now();
        let end = start + Duration::from_millis(50);
        let pace = Pace::start(start, end, 1000.0, 2);
        let mut dues = Vec::new();
        while let Some(due) = pace.next().await {
            dues.push(due);
        }
        assert_eq!(dues.len(), 50);
        assert!(dues.is_sorted());
        assert!(pace.next().await.is_none());
    }
}
