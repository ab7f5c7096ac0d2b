//! What became of the requests that were served: how an outcome is checked, where it belongs, and
//! what is counted of it.
//!
//! `report` checks what is reported, `cohort` says which users it can be compared with, and `tally`
//! keeps what is known of each unit and what that adds up to.

mod cohort;
mod report;
mod tally;

#[cfg(test)]
mod tests;

pub use cohort::{Cohort, Side, Split};
pub use report::{
    AGE_MAX, AHEAD_MAX, Known, Outcome, OutcomeReport, Reason, Refusal, Score, ScoreReport, Unit,
    digest,
};
pub use tally::{Counted, Fold, Group, Metrics, Sums, Tally, Total, UnitSums};
