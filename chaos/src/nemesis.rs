//! Makes faults, one after the other, by chance that begins with the seed.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use sqlx::{PgConnection, Row as _};
use tokio::{
    sync::{Mutex, Semaphore},
    task::JoinSet,
    time::Instant,
};
use uuid::Uuid;

use crate::{
    Failure,
    cluster::{Cluster, Link, Mode, Replica, Stop, is_ready},
    metrics,
    plan::Plan,
};

/// How long a replica is paused: beyond the lease of 15 s.
const PAUSE: Duration = Duration::from_secs(17);
/// How long it may take until a replica claims something.
const CLAIMS_SOON: Duration = Duration::from_secs(20);
/// How long it takes at most until what a paused replica has written comes to the database.
const ARRIVES: Duration = Duration::from_millis(20);
/// How long a takeover is waited for.
const TAKEOVER_MAX: Duration = Duration::from_secs(60);
/// How long a resumed replica has at most to find its claims passed on.
const WAKES: Duration = Duration::from_secs(20);
/// How long two versions of the program run beside each other in an upgrade.
const BESIDE_EACH_OTHER: Duration = Duration::from_secs(5);
/// How many seconds a clock may be off, either way.
const SKEW: i64 = 300;

/// What was done, and how it was taken.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) kills: AtomicU64,
    pub(crate) terms: AtomicU64,
    pub(crate) pauses: AtomicU64,
    /// Pauses after which the replica found a claim passed on.
    pub(crate) fenced_pauses: AtomicU64,
    pub(crate) fenced_writes: AtomicU64,
    pub(crate) restarts: AtomicU64,
    pub(crate) cuts: AtomicU64,
    pub(crate) holds: AtomicU64,
    pub(crate) delays: AtomicU64,
    pub(crate) skewed_starts: AtomicU64,
    /// From SIGKILL until what the replica held was taken over.
    pub(crate) after_kill: Mutex<Vec<Duration>>,
    /// From SIGTERM until what the replica held was taken over, or given back.
    pub(crate) after_term: Mutex<Vec<Duration>>,
    /// From the database's return until every replica was ready.
    pub(crate) back: Mutex<Vec<Duration>>,
    /// What went wrong that never should.
    pub(crate) wrong: Mutex<Vec<String>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fault {
    Kill,
    Terminate,
    Pause,
    Restart(Stop),
    CutDatabase,
    CutCallers,
    CutAfterCommit,
    CutSessions,
    Hold,
    Delay,
}

/// Makes faults until there were enough and enough has happened, but no longer than `patience`.
pub(crate) async fn run(
    cluster: Arc<Cluster>,
    plan: Plan,
    tally: Arc<Tally>,
    patience: Duration,
) -> Result<(), Failure> {
    let mut nemesis = Nemesis {
        rng: StdRng::seed_from_u64(plan.seed),
        session: None,
        measuring: JoinSet::new(),
        pausing: Arc::new(Semaphore::new(1)),
        cluster,
        plan,
        tally,
    };
    let until = Instant::now() + patience;
    while !nemesis.has_done_enough().await? {
        if Instant::now() > until {
            return Err(format!("not enough has happened within {patience:?}").into());
        }
        let gap = nemesis.rng.random_range(nemesis.plan.gap_ms.clone());
        tokio::time::sleep(Duration::from_millis(gap)).await;
        let fault = nemesis.next_fault();
        nemesis.make(fault).await?;
        nemesis.look_for_crashes().await?;
    }
    while let Some(measured) = nemesis.measuring.join_next().await {
        measured??;
    }
    Ok(())
}

/// Replaces every replica by another program, then one of them by the one before, as when an upgrade is
/// taken back, and then that one again.
pub(crate) async fn upgrade(
    cluster: &Cluster,
    plan: &Plan,
    to: &Path,
    tally: &Tally,
) -> Result<(), Failure> {
    let there = (0..cluster.members.len()).map(|number| (number, to));
    let back_and_there = [(0, plan.programs[0].as_path()), (0, to)];
    for (number, program) in there.chain(back_and_there) {
        tokio::time::sleep(BESIDE_EACH_OTHER).await;
        let mut replica = cluster.members[number].replica.lock().await;
        tally.terms.fetch_add(1, Ordering::AcqRel);
        replica.terminate().await?;
        replica.replace_by(program.to_owned());
        replica.start(0)?;
    }
    tokio::time::sleep(BESIDE_EACH_OTHER).await;
    Ok(())
}

