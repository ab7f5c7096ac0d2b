//! Every interleaving of a small run: a depth-first search over what can happen next, each path
//! played from the beginning.
//!
//! Two replicas roll out one version in two steps. What is tried at every place where it makes a
//! difference is which of the transactions under way comes next, when a replica looks for what is
//! due, when time passes (16 s at once, so that steps fall due and every lease ends: whoever waits
//! at that moment was paused beyond its lease), when a caller cancels; and, as often as the bounds
//! allow, that what has come to any place at all is cut off there, or its replica is killed there.
//! What happens within a transaction, and between two of them, is no choice: nobody else can see
//! it.

use std::time::Duration;

use delos_deploy::{faults::Bug, store};

use crate::{
    load::{Call, Load},
    play::{BEYOND_LEASE, Outcome},
    stage::Stage,
    world::{Move, Rules, World},
};

/// Sooner than anything falls due by itself.
const SOON: Duration = Duration::from_millis(1);

/// How often each of the things can happen that could go on for ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// How often each replica looks for what is due.
    pub ticks: u32,
    /// How often time passes.
    pub waits: u32,
    /// How many faults there are.
    pub faults: u32,
    /// Whether a caller cancels it, and sends that twice.
    pub cancelled: bool,
}

impl Bounds {
    /// The least in which a replica can be paused beyond its lease and another one take over.
    pub const SMALL: Self = Self {
        ticks: 1,
        waits: 2,
        faults: 0,
        cancelled: false,
    };

    /// What is searched: once with pauses alone, once with a fault anywhere, once with a caller.
    pub const ALL: [Self; 3] = [
        Self {
            ticks: 3,
            waits: 4,
            faults: 0,
            cancelled: false,
        },
        Self {
            ticks: 2,
            waits: 3,
            faults: 1,
            cancelled: false,
        },
        Self {
            ticks: 1,
            waits: 2,
            faults: 1,
            cancelled: true,
        },
    ];
}

/// What a search came to.
#[derive(Debug, Clone, Default)]
pub struct Found {
    /// How many paths there are.
    pub paths: u64,
    /// The longest one, in choices.
    pub choices_max: usize,
    /// The first path on which something does not hold, by its choices.
    pub broken: Option<(Vec<usize>, Outcome)>,
}

/// A path: which of how many, at each choice.
#[derive(Debug, Clone, Default)]
struct Path(Vec<(usize, usize)>);

impl Path {
    /// The next path, depth first; none after the last.
    fn next(mut self) -> Option<Self> {
        while let Some((taken, of)) = self.0.pop() {
            if taken + 1 < of {
                self.0.push((taken + 1, of));
                return Some(self);
            }
        }
        None
    }
}

/// Plays every path.
///
/// # Errors
/// The storage can't be emptied.
pub async fn search(
    stage: &Stage,
    bounds: Bounds,
    bug: Option<Bug>,
) -> Result<Found, store::Error> {
    let mut found = Found::default();
    let mut next = Some(Path::default());
    while let Some(path) = next {
        let (path, outcome) = walk(stage, bounds, bug, path).await?;
        found.paths += 1;
        found.choices_max = found.choices_max.max(path.0.len());
        if !outcome.broken.is_empty() {
            let choices = path.0.iter().map(|(taken, _)| *taken).collect();
            found.broken = Some((choices, outcome));
            return Ok(found);
        }
        next = path.next();
    }
    Ok(found)
}

