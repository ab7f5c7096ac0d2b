//! Delos Deploy decides whether a new version of an LLM prompt reaches users, and takes it back
//! when it should not have.
//!
//! The modules, in order of dependency; imports point one way only:
//!
//! ```text
//!            wire ──┐             ┌──▶ traffic ──▶ store ──┐
//!                   ├──▶ service ──┤                        ├──▶ domain
//!     reconciler ───┘             └──▶ evidence ───────────┘
//!   run, server and cli compose; nothing imports them; clock, config, faults and telemetry are leaves
//! ```

pub mod domain; // what a deployment is and how it moves: pure

pub mod clock; // time as a value
pub mod faults; // crashes and bugs made on purpose; nothing in a release
pub mod telemetry; // logs, metrics, traces

pub mod store; // where deployments are kept; the only module that knows SQL

pub mod evidence; // clients of the services that know what is decided by

pub mod traffic; // which versions are served, in memory

pub mod service; // the use cases: transactions, ids, time, the audit trail

pub mod reconciler; // the loop that moves deployments: claim, decide, commit
pub mod wire; // gRPC, gRPC-web and REST over one contract

pub mod cli; // the command line
pub mod config; // the environment variables
pub mod run; // runs a command
pub mod server; // puts everything together; the accept loop
