//! Compiles the contract in `proto/`: messages and services with prost and tonic, protobuf's
//! JSON with pbjson, and the descriptor from which reflection and the OpenAPI schemas are read.
//! The protocols of others, below `proto/flagd`, have a descriptor of their own.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const INCLUDE: &str = "proto";
const FILES: [&str; 4] = [
    "deploy/v1/deploy.proto",
    "deploy/v1/audit.proto",
    "deploy/v1/traffic.proto",
    "deploy/v1/telemetry.proto",
];
const FLAGD: [&str; 3] = [
    "flagd/evaluation/v1/evaluation.proto",
    "flagd/evaluation/v2/evaluation.proto",
    "flagd/sync/v1/sync.proto",
];
/// What other services serve, and this one asks.
const ASKED: [&str; 2] = ["eval/v1/eval.proto", "prompt/v1/prompt.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={INCLUDE}");
    let out = PathBuf::from(env::var("OUT_DIR")?);
    let descriptors = protox::compile(FILES, [INCLUDE])?;
    let encoded = descriptors.encode_to_vec();
    fs::write(out.join("descriptor.bin"), &encoded)?;

    // A timestamp of our own, because protobuf's JSON wants `Z` where pbjson's writes `+00:00`.
    let timestamp = (".google.protobuf.Timestamp", "crate::wire::pb::Timestamp");
    tonic_prost_build::configure()
        .extern_path(timestamp.0, timestamp.1)
        .compile_fds(descriptors)?;
    pbjson_build::Builder::new()
        .register_descriptors(&encoded)?
        .extern_path(timestamp.0, timestamp.1)
        .preserve_proto_field_names()
        .emit_fields()
        .build(&[".delos"])?;

    let flagd = protox::compile(FLAGD, [INCLUDE])?;
    fs::write(out.join("flagd.bin"), flagd.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(flagd)?;

    // The servers are for the tests, which stand in for those services.
    tonic_prost_build::configure().compile_fds(protox::compile(ASKED, [INCLUDE])?)?;
    Ok(())
}
