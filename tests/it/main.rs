//! The suite that drives the service from outside, over every protocol and storage.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "a test that can't go on fails where it stands, and ends with its tasks"
)]

mod analysis;
mod architecture;
mod cli;
mod connect;
mod convergence;
#[cfg(feature = "faults")]
mod crashes;
mod flagd;
mod gates;
mod grpcurl;
mod harness;
mod lifecycle;
mod listener;
mod ofrep;
mod once;
mod openapi;
mod otlp;
mod outcomes;
mod overload;
mod parity;
mod poisoned;
mod redis;
mod replicas;
mod rest;
mod store;
mod telemetry;
mod traffic;
mod webhooks;
