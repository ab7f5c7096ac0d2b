//! Where everything that the service does waits until it may go on.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use delos_deploy::faults::{Bug, Lost, Plan, Point};
use futures_util::future::BoxFuture;
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use tokio::sync::{Notify, oneshot};

/// Waiting lines of one run. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Desk {
    inner: Arc<Mutex<Inner>>,
    /// Rings when something comes, or has ended.
    bell: Arc<Notify>,
}

#[derive(Debug, Default)]
struct Inner {
    waiting: BTreeMap<u64, Waiting>,
    arrivals: u64,
    /// Where a life came last.
    last: BTreeMap<u32, Point>,
    /// Lives that have ended: whatever of them still arrives goes no further.
    dead: BTreeSet<u32>,
}

#[derive(Debug)]
struct Waiting {
    life: u32,
    point: Point,
    claims: bool,
    go: oneshot::Sender<Result<(), Lost>>,
}

/// Something that waits at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ticket {
    /// Counts arrivals.
    pub number: u64,
    /// Which life of a replica it belongs to.
    pub life: u32,
    /// The place.
    pub point: Point,
    /// Whether it is about to claim what is due.
    pub claims: bool,
}

impl Ticket {
    /// Whether it waits within a transaction, which nobody else can be in then.
    #[must_use]
    pub fn is_inside(&self) -> bool {
        matches!(
            self.point,
            Point::EventBefore | Point::EventAfter | Point::CommitBefore
        )
    }

    /// Whether it makes a difference to others when it goes on.
    #[must_use]
    pub fn matters(&self) -> bool {
        matches!(self.point, Point::BeginBefore | Point::FenceSkipped)
    }
}

impl Desk {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn arrive(&self, life: u32, point: Point) -> Result<oneshot::Receiver<Result<(), Lost>>, Lost> {
        let mut inner = self.inner();
        inner.arrivals += 1;
        self.bell.notify_one();
        if inner.dead.contains(&life) {
            return Err(Lost);
        }
        let (go, may_go) = oneshot::channel();
        let number = inner.arrivals;
        let before = inner.last.insert(life, point);
        let waiting = Waiting {
            life,
            point,
            claims: before == Some(Point::ClaimBefore),
            go,
        };
        inner.waiting.insert(number, waiting);
        Ok(may_go)
    }

    /// What waits, in the order in which it came.
    #[must_use]
    pub fn tickets(&self) -> Vec<Ticket> {
        let inner = self.inner();
        let tickets = inner.waiting.iter().map(|(number, waiting)| Ticket {
            number: *number,
            life: waiting.life,
            point: waiting.point,
            claims: waiting.claims,
        });
        tickets.collect()
    }

    /// How often something has come.
    #[must_use]
    pub fn arrivals(&self) -> u64 {
        self.inner().arrivals
    }

    /// Runs something, and rings when it has ended.
    pub async fn ringing<T>(self, run: impl Future<Output = T>) -> T {
        let ended = run.await;
        self.bell.notify_one();
        ended
    }

    /// Waits until something comes or has ended, but not for long.
    pub async fn listen(&self) {
        // Whether it has rung or not, it is looked again.
        let _ = tokio::time::timeout(Duration::from_millis(1), self.bell.notified()).await;
    }

    /// Lets something go on, or loses its answer.
    pub fn answer(&self, ticket: u64, answer: Result<(), Lost>) {
        if let Some(waiting) = self.inner().waiting.remove(&ticket) {
            // Who waited may have been dropped.
            let _ = waiting.go.send(answer);
        }
    }

    /// Ends a life: what waits of it goes no further, nor does what still comes.
    pub fn end(&self, life: u32) {
        let mut inner = self.inner();
        inner.dead.insert(life);
        let of_it = inner
            .waiting
            .extract_if(.., |_, waiting| waiting.life == life);
        for (_, waiting) in of_it {
            let _ = waiting.go.send(Err(Lost));
        }
    }

    /// The plan by which a life of a replica comes here.
    #[must_use]
    pub fn plan(&self, life: u32, bug: Option<Bug>, seed: u64) -> Arc<dyn Plan> {
        Arc::new(Life {
            desk: self.clone(),
            life,
            bug,
            dice: Mutex::new(StdRng::seed_from_u64(seed ^ u64::from(life))),
        })
    }
}

/// A life of a replica: from its start to its crash or stop.
#[derive(Debug)]
struct Life {
    desk: Desk,
    life: u32,
    bug: Option<Bug>,
    dice: Mutex<StdRng>,
}

impl Plan for Life {
    fn reach(&self, point: Point) -> BoxFuture<'_, Result<(), Lost>> {
        Box::pin(async move {
            let may_go = self.desk.arrive(self.life, point)?;
            may_go.await.unwrap_or(Err(Lost))
        })
    }

    fn pause(&self, point: Point, _: Duration) -> BoxFuture<'_, Result<(), Lost>> {
        self.reach(point)
    }

    fn has(&self, bug: Bug) -> bool {
        if self.bug != Some(bug) {
            return false;
        }
        let mut dice = self.dice.lock().unwrap_or_else(PoisonError::into_inner);
        bug != Bug::AcknowledgesEarly || dice.random_ratio(1, 20)
    }
}
