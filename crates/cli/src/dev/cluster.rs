//! A local cluster: a coordinator and some nodes as separate processes of this binary, on loopback addresses.
//!
//! ```text
//! DIR/cluster.json   which addresses, which nodes
//! DIR/coordinator/   the coordinator's state        DIR/nodes/NAME/  an agent's state
//! DIR/gateways/NAME/ a gateway's folder
//! DIR/config/        contexts for `baton` (BATON_CONFIG_DIR)         DIR/logs/NAME.log
//! ```

use super::address::{AddressBlock, GATEWAYS_MAX, NODES_MAX};
use super::family::Family;
use super::found::{self, CONTEXT, ClusterFile, ClusterGateway, ClusterNode};
use super::role::{Role, RoleNotice, RoleSpec, last_words};
use super::sweep;
use crate::contexts::{Context, Contexts};
use crate::fault::Fault;
use anyhow::Result;
use baton_proto::v1;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// The name of the coordinator among the roles.
const COORDINATOR: &str = "coordinator";
/// From the start of the first process to every node being connected.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// Pause between two questions whether it is.
const READY_POLL: Duration = Duration::from_millis(50);
/// How long workloads are given to end by themselves.
const WORKLOAD_GRACE: Duration = Duration::from_secs(3);
/// How often orphans given to us are reaped.
const REAP_EVERY: Duration = Duration::from_millis(500);
/// Notices kept for a reader that is busy; more are dropped.
const NOTICES_MAX: usize = 256;

/// What cluster to make.
#[derive(Clone, Debug)]
pub(crate) struct ClusterOptions {
    /// How many nodes.
    pub(crate) nodes: u8,
    /// How many gateways.
    pub(crate) gateways: u8,
    /// Keep the state here; `None` makes a folder that is thrown away in the end.
    pub(crate) dir: Option<PathBuf>,
}

/// A running cluster. It must be ended with [`Cluster::stop`]: dropping it kills the roles, but not the workloads.
#[derive(Debug)]
pub(crate) struct Cluster {
    /// Where its state is.
    pub(crate) dir: PathBuf,
    /// Where the coordinator listens.
    pub(crate) coordinator: SocketAddr,
    /// Its nodes, in order.
    pub(crate) nodes: Vec<ClusterNode>,
    /// Its gateways, in order.
    pub(crate) gateways: Vec<ClusterGateway>,
    /// The coordinator first, then the agents in the order of the nodes, then the gateways in theirs.
    pub(crate) roles: Vec<Role>,
    /// What the roles do unasked; taken by whoever shows it.
    pub(crate) notices: mpsc::Receiver<RoleNotice>,
    sender: mpsc::Sender<RoleNotice>,
    family: std::sync::Arc<Family>,
    reaper: Option<tokio::task::JoinHandle<()>>,
    /// Removes the folder when the cluster is dropped, where it is thrown away.
    thrown_away: Option<tempfile::TempDir>,
    _block: AddressBlock,
}

impl Cluster {
    /// Makes the cluster, or starts again the one kept in `options.dir`, and waits until every node is connected
    /// or `interrupt` ends.
    ///
    /// # Errors
    /// When something could not be made or started, or it was interrupted; whatever was started is stopped again.
    pub(crate) async fn start(options: &ClusterOptions, interrupt: impl Future<Output = ()>) -> Result<Self> {
        let mut cluster = Self::lay_out(options)?;
        let up = tokio::select! {
            up = cluster.bring_up() => up,
            () = interrupt => Err(Fault::interrupted().into()),
        };
        match up {
            Ok(()) => Ok(cluster),
            Err(error) => {
                cluster.stop().await?;
                Err(error)
            }
        }
    }

