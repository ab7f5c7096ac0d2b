//! Which version to serve: answered from the table in memory.

use std::{sync::Arc, time::Duration};

use super::Error;
use crate::{
    domain::{
        bucket::{Assignment, assign},
        ids::{Environment, PromptId},
        traffic::Traffic,
        violation::Violations,
    },
    service::Service,
    traffic,
};

/// Longest targeting key, in characters.
const TARGETING_KEY_MAX: usize = 1024;

/// What is served to a targeting key, and the split that it was decided by.
#[derive(Debug, Clone)]
pub struct Split {
    /// The version to serve.
    pub assignment: Assignment,
    /// The split.
    pub traffic: Arc<Traffic>,
    /// How old it may be, where the storage does not answer.
    pub staleness: Option<Duration>,
}

/// The split of a prompt.
#[derive(Debug, Clone)]
pub struct Served {
    /// The split.
    pub traffic: Arc<Traffic>,
    /// How old it may be, where the storage does not answer.
    pub staleness: Option<Duration>,
}

/// The splits of an environment.
#[derive(Debug, Clone)]
pub struct AllServed {
    /// The splits, by prompt.
    pub traffic: Vec<Arc<Traffic>>,
    /// The revision that they show.
    pub revision: i64,
    /// How old they may be, where the storage does not answer.
    pub staleness: Option<Duration>,
}

impl Service {
    /// The version to serve for a targeting key (empty for none).
    ///
    /// # Errors
    /// [`Error::Invalid`], or [`Error::NothingServed`].
    pub fn resolve(
        &self,
        environment: &str,
        prompt_id: &str,
        targeting_key: &str,
        preview: bool,
    ) -> Result<Split, Error> {
        // What is known has a good name; only what is not known needs to be looked at closer.
        let Some(traffic) = self.traffic.get(environment, prompt_id) else {
            return Err(self.why_nothing(environment, prompt_id));
        };
        check_targeting_key(targeting_key)?;
        let assignment = assign(&traffic, targeting_key, preview);
        let assignment = assignment.ok_or_else(|| nothing_served(environment, prompt_id))?;
        Ok(Split {
            assignment,
            traffic,
            staleness: self.traffic.staleness(),
        })
    }

    /// The version of each prompt of an environment to serve for a targeting key (empty for
    /// none), by prompt, and the revision that they show.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn resolve_all(
        &self,
        environment: &str,
        targeting_key: &str,
        preview: bool,
    ) -> Result<(Vec<Split>, i64), Error> {
        let AllServed {
            traffic,
            revision,
            staleness,
        } = self.splits(environment)?;
        check_targeting_key(targeting_key)?;
        let split = |traffic: Arc<Traffic>| {
            let assignment = assign(&traffic, targeting_key, preview)?;
            Some(Split {
                assignment,
                traffic,
                staleness,
            })
        };
        Ok((traffic.into_iter().filter_map(split).collect(), revision))
    }

    /// The split of a prompt.
    ///
    /// # Errors
    /// [`Error::Invalid`], or [`Error::NothingServed`].
    pub fn split(&self, environment: &str, prompt_id: &str) -> Result<Served, Error> {
        let traffic = self.traffic.get(environment, prompt_id);
        Ok(Served {
            traffic: traffic.ok_or_else(|| self.why_nothing(environment, prompt_id))?,
            staleness: self.traffic.staleness(),
        })
    }

    /// The splits of an environment.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn splits(&self, environment: &str) -> Result<AllServed, Error> {
        let snapshot = self.traffic.snapshot();
        let found = snapshot.environment(environment);
        if found.is_none() {
            // Where nothing was ever served there is nothing to list.
            check_environment(environment)?;
        }
        Ok(AllServed {
            traffic: found.map(|found| found.after(0)).unwrap_or_default(),
            revision: found.map_or(0, |found| found.revision),
            staleness: self.traffic.staleness(),
        })
    }

    /// The changes of an environment, to be watched.
    ///
    /// # Errors
    /// [`Error::Invalid`].
    pub fn watch(&self, environment: &str, revision: i64) -> Result<traffic::Watch, Error> {
        let mut violations = Violations::default();
        let name = violations.take("environment", Environment::parse(environment));
        if revision < 0 {
            violations.add("revision", format!("is {revision}; must not be negative"));
        }
        let name = violations.finish(name).map_err(Error::Invalid)?;
        Ok(self.traffic.watch(name.as_str(), revision))
    }

    /// Why there is nothing of these names: they are no names, what is served can't be read, or nothing
    /// is.
    fn why_nothing(&self, environment: &str, prompt_id: &str) -> Error {
        let mut violations = Violations::default();
        violations.take("environment", Environment::parse(environment));
        violations.take("prompt_id", PromptId::parse(prompt_id));
        match violations.finish(Some(())) {
            // Another version by guess would be worse than none.
            Ok(()) if self.traffic.is_unreadable(environment, prompt_id) => Error::Unavailable {
                what: "the row that says what is served of this prompt",
                retry_after: Duration::from_secs(60),
            },
            Ok(()) => nothing_served(environment, prompt_id),
            Err(violations) => Error::Invalid(violations),
        }
    }
}

fn check_environment(environment: &str) -> Result<Environment, Error> {
    let mut violations = Violations::default();
    let name = violations.take("environment", Environment::parse(environment));
    violations.finish(name).map_err(Error::Invalid)
}

fn check_targeting_key(targeting_key: &str) -> Result<(), Error> {
    // Bytes are counted before characters, which takes longer.
    if targeting_key.len() <= TARGETING_KEY_MAX {
        return Ok(());
    }
    let mut violations = Violations::default();
    violations.check_length("targeting_key", targeting_key, TARGETING_KEY_MAX);
    violations.finish(Some(())).map_err(Error::Invalid)
}

fn nothing_served(environment: &str, prompt_id: &str) -> Error {
    Error::NothingServed {
        environment: environment.to_owned(),
        prompt_id: prompt_id.to_owned(),
    }
}
