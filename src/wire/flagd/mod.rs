//! flagd's protocols, so that the flagd provider of any OpenFeature SDK can ask for versions:
//! `flagd.evaluation`, where this service decides, and `flagd.sync`, where the provider does.
//!
//! A prompt is a flag, its versions are the flag's values: `flags` knows how, and `context` who asks;
//! the others only speak their protocol.

use std::sync::Arc;

use tonic::Status;

mod connect;
mod context;
mod evaluation;
mod flags;
pub mod pb;
mod sync;

use crate::service::Service;

pub(super) use connect::connect;

/// Every service of flagd's.
#[derive(Debug, Clone)]
pub(super) struct Flagd {
    /// The use cases.
    pub(super) service: Service,
    /// The environment that is meant where a request names none.
    pub(super) default_environment: Arc<str>,
}

/// How a stream ends: never otherwise, because some providers do not connect again after OK or
/// CANCELLED.
fn stopping() -> Status {
    Status::unavailable("the service is stopping; connect again")
}
