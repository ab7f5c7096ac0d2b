//! The traffic table in memory: what "which version do I serve this user?" is answered from,
//! without the storage.
//!
//! It is fed by this replica's own writes at once, and by a poll that finds what others have
//! written; a hint from the database or from Redis only makes the next poll come sooner. Revisions
//! of an environment become visible in their order, so that a poll for everything after the last
//! one misses nothing.

mod cache;
mod changes;
mod feed;
mod report;
mod table;
mod watch;
mod watchers;

pub use cache::{Cache, Cached};
pub use changes::{Changes, Lagged};
pub use feed::feed;
pub use report::report;
pub use table::{Change, Environment, Snapshot, Stored, Table};
pub use watch::{Update, Watch};
