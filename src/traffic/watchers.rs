//! Who watches the table, and how far what has changed has reached them.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use super::{Environment, Table};
use crate::domain::convergence::Spread;

/// Everybody who watches a table.
#[derive(Debug, Clone, Default)]
pub(super) struct Watchers(Arc<Mutex<Registry>>);

#[derive(Debug, Default)]
struct Registry {
    registered: u64,
    watchers: HashMap<u64, Arc<Watcher>>,
}

#[derive(Debug)]
struct Watcher {
    /// Whose changes it is told; none for those of all environments.
    environment: Option<String>,
    /// The sequence up to which it has been sent everything.
    sent: AtomicU64,
}

/// A watcher, for as long as it watches.
#[derive(Debug)]
pub(super) struct Registration {
    watchers: Watchers,
    number: u64,
    watcher: Arc<Watcher>,
}

impl Watchers {
    /// Registers one that has been sent nothing yet.
    pub(super) fn register(&self, environment: Option<String>) -> Registration {
        let watcher = Arc::new(Watcher {
            environment,
            sent: AtomicU64::new(0),
        });
        let number = self.with(|registry| {
            registry.registered += 1;
            registry
                .watchers
                .insert(registry.registered, Arc::clone(&watcher));
            registry.registered
        });
        Registration {
            watchers: self.clone(),
            number,
            watcher,
        }
    }

    fn count(&self) -> usize {
        self.with(|registry| registry.watchers.len())
    }

    /// Counts those who watch each environment.
    fn count_into(&self, spread: &mut BTreeMap<String, (Spread, u64)>) {
        let count = |(spread, changed): &mut (Spread, u64), watcher: &Watcher| {
            let is_behind = watcher.sent.load(Ordering::Relaxed) < *changed;
            spread.watchers += 1;
            spread.watchers_behind += u32::from(is_behind);
        };
        self.with(|registry| {
            for watcher in registry.watchers.values() {
                match &watcher.environment {
                    Some(environment) => {
                        if let Some(watched) = spread.get_mut(environment) {
                            count(watched, watcher);
                        }
                    }
                    None => spread.values_mut().for_each(|it| count(it, watcher)),
                }
            }
        });
    }

    fn with<T>(&self, act: impl FnOnce(&mut Registry) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Registration {
    /// Notes that it has been sent everything up to a sequence.
    pub(super) fn sent(&self, sequence: u64) {
        self.watcher.sent.fetch_max(sequence, Ordering::Relaxed);
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.watchers
            .with(|registry| registry.watchers.remove(&self.number));
    }
}

impl Table {
    /// How many streams watch the table.
    #[must_use]
    pub fn watcher_count(&self) -> usize {
        self.watchers().count()
    }

    /// How far this replica has spread the splits of each environment, by name.
    #[must_use]
    pub fn spread(&self) -> BTreeMap<String, Spread> {
        let snapshot = self.snapshot();
        let of_one = |(name, environment): (&String, &Environment)| {
            let spread = Spread {
                revision: environment.revision,
                ..Spread::default()
            };
            (name.clone(), (spread, environment.changed))
        };
        let mut spread = snapshot.environments().map(of_one).collect();
        self.watchers().count_into(&mut spread);
        spread
            .into_iter()
            .map(|(name, (spread, _))| (name, spread))
            .collect()
    }
}
