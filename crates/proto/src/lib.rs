//! The wire: `.proto` files, the types generated from them, and their conversions to and from `baton-model`.
//!
//! Every model type that travels has `From<Model> for v1::Wire` and `TryFrom<v1::Wire> for Model`; what comes
//! from the wire is parsed here once and never again.

pub mod convert;
pub mod identity;
pub mod reconnect;

pub mod v1 {
    //! Generated from `proto/baton/v1`.
    #![allow(missing_docs, unreachable_pub, clippy::all)]
    tonic::include_proto!("baton.v1");
}

/// The descriptors of every `.proto` file, for gRPC reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));