struct Nemesis {
    rng: StdRng,
    session: Option<PgConnection>,
    /// What goes on while other faults are made: pauses, restarts, and watching what follows.
    measuring: JoinSet<Result<(), Failure>>,
    /// One replica is paused at a time, so that there are others to take over from it.
    pausing: Arc<Semaphore>,
    cluster: Arc<Cluster>,
    plan: Plan,
    tally: Arc<Tally>,
}

impl Nemesis {
    async fn has_done_enough(&mut self) -> Result<bool, Failure> {
        let count = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        let enough = count(&self.tally.kills) >= self.plan.kills
            && count(&self.tally.pauses) >= self.plan.pauses
            && count(&self.tally.restarts) >= self.plan.restarts;
        if !enough {
            return Ok(false);
        }
        let Some(session) = self.session().await else {
            return Ok(false);
        };
        let events = sqlx::query_scalar("SELECT count(*) FROM deployment_events")
            .fetch_one(session)
            .await;
        match events {
            Ok(events) => Ok(self.plan.transitions <= events),
            Err(_) => {
                self.session = None;
                Ok(false)
            }
        }
    }

    /// A session of its own, while the database is there.
    async fn session(&mut self) -> Option<&mut PgConnection> {
        if self.session.is_none() {
            self.session = self.cluster.postgres.connect().await.ok();
        }
        self.session.as_mut()
    }

    fn next_fault(&mut self) -> Fault {
        let done = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        // What there is a number of is spread over the kills.
        let kills = done(&self.tally.kills).min(self.plan.kills);
        let is_time = |made: u64, of: u64| made < of && made * self.plan.kills <= kills * of;
        if is_time(done(&self.tally.pauses), self.plan.pauses)
            && self.pausing.available_permits() == 1
        {
            return Fault::Pause;
        }
        let restarts = done(&self.tally.restarts);
        if is_time(restarts, self.plan.restarts) && kills > 2 {
            let how = [Stop::Fast, Stop::Immediate];
            return Fault::Restart(how[usize::from(restarts % 2 == 1)]);
        }
        match self.rng.random_range(0..100) {
            0..62 => Fault::Kill,
            62..70 => Fault::Terminate,
            70..76 => Fault::CutDatabase,
            76..80 => Fault::CutCallers,
            80..90 => Fault::CutAfterCommit,
            90..92 => Fault::CutSessions,
            92..96 => Fault::Hold,
            _ => Fault::Delay,
        }
    }

    async fn make(&mut self, fault: Fault) -> Result<(), Failure> {
        let number = self.rng.random_range(0..self.cluster.members.len());
        let member = &self.cluster.members[number];
        let count = |counter: &AtomicU64| counter.fetch_add(1, Ordering::AcqRel);
        match fault {
            Fault::Kill => self.kill(number).await?,
            Fault::Terminate => self.terminate(number).await?,
            Fault::Pause => {
                count(&self.tally.pauses);
                let (cluster, tally) = (Arc::clone(&self.cluster), Arc::clone(&self.tally));
                let turn = Arc::clone(&self.pausing).try_acquire_owned()?;
                self.measuring.spawn(async move {
                    let _turn = turn;
                    pause(cluster, number, tally).await
                });
            }
            Fault::Restart(how) => {
                count(&self.tally.restarts);
                self.restart(how).await?;
            }
            Fault::CutDatabase => {
                count(&self.tally.cuts);
                member.database.cut();
            }
            Fault::CutCallers => {
                count(&self.tally.cuts);
                member.callers.cut();
            }
            Fault::CutAfterCommit => member.database.cut_after_commit(),
            Fault::CutSessions => {
                count(&self.tally.cuts);
                self.cluster.postgres.cut_sessions().await?;
            }
            Fault::Hold => {
                count(&self.tally.holds);
                let length = Duration::from_millis(self.rng.random_range(500..8000));
                self.for_a_while(number, Mode::Held, length);
            }
            Fault::Delay => {
                count(&self.tally.delays);
                let by = Duration::from_millis(self.rng.random_range(5..60));
                self.for_a_while(number, Mode::Late(by), Duration::from_secs(3));
            }
        }
        Ok(())
    }

