//! What other services serve, compiled from `proto/eval` and `proto/prompt`: the clients that ask
//! them, and the servers by which the tests stand in for them.

/// `delos.eval.v1`.
pub mod eval {
    #![expect(
        clippy::allow_attributes,
        clippy::too_many_lines,
        missing_docs,
        reason = "generated code of another service's contract"
    )]
    include!(concat!(env!("OUT_DIR"), "/delos.eval.v1.rs"));
}

/// `delos.prompt.v1`.
pub mod prompt {
    #![expect(
        clippy::allow_attributes,
        missing_docs,
        reason = "generated code of another service's contract"
    )]
    include!(concat!(env!("OUT_DIR"), "/delos.prompt.v1.rs"));
}
