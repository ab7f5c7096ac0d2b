//! The protocols: gRPC, gRPC-web and REST over one contract; OFREP, which is OpenFeature's; and
//! OTLP, which is OpenTelemetry's.
//!
//! A call is three lines on each: convert, ask the service, convert back. `convert` knows how a
//! message and a value of the domain correspond, `error` what a failure is in each protocol, `edge`
//! what every request goes through, whatever its protocol. `flagd` speaks protocols that are not ours.

mod bounds;
mod caller;
mod convert;
mod cors;
mod edge;
mod error;
mod etag;
pub mod flagd;
mod grpc;
mod health;
mod ofrep;
mod once;
pub mod openapi;
mod otlp;
mod paths;
pub mod pb;
mod rest;
mod router;
pub mod schema;
mod sse;
mod timestamp;

pub use cors::Origins;
pub use edge::Beyond;
pub use health::Readiness;
pub use router::{Routes, Served, router};