/// Plays one path: the choices that are given, and then the first one each time.
async fn walk(
    stage: &Stage,
    bounds: Bounds,
    bug: Option<Bug>,
    path: Path,
) -> Result<(Path, Outcome), store::Error> {
    let rules = Rules {
        seed: 0,
        bug,
        skews: vec![0, 0],
        looks_closely: false,
    };
    let mut world = World::new(stage, rules, Load::small(bounds.cancelled)).await?;
    for call in 0..2 {
        world.apply(Move::Send(call, 0)).await;
        world.rest().await;
    }
    let mut left = Left::of(bounds);
    let mut walked = Path::default();
    loop {
        let moves = left.moves(&world).await?;
        if moves.is_empty() || !world.broken.is_empty() {
            break;
        }
        let mut taken = 0;
        if moves.len() > 1 {
            taken = path.0.get(walked.0.len()).map_or(0, |(taken, _)| *taken);
            walked.0.push((taken, moves.len()));
        }
        left.takes(&moves[taken]);
        // What comes before was looked at on the path before.
        world.looks_closely(walked.0.len() >= path.0.len());
        world.apply(moves[taken]).await;
    }
    Ok((walked, world.finish().await))
}

/// What is left of the bounds.
struct Left {
    ticks: [u32; 2],
    waits: u32,
    faults: u32,
    sends: u32,
    /// Whether no replica has done anything yet.
    is_untouched: bool,
}

impl Left {
    fn of(bounds: Bounds) -> Self {
        Self {
            ticks: [bounds.ticks; 2],
            waits: bounds.waits,
            faults: bounds.faults,
            sends: if bounds.cancelled { 2 } else { 0 },
            is_untouched: true,
        }
    }

    fn takes(&mut self, what: &Move) {
        self.is_untouched &= matches!(what, Move::Wait(_));
        match what {
            Move::Tick(slot) => self.ticks[*slot] -= 1,
            Move::Wait(_) => self.waits -= 1,
            Move::Lose(_) | Move::Crash(_) => self.faults -= 1,
            Move::Send(..) => self.sends -= 1,
            Move::Go(_) | Move::Start(_) | Move::Stop(_) | Move::Pause(_) | Move::Resume(_) => {}
        }
    }

    /// What can happen next, and makes a difference.
    async fn moves(&self, world: &World<'_>) -> Result<Vec<Move>, store::Error> {
        let empty = world.slots.iter().position(|slot| slot.replica.is_none());
        if let Some(slot) = empty {
            return Ok(vec![Move::Start(slot)]);
        }
        let tickets = world.desk.tickets();
        let mut is_due = false;
        let mut forced = tickets.iter().find(|ticket| ticket.is_inside());
        forced = forced.or_else(|| tickets.iter().find(|ticket| !ticket.matters()));
        if forced.is_none() {
            is_due = world.store().until_due(SOON).await?.is_zero();
            // Who claims where nothing is due does nothing, now and later.
            forced = tickets.iter().find(|ticket| ticket.claims && !is_due);
        }
        let tickets = forced.map_or(tickets.as_slice(), std::slice::from_ref);
        let mut moves: Vec<_> = tickets.iter().map(|ticket| Move::Go(*ticket)).collect();
        if forced.is_none() {
            self.choices(world, is_due, &mut moves);
        }
        if self.faults > 0 {
            for ticket in tickets {
                moves.push(Move::Lose(*ticket));
                moves.extend(world.slot_of(ticket.life).map(Move::Crash));
            }
        }
        Ok(moves)
    }

    fn choices(&self, world: &World<'_>, is_due: bool, moves: &mut Vec<Move>) {
        for (slot, place) in world.slots.iter().enumerate() {
            let replica = place.replica.as_ref();
            let is_idle = replica.is_some_and(|replica| replica.busy.is_none());
            // They are alike: whoever is first is called the first.
            let is_alike = slot > 0 && self.is_untouched;
            if is_idle && is_due && self.ticks[slot] > 0 && !is_alike {
                moves.push(Move::Tick(slot));
            }
        }
        if self.waits > 0 {
            moves.push(Move::Wait(BEYOND_LEASE));
        }
        let cancel = world.load.calls.get(2);
        if self.sends > 0 && cancel.is_some_and(|call: &Call| world.load.can_send(call)) {
            let other = usize::try_from(self.sends).unwrap_or_default() % 2;
            moves.push(Move::Send(2, other));
        }
    }
}
