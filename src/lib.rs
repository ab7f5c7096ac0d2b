//! Delos Deploy.

pub mod domain;
