//! Founding a local cluster: its folder, its authority, its nodes' certificates.

use super::address::AddressBlock;
use super::sweep;
use crate::contexts::Contexts;
use crate::fault::Fault;
use anyhow::Result;
use baton_coordinator::InitOptions;
use baton_proto::identity::Role;
use baton_proto::v1;
use baton_proto::v1::operator_service_client::OperatorServiceClient;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use tonic::transport::Channel;

/// The context that is made for the cluster, and the cluster's name.
pub(super) const CONTEXT: &str = "dev";
/// A node's token is used at once.
const TOKEN_TTL_S: u64 = 60;

/// A node of the cluster.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct ClusterNode {
    /// Its name: `node-1`, ...
    pub(crate) name: String,
    /// Where its services are reached.
    pub(crate) address: IpAddr,
    /// Its label `zone`.
    pub(crate) zone: String,
}

/// A gateway of the cluster.
#[derive(Clone, Debug, serde::Serialize)]
pub(crate) struct ClusterGateway {
    /// Its name: `gateway-1`, ...
    pub(crate) name: String,
    /// Where it listens for HTTP.
    pub(crate) http: SocketAddr,
    /// The zone it is in.
    pub(crate) zone: String,
}

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

/// The folder of a cluster that is thrown away; what earlier ones left is cleared away first.
pub(super) fn temporary() -> Result<tempfile::TempDir> {
    let parent = std::env::temp_dir();
    for left in sweep::sweep(&parent) {
        eprintln!("cleared away what a killed cluster had left in {}", left.display());
    }
    let make = || {
        let dir = tempfile::Builder::new().prefix(sweep::PREFIX).tempdir_in(parent.canonicalize()?)?;
        sweep::own(dir.path())?;
        std::fs::create_dir(dir.path().join("logs"))?;
        Ok(dir)
    };
    Ok(make().map_err(|error| unusable(&parent, &error))?)
}

fn unusable(path: &Path, error: &std::io::Error) -> Fault {
    Fault::new(
        format!("{}: {error}", path.display()),
        "make room there, or set TMPDIR or --dir to a folder that can be written",
    )
}

/// Makes the coordinator's state and the operator's context, where they are not there yet.
pub(super) async fn found_coordinator(dir: &Path, config: &Path, listen: SocketAddr) -> Result<()> {
    let contexts = Contexts::at(config);
    if contexts.get(Some(CONTEXT)).is_ok() {
        return Ok(());
    }
    // What was begun and not finished is of no use to anyone.
    match std::fs::remove_dir_all(dir) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(unusable(dir, &error).into());
        }
        Ok(()) | Err(_) => {}
    }
    let options = InitOptions {
        dir: dir.to_owned(),
        cluster: CONTEXT.to_owned(),
        listen,
        operator: CONTEXT.to_owned(),
        operator_dir: Some(contexts.folder(CONTEXT)),
    };
    baton_coordinator::init(options).await?;
    contexts.put(CONTEXT, &listen.to_string())?;
    contexts.choose(CONTEXT)
}

/// Joins a node with a token of its own, where its folder holds no node yet.
pub(super) async fn join_node(
    client: &mut OperatorServiceClient<Channel>,
    dir: &Path,
    node: &ClusterNode,
    coordinator: SocketAddr,
) -> Result<()> {
    if dir.join("agent.json").exists() {
        return Ok(());
    }
    let request = v1::CreateTokenRequest {
        role: Role::Node.word().to_owned(),
        name: Some(node.name.clone()),
        ttl_s: TOKEN_TTL_S,
    };
    let token = client.create_token(request).await?.into_inner().token;
    baton_agent::join(baton_agent::JoinOptions {
        dir: dir.to_owned(),
        coordinator: coordinator.to_string(),
        other_coordinators: Vec::new(),
        token,
        name: node.name.parse()?,
        address: node.address,
        labels: [("zone".to_owned(), node.zone.clone())].into(),
        force: true,
    })
    .await?;
    Ok(())
}

/// Joins a gateway with a token of its own, where its folder holds none yet, and writes its configuration.
pub(super) async fn join_gateway(
    client: &mut OperatorServiceClient<Channel>,
    dir: &Path,
    gateway: &ClusterGateway,
    coordinator: SocketAddr,
) -> Result<()> {
    if !dir.join("gateway.json").exists() {
        let request = v1::CreateTokenRequest {
            role: Role::Gateway.word().to_owned(),
            name: Some(gateway.name.clone()),
            ttl_s: TOKEN_TTL_S,
        };
        let token = client.create_token(request).await?.into_inner().token;
        baton_gateway::control::join(baton_gateway::control::JoinOptions {
            dir: dir.to_owned(),
            coordinators: vec![coordinator.to_string()],
            token,
            name: gateway.name.parse()?,
            force: true,
        })
        .await?;
    }
    let ClusterGateway { http, zone, .. } = gateway;
    let (ip, metrics) = (http.ip(), AddressBlock::metrics(http.ip()));
    let text = format!("http = [\"{http}\"]\ntcp = \"{ip}\"\nzone = \"{zone}\"\nmetrics = \"{metrics}\"\n");
    let path = dir.join("gateway.toml");
    std::fs::write(&path, text).map_err(|error| unusable(&path, &error))?;
    Ok(())
}
