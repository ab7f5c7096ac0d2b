//! flagd's messages, clients and servers, compiled from `proto/flagd/`.

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

/// Evaluation in the server: `flagd.evaluation`.
pub mod evaluation {
    /// `flagd.evaluation.v1`: the Rust and the web provider.
    #[expect(
        clippy::allow_attributes,
        clippy::too_many_lines,
        reason = "generated code"
    )]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/flagd.evaluation.v1.rs"));
    }

    /// `flagd.evaluation.v2`: all other providers of today.
    #[expect(
        clippy::allow_attributes,
        clippy::too_many_lines,
        reason = "generated code"
    )]
    pub mod v2 {
        include!(concat!(env!("OUT_DIR"), "/flagd.evaluation.v2.rs"));
    }
}

/// Evaluation in the provider: `flagd.sync`.
pub mod sync {
    /// `flagd.sync.v1`.
    #[expect(
        clippy::allow_attributes,
        clippy::too_many_lines,
        reason = "generated code"
    )]
    pub mod v1 {
        include!(concat!(env!("OUT_DIR"), "/flagd.sync.v1.rs"));
    }
}

/// The encoded `FileDescriptorSet` of flagd's protocols.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/flagd.bin"));

/// flagd's protocols as descriptors that can be walked.
pub fn descriptors() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        DescriptorPool::decode(DESCRIPTOR).expect("the build script wrote a valid descriptor")
    });
    &POOL
}
