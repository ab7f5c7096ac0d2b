//! Side-by-side measurements of Delos Deploy against its limits.

fn main() {}