    /// Kills a replica and starts it again, unless something else is being done to it.
    async fn kill(&mut self, number: usize) -> Result<(), Failure> {
        let skew = self.skew();
        let down = Duration::from_millis(self.rng.random_range(0..400));
        let cluster = Arc::clone(&self.cluster);
        let Ok(mut replica) = cluster.members[number].replica.try_lock() else {
            return Ok(());
        };
        if !replica.is_up() {
            return Ok(());
        }
        let id = replica.id();
        replica.kill().await?;
        let since = Instant::now();
        self.tally.kills.fetch_add(1, Ordering::AcqRel);
        let held = self.claims(id).await;
        let (cluster, tally) = (Arc::clone(&self.cluster), Arc::clone(&self.tally));
        self.measuring.spawn(async move {
            let took = taken_over(&cluster, held, since).await?;
            tally.after_kill.lock().await.extend(took);
            Ok(())
        });
        tokio::time::sleep(down).await;
        replica.start(skew)
    }

    async fn terminate(&mut self, number: usize) -> Result<(), Failure> {
        let skew = self.skew();
        let cluster = Arc::clone(&self.cluster);
        let Ok(mut replica) = cluster.members[number].replica.try_lock() else {
            return Ok(());
        };
        // One that has just been started has not come to where it can be asked.
        if !replica.is_up() || !is_ready(replica.address).await {
            return Ok(());
        }
        let held = self.claims(replica.id()).await;
        let since = Instant::now();
        self.tally.terms.fetch_add(1, Ordering::AcqRel);
        let (cluster, tally) = (Arc::clone(&self.cluster), Arc::clone(&self.tally));
        self.measuring.spawn(async move {
            let took = taken_over(&cluster, held, since).await?;
            tally.after_term.lock().await.extend(took);
            Ok(())
        });
        replica.terminate().await?;
        replica.start(skew)
    }

    /// Restarts the database; nothing else is done meanwhile.
    async fn restart(&mut self, how: Stop) -> Result<(), Failure> {
        self.session = None;
        self.cluster.postgres.restart(how).await?;
        let since = Instant::now();
        let mut last = Duration::ZERO;
        for member in &self.cluster.members {
            // A paused replica does not come back before it is resumed.
            let Ok(replica) = member.replica.try_lock() else {
                continue;
            };
            if !replica.is_up() || member.database.is_held() {
                continue;
            }
            while !is_ready(replica.address).await {
                if since.elapsed() > TAKEOVER_MAX {
                    return Err("a replica does not come back after the database did".into());
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            last = since.elapsed();
        }
        self.tally.back.lock().await.push(last);
        Ok(())
    }

    fn for_a_while(&mut self, number: usize, mode: Mode, length: Duration) {
        let cluster = Arc::clone(&self.cluster);
        self.measuring.spawn(async move {
            let link = &cluster.members[number].database;
            link.set(mode);
            tokio::time::sleep(length).await;
            link.set(Mode::Through);
            Ok(())
        });
    }

    /// How far off the clock of a replica is that starts now, in seconds.
    fn skew(&mut self) -> i64 {
        let skews = [0, 0, -SKEW, SKEW];
        let skew = skews[self.rng.random_range(0..skews.len())];
        if skew != 0 && Replica::can_be_skewed() {
            self.tally.skewed_starts.fetch_add(1, Ordering::AcqRel);
            skew
        } else {
            0
        }
    }

    /// What a replica has claimed at this moment.
    async fn claims(&mut self, owner: Option<Uuid>) -> Vec<Held> {
        let Some((owner, session)) = owner.zip(self.session().await) else {
            return Vec::new();
        };
        let Ok(mut claims) = claims(session).await else {
            self.session = None;
            return Vec::new();
        };
        claims.retain(|(_, claimed_by, _)| *claimed_by == owner);
        claims
    }

    async fn look_for_crashes(&self) -> Result<(), Failure> {
        for member in &self.cluster.members {
            let Ok(mut replica) = member.replica.try_lock() else {
                continue;
            };
            if let Some(how) = replica.ended_by_itself()? {
                self.tally.wrong.lock().await.push(how);
                replica.start(0)?;
            }
        }
        Ok(())
    }
}

/// Pauses a replica beyond its leases, while it has claimed something.
async fn pause(cluster: Arc<Cluster>, number: usize, tally: Arc<Tally>) -> Result<(), Failure> {
    let mut replica = cluster.members[number].replica.lock().await;
    // One that has just been started has counted nothing.
    let before = metrics::fenced(replica.address).await.unwrap_or_default();
    let link = &cluster.members[number].database;
    let held = pause_over_a_claim(&cluster, &mut replica, link).await?;
    tokio::time::sleep(PAUSE).await;
    // Those that could take over are killed all the time.
    first_taken_over(&cluster, &held).await;
    replica.resume().await?;
    let until = Instant::now() + WAKES;
    let mut after = before;
    while after == before && Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(200)).await;
        after = metrics::fenced(replica.address).await.unwrap_or(before);
    }
    let refused = after.saturating_sub(before);
    tally.fenced_writes.fetch_add(refused, Ordering::AcqRel);
    if refused > 0 {
        tally.fenced_pauses.fetch_add(1, Ordering::AcqRel);
    }
    Ok(())
}

