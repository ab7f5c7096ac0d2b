//! One run: virtual replicas over one storage, callers, a clock; and what can happen next.

use std::time::Duration;

use delos_deploy::{
    clock::ManualClock,
    faults::{Bug, Faults, Lost, Point},
    reconciler::Reconciler,
    service::Service,
    store,
};
use tokio::task::JoinHandle;
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

use crate::{
    check,
    desk::{Desk, Ticket},
    load::{Answer, Ask, Load, Sent},
    stage::{self, Stage},
    trace::Trace,
};

/// How often everything else goes on without an effect before it is taken to wait.
const QUIET: u32 = 4;
/// How often it is looked whether everything waits.
const LOOKS_MAX: u32 = 100_000;
/// How often of these at once, which most often is enough.
const IMPATIENT: u32 = 60;

/// What a run is about.
#[derive(Debug, Clone, Default)]
pub struct Rules {
    /// The seed, from which bugs that bite now and then have their chance.
    pub seed: u64,
    /// The bug that is switched on.
    pub bug: Option<Bug>,
    /// By how much the clock of each replica is ahead of the storage's, in milliseconds.
    pub skews: Vec<u64>,
    /// Whether everything is checked after each transaction, and not only at the end.
    pub looks_closely: bool,
}

/// What can happen next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Move {
    /// What waits goes on.
    Go(Ticket),
    /// What waits loses its connection: it was not done, or it was and nobody knows.
    Lose(Ticket),
    /// A replica is killed.
    Crash(usize),
    /// A replica starts.
    Start(usize),
    /// A replica stops, and gives back what it has claimed.
    Stop(usize),
    /// A replica does what is due.
    Tick(usize),
    /// A replica stands still.
    Pause(usize),
    /// It goes on.
    Resume(usize),
    /// A call is sent to a replica.
    Send(usize, usize),
    /// Time passes.
    Wait(Duration),
}

/// A place for a replica.
#[derive(Debug)]
pub struct Slot {
    /// The replica that runs there.
    pub replica: Option<Replica>,
    /// Whether it stands still.
    pub is_paused: bool,
    clock: ManualClock,
    lives: u32,
}

/// A replica, from its start to its end.
#[derive(Debug)]
pub struct Replica {
    /// Which life of all.
    pub life: u32,
    /// Its name.
    pub name: String,
    service: Service,
    reconciler: Reconciler,
    /// Ends what gathers outcomes, with the replica.
    _collector: DropGuard,
    /// What its reconciler is at.
    pub busy: Option<JoinHandle<Result<(), store::Error>>>,
    /// Whether it gives back what it has claimed, and ends.
    pub is_leaving: bool,
}

struct Flight {
    call: usize,
    life: u32,
    is_cut: bool,
    answer: JoinHandle<Answer>,
}

/// One run.
pub struct World<'s> {
    stage: &'s Stage,
    rules: Rules,
    /// Where everything waits.
    pub desk: Desk,
    clock: ManualClock,
    /// Where replicas run.
    pub slots: Vec<Slot>,
    /// What is asked for.
    pub load: Load,
    flights: Vec<Flight>,
    tasks: TaskTracker,
    lives: u32,
    /// What has happened.
    pub trace: Trace,
    /// What must not have happened.
    pub broken: Vec<String>,
}

impl<'s> World<'s> {
    /// Replicas that have just started, on an empty storage.
    ///
    /// # Errors
    /// The storage failed, which is no fault of a run's.
    pub async fn new(stage: &'s Stage, rules: Rules, load: Load) -> Result<Self, store::Error> {
        let clock = stage::clock();
        stage.store(&clock).clear().await?;
        let _ = stage.errors.take();
        let slot = |skew: &u64| {
            let clock = stage::clock();
            clock.advance(Duration::from_millis(*skew));
            Slot {
                replica: None,
                is_paused: false,
                clock,
                lives: 0,
            }
        };
        let slots = rules.skews.iter().map(slot).collect();
        let mut world = Self {
            stage,
            rules,
            desk: Desk::default(),
            clock,
            slots,
            load,
            flights: Vec::new(),
            tasks: TaskTracker::new(),
            lives: 0,
            trace: Trace::default(),
            broken: Vec::new(),
        };
        for slot in 0..world.slots.len() {
            world.start(slot);
        }
        Ok(world)
    }

