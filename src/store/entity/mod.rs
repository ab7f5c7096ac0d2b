//! The tables as `SeaORM` sees them: columns, no meaning. Private to the store.

pub(crate) mod cohort;
pub(crate) mod cohort_latencies;
pub(crate) mod cohort_sums;
pub(crate) mod cohort_unit;
pub(crate) mod condition_result;
pub(crate) mod deployment;
pub(crate) mod details;
pub(crate) mod event;
pub(crate) mod first_answer;
pub(crate) mod gate;
pub(crate) mod gate_condition;
pub(crate) mod gate_result;
pub(crate) mod metadata;
pub(crate) mod metrics;
pub(crate) mod outcome;
pub(crate) mod replica;
pub(crate) mod replica_spread;
pub(crate) mod rollout;
pub(crate) mod strategy;
pub(crate) mod traffic;
pub(crate) mod traffic_revision;
pub(crate) mod waiting_score;
pub(crate) mod work;