    /// Claims addresses and folders; starts nothing.
    fn lay_out(options: &ClusterOptions) -> Result<Self> {
        if options.nodes == 0 || options.nodes > NODES_MAX {
            return Err(Fault::usage(
                format!("{} nodes cannot be made", options.nodes),
                format!("use 1 to {NODES_MAX}"),
            )
            .into());
        }
        if options.gateways > GATEWAYS_MAX {
            return Err(Fault::usage(
                format!("{} gateways cannot be made", options.gateways),
                format!("use up to {GATEWAYS_MAX}"),
            )
            .into());
        }
        let (dir, thrown_away) = match &options.dir {
            Some(dir) => (found::kept(dir)?, None),
            None => {
                let temporary = found::temporary()?;
                (temporary.path().to_owned(), Some(temporary))
            }
        };
        let file = ClusterFile::load(&dir)?;
        let block = match &file {
            Some(file) => AddressBlock::retake(file.block)?,
            None => AddressBlock::take()?,
        };
        let nodes = (0..options.nodes)
            .map(|index| ClusterNode {
                name: format!("node-{}", index + 1),
                address: block.node(index),
                zone: char::from(b'a' + index % 3).to_string(),
            })
            .collect();
        let gateways = (0..options.gateways)
            .map(|index| ClusterGateway {
                name: format!("gateway-{}", index + 1),
                http: block.gateway(index),
                zone: char::from(b'a' + index % 3).to_string(),
            })
            .collect();
        ClusterFile { block: block.number() }.save(&dir)?;
        let (sender, notices) = mpsc::channel(NOTICES_MAX);
        Ok(Self {
            coordinator: block.coordinator(),
            nodes,
            gateways,
            roles: Vec::new(),
            notices,
            sender,
            family: std::sync::Arc::new(Family::found()?),
            reaper: None,
            dir,
            thrown_away,
            _block: block,
        })
    }

    async fn bring_up(&mut self) -> Result<()> {
        let state = self.dir.join("coordinator");
        found::found_coordinator(&state, &self.config_dir(), self.coordinator).await?;
        let metrics = AddressBlock::metrics(self.coordinator.ip()).to_string();
        self.start_role(COORDINATOR, &[&"coordinator", &"run", &"--dir", &state, &"--metrics", &metrics])?;
        let deadline = Instant::now() + READY_LIMIT;
        let context = self.answering(deadline).await?;
        let mut client = context.connect().await?;
        for node in self.nodes.clone() {
            found::join_node(&mut client, &self.node_dir(&node), &node, self.coordinator).await?;
            let (dir, metrics) = (self.node_dir(&node), AddressBlock::metrics(node.address).to_string());
            self.start_role(&node.name, &[&"agent", &"run", &"--dir", &dir, &"--metrics", &metrics])?;
        }
        for gateway in self.gateways.clone() {
            let dir = self.gateway_dir(&gateway);
            found::join_gateway(&mut client, &dir, &gateway, self.coordinator).await?;
            self.start_role(&gateway.name, &[&"gateway", &"run", &"--dir", &dir])?;
        }
        self.reaper = Some(self.reap());
        self.wait_connected(&context, deadline).await
    }

    /// Starts a role with these arguments, tied to us where the cluster is thrown away.
    fn start_role(&mut self, name: &str, args: &[&dyn AsRef<std::ffi::OsStr>]) -> Result<()> {
        let mut args: Vec<OsString> = args.iter().map(|arg| arg.as_ref().to_owned()).collect();
        if self.thrown_away.is_some() {
            args.extend(["--with-parent".into(), std::process::id().to_string().into()]);
        }
        let spec = RoleSpec { name: name.to_owned(), args, log: self.log(name) };
        self.roles.push(Role::start(spec, self.sender.clone())?);
        Ok(())
    }

    /// The cluster's own context, once the coordinator answers.
    async fn answering(&self, deadline: Instant) -> Result<Context> {
        let context = Contexts::at(self.config_dir()).get(Some(CONTEXT))?;
        loop {
            match context.connect().await {
                Ok(_) => return Ok(context),
                Err(_) if Instant::now() < deadline => tokio::time::sleep(READY_POLL).await,
                Err(error) => return Err(self.with_last_words(error, COORDINATOR)),
            }
        }
    }