    /// Lets something happen, until everything waits again.
    pub async fn apply(&mut self, what: Move) {
        let line = self.describe(&what);
        self.trace.happens(&what, line);
        match what {
            Move::Go(ticket) => self.desk.answer(ticket.number, Ok(())),
            Move::Lose(ticket) => self.desk.answer(ticket.number, Err(Lost)),
            Move::Crash(slot) => self.crash(slot),
            Move::Start(slot) => self.start(slot),
            Move::Stop(slot) => self.leave(slot),
            Move::Tick(slot) => self.tick(slot),
            Move::Pause(slot) => self.slots[slot].is_paused = true,
            Move::Resume(slot) => self.slots[slot].is_paused = false,
            Move::Send(call, slot) => self.send(call, slot),
            Move::Wait(time) => self.wait(time),
        }
        self.settle().await;
        self.collect().await;
        let is_committed = matches!(what, Move::Go(ticket) if ticket.point == Point::CommitBefore);
        if is_committed && self.rules.looks_closely {
            self.check().await;
        }
    }

    /// Checks everything after each transaction, or no more.
    pub(crate) fn looks_closely(&mut self, closely: bool) {
        self.rules.looks_closely = closely;
    }

    /// Checks what is stored.
    pub async fn check(&mut self) {
        match check::State::read(&self.stage.store(&self.clock)).await {
            Ok(state) => self.broken.extend(state.check(&self.load)),
            Err(error) => self.broken.push(format!("it can't be read: {error}")),
        }
    }

    /// The storage, seen from outside.
    #[must_use]
    pub fn store(&self) -> store::Store {
        self.stage.store(&self.clock)
    }

    /// A service in a place, where one runs.
    #[must_use]
    pub fn service(&self, slot: usize) -> Option<&Service> {
        let replica = self.slots[slot].replica.as_ref();
        replica.map(|replica| &replica.service)
    }

    /// Where a life is lived; none once it has ended.
    #[must_use]
    pub fn slot_of(&self, life: u32) -> Option<usize> {
        let lives = |slot: &Slot| slot.replica.as_ref().is_some_and(|it| it.life == life);
        self.slots.iter().position(lives)
    }

