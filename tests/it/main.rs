//! The suite that drives the service from outside, over every protocol and storage.

mod harness;
mod lifecycle;
