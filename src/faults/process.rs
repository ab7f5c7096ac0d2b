//! Faults of a process, as its environment asks for them.

use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use rand::RngExt as _;

use super::{Bug, Lost, Plan, Point};

/// One crash at a place, and bugs.
#[derive(Debug, Default)]
pub struct ProcessPlan {
    /// Where the process crashes, and on which arrival there.
    crash: Option<(Point, u64)>,
    arrivals: AtomicU64,
    bugs: Vec<Bug>,
}

/// A plan that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is no fault; see src/faults")]
pub struct BadPlan(String);

impl ProcessPlan {
    /// Reads `crash` as `<point>:<arrival, from 1>`, and `bugs` as names between commas; both may
    /// be empty.
    ///
    /// # Errors
    /// One of them can't be read.
    pub fn parse(crash: &str, bugs: &str) -> Result<Self, BadPlan> {
        let crash = match crash {
            "" => None,
            text => Some(place(text).ok_or_else(|| BadPlan(text.to_owned()))?),
        };
        let names = bugs.split(',').filter(|name| !name.is_empty());
        let bugs = names.map(|name| {
            let known = Bug::ALL.into_iter().find(|bug| bug.as_str() == name);
            known.ok_or_else(|| BadPlan(name.to_owned()))
        });
        Ok(Self {
            crash,
            arrivals: AtomicU64::new(0),
            bugs: bugs.collect::<Result<_, _>>()?,
        })
    }
}

fn place(text: &str) -> Option<(Point, u64)> {
    let (name, arrival) = text.split_once(':')?;
    let point = Point::ALL
        .into_iter()
        .find(|point| point.as_str() == name)?;
    Some((point, arrival.parse().ok().filter(|arrival| *arrival > 0)?))
}

impl Plan for ProcessPlan {
    fn reach(&self, point: Point) -> BoxFuture<'_, Result<(), Lost>> {
        if let Some((place, arrival)) = self.crash
            && place == point
            && self.arrivals.fetch_add(1, Ordering::Relaxed) + 1 == arrival
        {
            tracing::error!(point = point.as_str(), arrival, "crashing, as asked");
            std::process::abort();
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn has(&self, bug: Bug) -> bool {
        let bites = bug != Bug::AcknowledgesEarly || rand::rng().random_ratio(1, 20);
        bites && self.bugs.contains(&bug)
    }
}
