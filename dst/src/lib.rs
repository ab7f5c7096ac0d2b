//! The service's own core, run by a seeded scheduler.

pub mod check; // what must hold
pub mod crew; // threads that play
pub mod desk; // where everything waits until it may go on
pub mod errors; // what is logged as an error
pub mod load; // what callers ask for
pub mod play; // plays the run of a seed
pub mod search; // every interleaving of a small run
pub mod stage; // the storage that runs are played on
mod telling; // what the record tells
pub mod trace; // what has happened
pub mod world; // replicas, callers and a clock, and what can happen
