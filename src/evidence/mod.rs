//! The sources of evidence: clients of the services that know what this one decides by.

mod ask;
mod eval;
pub mod pb;
mod prompt;
pub mod webhook;

pub use ask::NoAnswer;
pub use eval::{Eval, Look, Results, Wanted};
pub use prompt::{Prompts, Version};