    /// Whether anybody waits for anything.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        let mut replicas = self.slots.iter().filter_map(|slot| slot.replica.as_ref());
        self.flights.is_empty()
            && replicas.all(|it| it.busy.is_none())
            && self.desk.tickets().is_empty()
    }

    fn start(&mut self, place: usize) {
        self.lives += 1;
        let (life, rules) = (self.lives, &self.rules);
        let slot = &mut self.slots[place];
        slot.lives += 1;
        let plan = self.desk.plan(life, rules.bug, rules.seed);
        let (service, collector) = self.stage.service(&slot.clock, Faults::by(plan));
        let stop = CancellationToken::new();
        self.tasks.spawn(collector.run(stop.clone()));
        slot.is_paused = false;
        slot.replica = Some(Replica {
            life,
            name: format!("r{}.{}", place + 1, slot.lives),
            reconciler: Reconciler::new(&service),
            service,
            _collector: stop.drop_guard(),
            busy: None,
            is_leaving: false,
        });
    }

    fn crash(&mut self, slot: usize) {
        let Some(replica) = self.slots[slot].replica.take() else {
            return;
        };
        self.desk.end(replica.life);
        let of_it = |flight: &&mut Flight| flight.life == replica.life;
        for flight in self.flights.iter_mut().filter(of_it) {
            flight.is_cut = true;
        }
    }

    fn leave(&mut self, slot: usize) {
        if let Some(replica) = &mut self.slots[slot].replica {
            let (store, owner) = (replica.service.store().clone(), replica.service.replica());
            let release = async move { store.release(owner).await };
            replica.busy = Some(self.tasks.spawn(self.desk.clone().ringing(release)));
            replica.is_leaving = true;
        }
    }

    fn tick(&mut self, slot: usize) {
        if let Some(replica) = &mut self.slots[slot].replica {
            let reconciler = replica.reconciler.clone();
            let tick = async move { reconciler.tick().await };
            replica.busy = Some(self.tasks.spawn(self.desk.clone().ringing(tick)));
        }
    }

    fn send(&mut self, call: usize, slot: usize) {
        let Some(replica) = &self.slots[slot].replica else {
            return;
        };
        let sent = Sent::of(&self.load, &self.load.calls[call]);
        let sent = sent.to(replica.service.clone());
        let answer = self.tasks.spawn(self.desk.clone().ringing(sent));
        self.load.calls[call].sends += 1;
        self.load.calls[call].in_flight += 1;
        self.flights.push(Flight {
            call,
            life: replica.life,
            is_cut: false,
            answer,
        });
    }

    fn wait(&self, time: Duration) {
        self.clock.advance(time);
        for slot in &self.slots {
            slot.clock.advance(time);
        }
    }

    /// Waits until everything waits: nobody can go on, and the connection is where it must be.
    async fn settle(&mut self) {
        let (mut quiet, mut seen) = (0, self.desk.arrivals());
        for look in 0..LOOKS_MAX {
            tokio::task::yield_now().await;
            let held = u64::from(self.desk.tickets().iter().any(Ticket::is_inside));
            let arrivals = self.desk.arrivals();
            if self.stage.in_use() == held && arrivals == seen {
                quiet += 1;
            } else {
                (quiet, seen) = (0, arrivals);
            }
            if quiet == QUIET {
                return;
            }
            if quiet == 0 && look > IMPATIENT {
                self.desk.listen().await;
            }
        }
        self.broken.push("it does not come to rest".into());
    }

    /// Takes down what has ended.
    async fn collect(&mut self) {
        let errors = self.stage.errors.take();
        self.broken.extend(
            errors
                .into_iter()
                .map(|line| format!("an error was logged:{line}")),
        );
        for place in 0..self.slots.len() {
            self.collect_replica(place).await;
        }
        let (ended, flights) = std::mem::take(&mut self.flights)
            .into_iter()
            .partition::<Vec<_>, _>(|flight| flight.answer.is_finished());
        self.flights = flights;
        for flight in ended {
            let answer = match flight.answer.await {
                Ok(_) if flight.is_cut => Answer::Lost,
                Ok(answer) => answer,
                Err(error) => {
                    self.broken.push(format!("a call: {error}"));
                    Answer::Lost
                }
            };
            self.take_down(flight.call, answer);
        }
    }

    async fn collect_replica(&mut self, place: usize) {
        let Some(replica) = &mut self.slots[place].replica else {
            return;
        };
        let Some(busy) = replica.busy.take_if(|busy| busy.is_finished()) else {
            return;
        };
        match busy.await {
            Ok(Ok(()) | Err(store::Error::Unavailable(_))) => {}
            Ok(Err(error)) => self.broken.push(format!("{}: {error}", replica.name)),
            Err(error) => self.broken.push(format!("{}: {error}", replica.name)),
        }
        if replica.is_leaving {
            self.crash(place);
        }
    }

    fn take_down(&mut self, number: usize, answer: Answer) {
        let call = &mut self.load.calls[number];
        call.in_flight -= 1;
        self.trace.answered(&call.key, &answer);
        if let (Ask::Create, Answer::Done(what)) = (call.ask, &answer) {
            let id = what.split(' ').next().and_then(|id| id.parse().ok());
            self.load.wanted[call.of].id = id;
        }
        let never = [
            "INTERNAL",
            "INVALID_REQUEST",
            "IDEMPOTENCY_KEY_USED",
            "NOT_FOUND",
        ];
        if let Answer::Refused(reason) = &answer
            && never.contains(reason)
        {
            self.broken
                .push(format!("'{}' was answered {reason}", call.key));
        }
        call.answers.push(answer);
    }
}
