//! Plays a run: by a seed, or one move after the other; and brings it to its end, where everything
//! has to settle.

use std::time::Duration;

use delos_deploy::{
    faults::{Bug, Faults},
    store,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use crate::{
    check::State,
    desk::Ticket,
    load::{self, Ask, Call, Load},
    stage::Stage,
    trace::Trace,
    world::{Move, Rules, World},
};

/// Longer than any pause of the service's: a lease, a look at the line, and after failures.
const LONG: Duration = Duration::from_secs(61);
/// A pause beyond the lease, which is 15 s.
pub const BEYOND_LEASE: Duration = Duration::from_secs(16);
/// Within how many long pauses everything has to settle.
const ROUNDS_MAX: u32 = 30;
/// How many moves bring everything to rest at most.
const MOVES_MAX: u32 = 20_000;

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Outcome {
    /// What has happened.
    pub trace: Trace,
    /// What must not have happened.
    pub broken: Vec<String>,
}

/// Plays the run of a seed.
///
/// # Errors
/// The storage can't be emptied.
pub async fn play(stage: &Stage, seed: u64, bug: Option<Bug>) -> Result<Outcome, store::Error> {
    let mut dice = StdRng::seed_from_u64(seed);
    let load = Load::by(&mut dice);
    let is_skewed = dice.random_ratio(1, 4);
    let skew = |_| {
        if is_skewed {
            dice.random_range(0..5000)
        } else {
            0
        }
    };
    let skews: Vec<u64> = (0..3).map(skew).collect();
    let replicas = dice.random_range(2..=3);
    let rules = Rules {
        seed,
        bug,
        skews: skews[..replicas].to_vec(),
        looks_closely: dice.random_ratio(1, 8),
    };
    let mut world = World::new(stage, rules, load).await?;
    world.make_gates(stage).await;
    for _ in 0..dice.random_range(20..=100) {
        let moves = world.moves();
        let sum: u32 = moves.iter().map(|(weight, _)| weight).sum();
        let mut at = dice.random_range(0..sum.max(1));
        let drawn = moves.into_iter().find(|(weight, _)| {
            let is_it = at < *weight;
            at = at.saturating_sub(*weight);
            is_it
        });
        let Some((_, drawn)) = drawn else { break };
        world.apply(drawn).await;
        if !world.broken.is_empty() {
            break;
        }
    }
    Ok(world.finish().await)
}

impl World<'_> {
    /// Creates the gates of the load, before anything can go wrong.
    async fn make_gates(&mut self, stage: &Stage) {
        if self.load.gates.is_empty() {
            return;
        }
        let (service, _) = stage.service(&crate::stage::clock(), Faults::default());
        for (prompt, id) in &mut self.load.gates {
            let (gate, caller) = (load::gate(prompt), load::caller("gate"));
            let made = service.create_gate(&gate, &caller, None).await;
            *id = made.ok().and_then(load::gate_id);
        }
    }

    /// What can happen next, and how much chance each has.
    fn moves(&self) -> Vec<(u32, Move)> {
        let tickets = self.desk.tickets();
        let mut moves = vec![(2, Move::Wait(Duration::from_millis(700)))];
        if let Some(inside) = tickets.iter().find(|ticket| ticket.is_inside()) {
            // Nobody else can get at the storage, so that what they do would make no difference.
            moves.extend([(60, Move::Go(*inside)), (2, Move::Lose(*inside))]);
            moves.extend(self.slot_of(inside.life).map(|slot| (1, Move::Crash(slot))));
            return moves;
        }
        moves.extend([
            (2, Move::Wait(Duration::from_secs(2))),
            (1, Move::Wait(BEYOND_LEASE)),
        ]);
        for ticket in tickets.iter().filter(|ticket| !self.stands_still(ticket)) {
            moves.extend([(20, Move::Go(*ticket)), (1, Move::Lose(*ticket))]);
        }
        for slot in 0..self.slots.len() {
            self.moves_of(slot, &tickets, &mut moves);
        }
        moves
    }

    fn moves_of(&self, slot: usize, tickets: &[Ticket], moves: &mut Vec<(u32, Move)>) {
        let place = &self.slots[slot];
        let Some(replica) = &place.replica else {
            moves.push((6, Move::Start(slot)));
            return;
        };
        if place.is_paused {
            moves.extend([(3, Move::Resume(slot)), (3, Move::Wait(BEYOND_LEASE))]);
            return;
        }
        moves.push((1, Move::Crash(slot)));
        if tickets.iter().any(|ticket| ticket.life == replica.life) {
            moves.push((2, Move::Pause(slot)));
        }
        if replica.is_leaving {
            return;
        }
        if replica.busy.is_none() {
            moves.push((6, Move::Tick(slot)));
            let is_idle = tickets.iter().all(|ticket| ticket.life != replica.life);
            moves.extend(is_idle.then_some((1, Move::Stop(slot))));
        }
        for (number, call) in self.load.calls.iter().enumerate() {
            if self.load.can_send(call) {
                moves.push((chance(call), Move::Send(number, slot)));
            }
        }
    }

    fn stands_still(&self, ticket: &Ticket) -> bool {
        let slot = self.slot_of(ticket.life);
        slot.is_some_and(|slot| self.slots[slot].is_paused)
    }

    /// Makes no more faults, and brings everything to its end.
    pub async fn finish(mut self) -> Outcome {
        if self.broken.is_empty() {
            self.heal().await;
            self.answer_all().await;
            self.settle_all().await;
            self.compare_tables().await;
        }
        match State::read(&self.store()).await {
            Ok(state) => self.conclude(&state),
            Err(error) => self.broken.push(format!("it can't be read: {error}")),
        }
        self.broken.dedup();
        Outcome {
            trace: self.trace,
            broken: self.broken,
        }
    }

    fn conclude(&mut self, state: &State) {
        if self.broken.is_empty() {
            self.broken.extend(state.check(&self.load));
            self.broken.extend(state.unsettled());
        }
        self.trace.counts.events = u64::try_from(state.events.len()).unwrap_or(u64::MAX);
        self.trace.lines.extend(state.record());
    }

    /// Every replica runs, and everything that waits goes on.
    async fn heal(&mut self) {
        for slot in 0..self.slots.len() {
            if self.slots[slot].is_paused {
                self.apply(Move::Resume(slot)).await;
            }
            if self.slots[slot].replica.is_none() {
                self.apply(Move::Start(slot)).await;
            }
        }
        self.rest().await;
        for slot in 0..self.slots.len() {
            if self.slots[slot].replica.is_none() {
                self.apply(Move::Start(slot)).await;
            }
        }
    }

    /// Everything that waits goes on, one after the other.
    pub(crate) async fn rest(&mut self) {
        for _ in 0..MOVES_MAX {
            let tickets = self.desk.tickets();
            let inside = tickets.iter().find(|ticket| ticket.is_inside());
            match inside.or(tickets.first()) {
                Some(ticket) => self.apply(Move::Go(*ticket)).await,
                None if self.is_at_rest() => return,
                None => break,
            }
        }
        self.broken.push("it does not come to rest".into());
    }

    /// Whoever was not answered asks again; whoever has reported outcomes reports them again, which
    /// shows whether they are known.
    async fn answer_all(&mut self) {
        for number in 0..self.load.calls.len() {
            let call = &self.load.calls[number];
            let (is_answered, is_report) = (call.is_answered(), call.ask == Ask::Outcomes);
            if call.sends == 0 || is_answered && !is_report {
                continue;
            }
            let slot = number % self.slots.len();
            self.apply(Move::Send(number, slot)).await;
            self.rest().await;
            let call = &self.load.calls[number];
            if !call.is_answered() {
                let why = format!("'{}' is not answered though nothing is wrong", call.key);
                self.broken.push(why);
            }
            // Whose answer was lost may have been taken in too.
            let taken_in: Vec<_> = call.taken_in().collect();
            if let Some(((_, known), before)) = taken_in.split_last()
                && *known < before.iter().map(|(accepted, _)| accepted).sum::<usize>()
            {
                let why = format!(
                    "'{}' was acknowledged and is not known: {taken_in:?}",
                    call.key
                );
                self.broken.push(why);
            }
        }
    }

    /// Time passes, until nothing is left to do.
    async fn settle_all(&mut self) {
        let day = Duration::from_hours(24);
        for round in 0..ROUNDS_MAX {
            match self.store().until_due(day).await {
                Ok(pause) if pause == day => return,
                Ok(_) => {}
                Err(error) => return self.broken.push(format!("it can't be read: {error}")),
            }
            self.apply(Move::Wait(LONG)).await;
            let slot = usize::try_from(round).unwrap_or_default() % self.slots.len();
            self.apply(Move::Tick(slot)).await;
            self.rest().await;
        }
        self.broken
            .push("it does not settle though nothing is wrong".into());
    }

    /// Each replica serves what is stored, once it has looked.
    async fn compare_tables(&mut self) {
        let (store, mut broken) = (self.store(), Vec::new());
        let stored = store.traffic_after(load::ENVIRONMENT, 0).await;
        let stored = stored.map(|read| read.traffic).unwrap_or_default();
        for slot in 0..self.slots.len() {
            let Some(service) = self.service(slot) else {
                continue;
            };
            if let Err(error) = service.traffic().refresh(&store).await {
                broken.push(format!("it can't be read: {error}"));
            }
            for row in &stored {
                let served = service.split(load::ENVIRONMENT, row.prompt_id.as_str());
                if !served.is_ok_and(|served| *served.traffic == *row) {
                    broken.push(format!("r{} serves something else than {row:?}", slot + 1));
                }
            }
        }
        self.broken.extend(broken);
    }
}

/// The chance of a call to be sent: first, again since nobody answered, or once more.
fn chance(call: &Call) -> u32 {
    let first = match call.ask {
        Ask::Create | Ask::Approve | Ask::Report { .. } => 4,
        Ask::Cancel | Ask::RollBack | Ask::Outcomes => 1,
    };
    match (call.sends, call.in_flight, call.is_answered()) {
        (0, ..) => first,
        (_, 0, false) => 4,
        _ => 1,
    }
}
