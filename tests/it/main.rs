//! The suite that drives the service from outside.

fn main() {}
