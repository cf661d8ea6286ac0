//! `baton dev`: a local cluster of separate processes, kept until Ctrl-C.
//!
//! [`cluster`] makes it and ends it, of [`role`]s that are restarted when they end, on an [`address`] block of
//! its own; [`family`] proves that nothing is left; [`found`] makes folders and certificates.

mod address;
mod cluster;
mod family;
mod found;
mod role;
mod sweep;
mod table;

pub(crate) use cluster::{Cluster, ClusterOptions};
pub(crate) use role::{Role, RoleNotice};