    async fn wait_connected(&self, context: &Context, deadline: Instant) -> Result<()> {
        let mut client = context.connect().await?;
        loop {
            let nodes = client.list_nodes(v1::ListNodesRequest {}).await?.into_inner().nodes;
            let name = |status: &v1::NodeStatus| {
                status.node.as_ref().map(|node| node.name.clone()).unwrap_or_default()
            };
            // Nothing is placed on a node that has not reported.
            let there = |node: &&v1::NodeStatus| node.connected && node.reported;
            let connected: BTreeSet<String> = nodes.iter().filter(there).map(name).collect();
            let gateways = client.list_gateways(v1::ListGatewaysRequest {}).await?.into_inner().gateways;
            let serving: BTreeSet<&String> =
                gateways.iter().filter(|gateway| gateway.connected).map(|gateway| &gateway.name).collect();
            let nodes = self.nodes.iter().map(|node| &node.name).filter(|name| !connected.contains(*name));
            let gateways = self.gateways.iter().map(|it| &it.name).filter(|name| !serving.contains(name));
            let Some(missing) = nodes.chain(gateways).next() else {
                return Ok(());
            };
            if Instant::now() >= deadline {
                let error = anyhow::anyhow!("{missing} did not connect within {} s", READY_LIMIT.as_secs());
                return Err(self.with_last_words(error, missing));
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    /// Adds what the role itself said last.
    fn with_last_words(&self, error: anyhow::Error, role: &str) -> anyhow::Error {
        let words = last_words(&self.log(role));
        if words.is_empty() { error } else { error.context(format!("{role} said: {words}")) }
    }

    fn reap(&self) -> tokio::task::JoinHandle<()> {
        let family = self.family.clone();
        let roles: Vec<_> = self.roles.iter().map(Role::watch).collect();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(REAP_EVERY).await;
                // A role that ended this moment is not in the list; its supervisor then finds it already
                // reaped, which it takes for an end like any other.
                let pids = roles.iter().filter_map(|pid| *pid.borrow()).collect();
                family.reap(&pids);
            }
        })
    }

    /// Its own context: whoever started it is its operator.
    ///
    /// # Errors
    /// When its folder was changed by somebody else.
    pub(crate) fn operator(&self) -> Result<Context> {
        Contexts::at(self.config_dir()).get(Some(CONTEXT))
    }

    /// Where `baton` finds this cluster: the value for `BATON_CONFIG_DIR`.
    pub(crate) fn config_dir(&self) -> PathBuf {
        self.dir.join("config")
    }

    /// The log of a role.
    pub(crate) fn log(&self, role: &str) -> PathBuf {
        self.dir.join("logs").join(format!("{role}.log"))
    }

    /// The state of a node's agent.
    pub(crate) fn node_dir(&self, node: &ClusterNode) -> PathBuf {
        self.dir.join("nodes").join(&node.name)
    }

    /// The folder of a gateway.
    pub(crate) fn gateway_dir(&self, gateway: &ClusterGateway) -> PathBuf {
        self.dir.join("gateways").join(&gateway.name)
    }

    /// The process of a gateway, by the gateway's index.
    pub(crate) fn gateway(&self, index: usize) -> &Role {
        &self.roles[1 + self.nodes.len() + index]
    }

    /// The agent of a node, by the node's index.
    pub(crate) fn agent(&self, index: usize) -> &Role {
        &self.roles[index + 1]
    }

    /// Sends SIGKILL to a process of this cluster and waits until it is dead.
    ///
    /// # Errors
    /// When the process is not ours, or does not die.
    pub(crate) async fn kill_and_wait(&self, pid: u32) -> Result<()> {
        Ok(self.family.kill_and_wait(pid).await?)
    }

    /// Ends every role, every shim and every workload of this cluster, and proves that none is left.
    ///
    /// # Errors
    /// Names the processes that could not be ended.
    pub(crate) async fn stop(mut self) -> Result<()> {
        if let Some(reaper) = self.reaper.take() {
            reaper.abort();
        }
        // Agents before the coordinator, so that none sees it go; all agents at once.
        let coordinator = if self.roles.is_empty() { None } else { Some(self.roles.remove(0)) };
        let agents: Vec<_> = self.roles.drain(..).map(|role| tokio::spawn(role.stop())).collect();
        for agent in agents {
            // Stopping a role cannot fail.
            let _ = agent.await;
        }
        if let Some(coordinator) = coordinator {
            coordinator.stop().await;
        }
        let left = self.family.end(WORKLOAD_GRACE).await;
        sweep::remove_control_groups(&self.dir);
        if left.is_empty() {
            return Ok(());
        }
        Err(Fault::new(
            format!("these processes could not be ended: {left:?}"),
            "they hang in the kernel; look at `ps -o pid,stat,wchan,cmd`",
        )
        .into())
    }
}
