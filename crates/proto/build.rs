//! Compiles the `.proto` files without a `protoc` on the machine.

use prost::Message as _;
use std::path::PathBuf;

/// Messages that carry a secret: `baton_proto::convert::configuration` has a `Debug` for them that shows nothing of it.
const NOT_PRINTED: [&str; 2] = [".baton.v1.SecretValue", ".baton.v1.SetSecretRequest"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let files = ["model", "route", "rollout", "agent", "gateway", "operator"]
        .map(|name| format!("baton/v1/{name}.proto"));
    let descriptors = protox::compile(files, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .btree_map(".")
        .bytes(".")
        .skip_debug(NOT_PRINTED)
        .compile_fds(descriptors)?;
    Ok(())
}
