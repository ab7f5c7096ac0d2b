//! Runs, spread over the processors, and what they come to.

use std::thread;

use rand::{SeedableRng as _, rngs::Xoshiro256PlusPlus};

use crate::Settings;

/// The generator of a run; named, so that a seed gives the same figures with the next release of
/// its crate.
pub(crate) type Random = Xoshiro256PlusPlus;

/// The results of all runs, in order. Each has a generator of its own, so that figures do not
/// depend on how many processors there are.
pub(crate) fn all<T: Send>(settings: Settings, run: impl Fn(&mut Random) -> T + Sync) -> Vec<T> {
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = settings.runs.div_ceil(threads);
    let one = |index: usize| {
        let seed = settings
            .seed
            .wrapping_mul(0x9e37_79b9)
            .wrapping_add(index as u64);
        run(&mut Random::seed_from_u64(seed))
    };
    thread::scope(|scope| {
        let parts: Vec<_> = (0..threads)
            .map(|thread| {
                let indices = thread * share..settings.runs.min((thread + 1) * share);
                scope.spawn(|| indices.map(one).collect::<Vec<_>>())
            })
            .collect();
        let results = parts.into_iter().map(thread::ScopedJoinHandle::join);
        results.flat_map(|part| part.unwrap_or_default()).collect()
    })
}

/// When something happened in each run, in units of the candidate; nothing where it never did.
pub(crate) struct Times(Vec<Option<u64>>);

impl Times {
    pub(crate) fn of(times: impl Iterator<Item = Option<u64>>) -> Self {
        let mut times: Vec<_> = times.collect();
        times.sort_unstable_by_key(|time| time.unwrap_or(u64::MAX));
        Self(times)
    }

    /// In how many of 100 runs it happened.
    pub(crate) fn percent(&self) -> f64 {
        let happened = self.0.iter().flatten().count();
        100.0 * happened as f64 / self.0.len().max(1) as f64
    }

    /// The median over all runs; nothing where it happened in fewer than half of them.
    pub(crate) fn median(&self) -> Option<u64> {
        self.0.get(self.0.len() / 2).copied().flatten()
    }
}
