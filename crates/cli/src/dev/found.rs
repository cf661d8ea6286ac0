//! Founding a local cluster: its folder, its authority, its nodes' certificates.

use super::cluster::ClusterNode;
use crate::fault::Fault;
use anyhow::Result;
use baton_proto::identity::Token;
use baton_proto::v1;
use baton_proto::v1::operator_service_client::OperatorServiceClient;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tonic::transport::Channel;

/// What a kept cluster must find again when it is started anew.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub(super) struct ClusterFile {
    /// The block of addresses it lives in.
    pub(super) block: u8,
}

impl ClusterFile {
    pub(super) fn load(dir: &Path) -> Result<Option<Self>> {
        let path = dir.join("cluster.json");
        match std::fs::read(&path) {
            Ok(bytes) => Ok(Some(serde_json::from_slice(&bytes).map_err(|error| {
                Fault::new(format!("{}: {error}", path.display()), "use another --dir, or remove this one")
            })?)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unusable(&path, &error).into()),
        }
    }

    pub(super) fn save(self, dir: &Path) -> Result<()> {
        let path = dir.join("cluster.json");
        std::fs::write(&path, serde_json::to_vec(&self)?).map_err(|error| unusable(&path, &error))?;
        Ok(())
    }
}

/// The folder of a cluster that is kept.
pub(super) fn kept(dir: &Path) -> Result<PathBuf> {
    let make = || {
        std::fs::create_dir_all(dir.join("logs"))?;
        dir.canonicalize()
    };
    Ok(make().map_err(|error| unusable(dir, &error))?)
}

/// The folder of a cluster that is thrown away.
pub(super) fn temporary() -> Result<tempfile::TempDir> {
    let parent = std::env::temp_dir();
    let make = || {
        let dir = tempfile::Builder::new().prefix("baton-dev-").tempdir()?;
        std::fs::create_dir(dir.path().join("logs"))?;
        Ok(dir)
    };
    Ok(make().map_err(|error| unusable(&parent, &error))?)
}

fn unusable(path: &Path, error: &std::io::Error) -> Fault {
    Fault::new(format!("{}: {error}", path.display()), "make room there, or set TMPDIR or --dir to a folder that can be written")
}