/// Stops the process at a moment at which it has claimed something and waits for what another service
/// says, so that it comes to write when the claim has passed on; at any moment, where there is none for
/// long.
///
/// What it has claimed; nothing, where it is paused at any moment.
async fn pause_over_a_claim(
    cluster: &Cluster,
    replica: &mut Replica,
    link: &Link,
) -> Result<Vec<Held>, Failure> {
    let until = Instant::now() + CLAIMS_SOON;
    while Instant::now() < until {
        replica.pause().await?;
        // What the kernel has not sent yet has to arrive.
        tokio::time::sleep(ARRIVES).await;
        let (id, session) = (replica.id(), cluster.postgres.connect().await.ok());
        if let Some((id, mut session)) = id.zip(session) {
            let held = will_write(&mut session, id, link).await.unwrap_or_default();
            if !held.is_empty() {
                return Ok(held);
            }
        }
        replica.resume().await?;
        tokio::time::sleep(Duration::from_millis(30)).await;
    }
    replica.pause().await?;
    Ok(Vec::new())
}

/// Waits until somebody has taken over one of these, while there is patience.
async fn first_taken_over(cluster: &Cluster, held: &[Held]) {
    let until = Instant::now() + CLAIMS_SOON;
    while !held.is_empty() && Instant::now() < until {
        if let Ok(mut session) = cluster.postgres.connect().await
            && let Ok(now) = claims(&mut session).await
            && !held.iter().all(|claim| now.contains(claim))
        {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// What a paused replica has claimed, if it has no transaction open: what it is in the midst of, the
/// server ends by itself, so that nothing would be left to refuse.
async fn will_write(
    session: &mut PgConnection,
    owner: Uuid,
    link: &Link,
) -> Result<Vec<Held>, sqlx::Error> {
    let mut held = claims(session).await?;
    held.retain(|(_, claimed_by, _)| *claimed_by == owner);
    let open: i64 = sqlx::query_scalar(
        "SELECT count(*) FROM pg_stat_activity \
         WHERE application_name = 'delos-deploy background' AND state <> 'idle' \
         AND client_port = ANY ($1)",
    )
    .bind(link.ports())
    .fetch_one(session)
    .await?;
    Ok(if open == 0 { held } else { Vec::new() })
}

/// A claim: of which deployment, by whom, and the how-manieth.
type Held = (Uuid, Uuid, i64);

async fn claims(session: &mut PgConnection) -> Result<Vec<Held>, sqlx::Error> {
    let claimed = "SELECT deployment_id, lease_owner, lease_epoch FROM deployment_work \
        WHERE lease_owner IS NOT NULL";
    let rows = sqlx::query(claimed).fetch_all(session).await?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?)))
        .collect()
}

/// How long after `since` each claim was no longer held as it was.
async fn taken_over(
    cluster: &Cluster,
    mut held: Vec<Held>,
    since: Instant,
) -> Result<Vec<Duration>, Failure> {
    let mut took = Vec::new();
    while !held.is_empty() {
        if since.elapsed() > TAKEOVER_MAX {
            return Err(format!("nobody has taken over {held:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
        // The database may be away.
        let Ok(mut session) = cluster.postgres.connect().await else {
            continue;
        };
        let Ok(now) = claims(&mut session).await else {
            continue;
        };
        let before = held.len();
        held.retain(|claim| now.contains(claim));
        took.extend(std::iter::repeat_n(since.elapsed(), before - held.len()));
    }
    Ok(took)
}
