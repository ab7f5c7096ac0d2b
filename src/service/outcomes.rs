//! What became of requests: taken in, in groups that are stored together, and judged as they come.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::{Error, Service, change::analyse, error::of_store};
use crate::{
    domain::{
        decide::{Decision, decide},
        outcome::{Outcome, OutcomeReport, Refusal, Score, ScoreReport},
        violation::Violations,
    },
    store::{self, Fate, TakenIn, Tx},
};

/// Most outcomes and scores of one report.
pub const REPORT_MAX: usize = 1000;
/// How many reports may wait to be stored; more are turned away.
const WAITING_MAX: usize = 256;
/// How many outcomes and scores are stored together, at most: a group is closed once it has so many.
const GROUP_MAX: usize = 2000;

/// What became of a report.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Reported {
    /// How many outcomes and scores were stored.
    pub accepted: usize,
    /// How many were known already.
    pub duplicates: usize,
    /// Those that were refused, by their place: the outcomes first, then the scores.
    pub refused: Vec<(usize, Refusal)>,
}

/// A report on its way to the storage.
#[derive(Debug)]
pub(super) struct Waiting {
    outcomes: Vec<Outcome>,
    scores: Vec<Score>,
    answer: oneshot::Sender<Result<TakenIn, Arc<store::Error>>>,
}

/// Where reports wait to be stored.
#[derive(Debug, Clone)]
pub(super) struct Inbox(mpsc::Sender<Waiting>);

/// Stores what waits, one group after the other.
#[derive(Debug)]
pub struct Collector {
    service: Service,
    waiting: mpsc::Receiver<Waiting>,
}

/// The two ends of a new inbox.
pub(super) fn inbox() -> (Inbox, mpsc::Receiver<Waiting>) {
    let (sender, receiver) = mpsc::channel(WAITING_MAX);
    (Inbox(sender), receiver)
}

impl Service {
    /// Takes in what became of requests. What is accepted is stored when this returns.
    ///
    /// # Errors
    /// There is nothing in it or too much, too many reports wait, or the storage failed; then
    /// nothing of it was stored, or all of it.
    pub async fn report(
        &self,
        outcomes: Vec<OutcomeReport>,
        scores: Vec<ScoreReport>,
    ) -> Result<Reported, Error> {
        let count = outcomes.len() + scores.len();
        let mut violations = Violations::default();
        if count == 0 {
            violations.add("outcomes", "is required: there is nothing to report");
        } else if count > REPORT_MAX {
            let why = format!("and scores are {count} together; at most {REPORT_MAX} are allowed");
            violations.add("outcomes", why);
        }
        violations.finish(Some(())).map_err(Error::Invalid)?;
        let now = self.store.clock().now();
        let mut places = Vec::with_capacity(count);
        let (outcomes, refused) = checked(outcomes, 0, |report| report.check(now));
        places.extend(outcomes.iter().map(|(place, _)| *place));
        let first = count - scores.len();
        let (scores, also_refused) = checked(scores, first, |report| report.check(now));
        places.extend(scores.iter().map(|(place, _)| *place));
        let mut reported = Reported {
            refused: refused.into_iter().chain(also_refused).collect(),
            ..Reported::default()
        };
        if !places.is_empty() {
            let outcomes = outcomes.into_iter().map(|(_, outcome)| outcome).collect();
            let scores = scores.into_iter().map(|(_, score)| score).collect();
            let taken = self.hand_in(outcomes, scores).await?;
            let fates = taken.outcomes.into_iter().chain(taken.scores);
            for (place, fate) in places.into_iter().zip(fates) {
                match fate {
                    Fate::Stored => reported.accepted += 1,
                    Fate::Known => reported.duplicates += 1,
                    Fate::Refused(refusal) => reported.refused.push((place, refusal)),
                }
            }
        }
        reported.refused.sort_by_key(|(place, _)| *place);
        self.metrics.outcomes(
            reported.accepted,
            reported.duplicates,
            reported
                .refused
                .iter()
                .map(|(_, refusal)| refusal.reason.as_str()),
        );
        Ok(reported)
    }

    /// Waits until it is stored, with others.
    async fn hand_in(&self, outcomes: Vec<Outcome>, scores: Vec<Score>) -> Result<TakenIn, Error> {
        let (answer, answered) = oneshot::channel();
        let waiting = Waiting {
            outcomes,
            scores,
            answer,
        };
        let full = |_| {
            let why = format!("{WAITING_MAX} reports wait to be stored already; retry");
            Error::Busy(why)
        };
        self.inbox.0.try_send(waiting).map_err(full)?;
        match answered.await {
            Ok(taken) => taken.map_err(|error| of_store(&error, "outcomes", "")),
            // The service stops.
            Err(_) => Err(Error::Unavailable {
                what: "the collector of outcomes",
                retry_after: Duration::from_secs(1),
            }),
        }
    }

    /// Stores a group, and wakes the reconciler where something follows from it.
    async fn take_in(
        &self,
        outcomes: Arc<Vec<Outcome>>,
        scores: Arc<Vec<Score>>,
    ) -> Result<TakenIn, store::Error> {
        let (taken, follows) = self
            .store
            .write(move |tx| {
                let (outcomes, scores) = (Arc::clone(&outcomes), Arc::clone(&scores));
                store::boxed(async move {
                    let taken = tx.take_in(&outcomes, &scores).await?;
                    let follows = make_due(tx, &taken).await?;
                    Ok((taken, follows))
                })
            })
            .await?;
        if follows {
            self.wake.notify_one();
        }
        Ok(taken)
    }

