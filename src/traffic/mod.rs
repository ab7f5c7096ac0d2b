//! The traffic table in memory: what "which version do I serve this user?" is answered from,
//! without the storage.
//!
//! It is fed by this replica's own writes at once, and by a poll that finds what others have
//! written; a notification from the database only makes the next poll come sooner. Revisions of an
//! environment become visible in their order, so that a poll for everything after the last one
//! misses nothing.

mod feed;
mod table;
mod watch;

pub use feed::feed;
pub use table::{Change, Environment, Snapshot, Table};
pub use watch::{Update, Watch};
