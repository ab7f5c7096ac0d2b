//! Compiles the contract in `proto/`: messages and services with prost and tonic, protobuf's
//! JSON with pbjson, and the descriptor from which reflection and the OpenAPI schemas are read.

use std::{env, error::Error, fs, path::PathBuf};

use prost::Message as _;

const INCLUDE: &str = "proto";
const FILES: [&str; 3] = [
    "deploy/v1/deploy.proto",
    "deploy/v1/audit.proto",
    "deploy/v1/traffic.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed={INCLUDE}");
    let descriptors = protox::compile(FILES, [INCLUDE])?;
    let encoded = descriptors.encode_to_vec();
    fs::write(
        PathBuf::from(env::var("OUT_DIR")?).join("descriptor.bin"),
        &encoded,
    )?;

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
    Ok(())
}
