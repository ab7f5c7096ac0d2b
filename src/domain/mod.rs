//! What a deployment is and how it moves: values and pure functions, without clock, storage or
//! network.
//!
//! `state` is the machine on one screen, `lifecycle` what each of its transitions does to a
//! deployment and its traffic, `plan` the steps of a strategy, and `decide` what is to be done
//! next. Time comes in as a value.

pub mod analysis;
pub mod audit;
pub mod bucket;
pub mod convergence;
pub mod decide;
pub mod deployment;
pub mod endpoint;
pub mod gate;
pub mod ids;
pub mod judgement;
pub mod lifecycle;
pub mod outcome;
pub mod paired;
pub mod plan;
pub mod state;
pub mod strategy;
pub mod traffic;
pub mod violation;

/// A moment in UTC, to the microsecond (what both databases keep).
pub type Timestamp = chrono::DateTime<chrono::Utc>;
