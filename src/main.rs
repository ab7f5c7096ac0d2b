//! Delos Deploy: decides whether a new version of an LLM prompt reaches users.

fn main() {}
