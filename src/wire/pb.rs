//! The messages, clients and servers compiled from `proto/`, and the descriptor they come from.
//!
//! REST takes and gives these messages too: their serde implementations write protobuf's JSON
//! with the proto's own field names.

use std::sync::LazyLock;

use prost_reflect::DescriptorPool;

pub use generated::*;

pub use super::timestamp::Timestamp;

#[expect(
    clippy::allow_attributes,
    clippy::too_many_lines,
    reason = "generated code"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/delos.deploy.v1.rs"));
    include!(concat!(env!("OUT_DIR"), "/delos.deploy.v1.serde.rs"));
}

/// The encoded `FileDescriptorSet` of the contract, with its comments; for server reflection.
pub const DESCRIPTOR: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));

/// The contract as descriptors that can be walked, with its comments.
pub fn descriptors() -> &'static DescriptorPool {
    static POOL: LazyLock<DescriptorPool> = LazyLock::new(|| {
        DescriptorPool::decode(DESCRIPTOR).expect("the build script wrote a valid descriptor")
    });
    &POOL
}