    /// Gives scores to outcomes that came at the same time, to another replica.
    pub(super) async fn match_scores(&self) -> Result<(), store::Error> {
        let scores = self.store.scores_to_match().await?;
        if scores.is_empty() {
            return Ok(());
        }
        let scores = Arc::new(scores);
        let follows = self
            .store
            .write(move |tx| {
                let scores = Arc::clone(&scores);
                store::boxed(async move {
                    let scores = tx.claim_scores(&scores).await?;
                    let taken = tx.take_in(&[], &scores).await?;
                    tx.return_scores(&scores, &taken).await?;
                    make_due(tx, &taken).await
                })
            })
            .await?;
        if follows {
            self.wake.notify_one();
        }
        Ok(())
    }
}

/// Makes rollouts due of which the new evidence decides something, in the same transaction: so it
/// is not forgotten whoever dies when. The traffic of each is held, so that whoever has claimed one
/// has not looked at its evidence yet.
async fn make_due(tx: &Tx, taken: &TakenIn) -> Result<bool, store::Error> {
    let mut follows = false;
    let deployments = tx.deployments(&taken.rollouts).await?;
    // From the others nothing follows but in time.
    for deployment in deployments.iter().filter(|it| it.strategy.auto_rollback) {
        let now = tx.now().await?.max(deployment.updated_at);
        let analysis = match analyse(tx, deployment, now).await {
            Ok(analysis) => analysis,
            // Nothing follows for a rollout whose evidence can't be read; the others go on, and who
            // claims it says why it does not.
            Err(store::Error::Corrupt(_) | store::Error::Internal(_)) => continue,
            Err(error) => return Err(error),
        };
        match decide(deployment, None, analysis.as_ref(), now) {
            Decision::Rest | Decision::Wait { .. } => {}
            Decision::PassGates
            | Decision::FailGates { .. }
            | Decision::Start
            | Decision::Step(_)
            | Decision::Complete
            | Decision::RollBack { .. }
            | Decision::Fail { .. } => {
                tx.make_due(deployment.id, now).await?;
                follows = true;
            }
        }
    }
    Ok(follows)
}

/// Those that can be right and those that can't, with their places.
#[expect(clippy::type_complexity, reason = "two lists of pairs")]
fn checked<T, R>(
    reports: Vec<R>,
    first: usize,
    check: impl Fn(R) -> Result<T, Refusal>,
) -> (Vec<(usize, T)>, Vec<(usize, Refusal)>) {
    let (mut right, mut refused) = (Vec::with_capacity(reports.len()), Vec::new());
    for (place, report) in reports.into_iter().enumerate() {
        match check(report) {
            Ok(value) => right.push((first + place, value)),
            Err(refusal) => refused.push((first + place, refusal)),
        }
    }
    (right, refused)
}

impl Collector {
    pub(super) fn new(service: &Service, waiting: mpsc::Receiver<Waiting>) -> Self {
        let service = service.clone();
        Self { service, waiting }
    }

    /// Stores reports until it is told to stop, and then those that wait.
    pub async fn run(mut self, stop: CancellationToken) {
        loop {
            let first = tokio::select! {
                biased;
                first = self.waiting.recv() => first,
                () = stop.cancelled() => break,
            };
            let Some(first) = first else { return };
            self.store_group(first).await;
        }
        self.waiting.close();
        while let Some(first) = self.waiting.recv().await {
            self.store_group(first).await;
        }
    }

    /// Stores what waits by now, together: while one group is stored the next one gathers.
    async fn store_group(&mut self, first: Waiting) {
        let mut group = vec![first];
        let size = |group: &[Waiting]| -> usize {
            let sizes = group
                .iter()
                .map(|one| one.outcomes.len() + one.scores.len());
            sizes.sum()
        };
        while size(&group) < GROUP_MAX
            && let Ok(next) = self.waiting.try_recv()
        {
            group.push(next);
        }
        let mut outcomes = Vec::new();
        let mut scores = Vec::new();
        let mut sizes = Vec::new();
        for one in &mut group {
            sizes.push((one.outcomes.len(), one.scores.len()));
            outcomes.append(&mut one.outcomes);
            scores.append(&mut one.scores);
        }
        let taken = self
            .service
            .take_in(Arc::new(outcomes), Arc::new(scores))
            .await;
        self.service.metrics.outcome_group(group.len());
        match taken {
            Ok(taken) => {
                let (mut outcomes, mut scores) =
                    (taken.outcomes.into_iter(), taken.scores.into_iter());
                for (one, (of_outcomes, of_scores)) in group.into_iter().zip(sizes) {
                    // Who asked may be gone.
                    let _ = one.answer.send(Ok(TakenIn {
                        outcomes: outcomes.by_ref().take(of_outcomes).collect(),
                        scores: scores.by_ref().take(of_scores).collect(),
                        ..TakenIn::default()
                    }));
                }
            }
            Err(error) => {
                let error = Arc::new(error);
                for one in group {
                    let _ = one.answer.send(Err(Arc::clone(&error)));
                }
            }
        }
    }
}
