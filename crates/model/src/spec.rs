//! What a service is: what to run, where, how many, how to check it, how to roll it out.
//!
//! Defaults are in [`crate::file`], where a person leaves a field out; here every field has its value.

pub use crate::amount::Amount;
pub use crate::signal::StopSignal;

use crate::configuration::Configuration;
use crate::confinement::{Limits, Sandbox};
use crate::id::{PortName, ServiceName};
use crate::lifecycle::Lifecycle;
use crate::rollout::RolloutPolicy;
use crate::route::RouteSpec;
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;

/// The specification of a service, complete and checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceSpec {
    /// Its name.
    pub name: ServiceName,
    /// Program and arguments. A program without a leading `/` is a path inside the artifact; `${PORT_<NAME>}`,
    /// `${NODE_NAME}`, `${NODE_ADDRESS}`, `${INSTANCE}` and `${VERSION}` are replaced.
    pub exec: Vec<String>,
    /// Environment of the workload; values may use the same `${...}`.
    pub env: BTreeMap<String, String>,
    /// Its ports, by name.
    pub ports: BTreeMap<PortName, Port>,
    /// How its health is told.
    pub checks: Checks,
    /// How it is stopped.
    pub stop: StopPolicy,
    /// How it is restarted.
    pub restart: RestartPolicy,
    /// Where and how many.
    pub placement: Placement,
    /// Ready instances that our own actions never go below (invariant `capacity-floor`).
    pub min_available: Amount,
    /// How a new release replaces the old one.
    pub rollout: RolloutPolicy,
    /// Bounds of its logs.
    pub logs: LogPolicy,
    /// Jobs, order, notification, reload and hooks.
    #[serde(default)]
    pub lifecycle: Lifecycle,
    /// What it may use.
    #[serde(default)]
    pub limits: Limits,
    /// How it is set apart from the rest of its node.
    #[serde(default)]
    pub sandbox: Sandbox,
    /// Templates and secrets.
    #[serde(default)]
    pub configuration: Configuration,
    /// How gateways bring requests to it; without one, clients come to its ports themselves.
    #[serde(default)]
    pub route: Option<RouteSpec>,
}

/// A port of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Who binds it, and how.
    pub kind: PortKind,
}

/// Who binds a port, and how.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum PortKind {
    /// The shim holds the listening TCP socket and hands it over as systemd does (`LISTEN_FDS`, sd_listen_fds(3)).
    Socket {
        /// TCP port; the address is the node's.
        port: u16,
    },
    /// The same, with a bound UDP socket.
    Udp {
        /// UDP port; the address is the node's.
        port: u16,
    },
    /// The same, with a listening Unix stream socket. Its path is given as `SOCKET_<NAME>`.
    Unix {
        /// Absolute path of the socket on the node.
        path: String,
        /// Permission bits of the socket, such as 0o660; its owner is the workload's user.
        mode: u32,
    },
    /// The agent picks a free port for each run and gives it as `PORT_<NAME>`.
    Dynamic,
    /// The workload binds this port itself; a swap must stop the old process first.
    Fixed {
        /// TCP port.
        port: u16,
    },
}

/// A place on a node that only one instance can have.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Claim {
    /// A TCP port.
    Tcp(u16),
    /// A UDP port; the TCP port of the same number is another place.
    Udp(u16),
    /// The path of a Unix socket.
    Path(String),
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(port) => write!(f, "port {port}"),
            Self::Udp(port) => write!(f, "UDP port {port}"),
            Self::Path(path) => f.write_str(path),
        }
    }
}

impl PortKind {
    /// The place on its node that it needs for itself; a dynamic port takes any.
    #[must_use]
    pub fn claim(&self) -> Option<Claim> {
        match self {
            Self::Socket { port } | Self::Fixed { port } => Some(Claim::Tcp(*port)),
            Self::Udp { port } => Some(Claim::Udp(*port)),
            Self::Unix { path, .. } => Some(Claim::Path(path.clone())),
            Self::Dynamic => None,
        }
    }

    /// Whether a swap must end the old process before it can start the new one.
    #[must_use]
    pub fn is_exclusive(&self) -> bool {
        match self {
            Self::Fixed { .. } => true,
            Self::Socket { .. } | Self::Udp { .. } | Self::Unix { .. } | Self::Dynamic => false,
        }
    }
}

impl Port {
    /// The variable in which a workload finds its port `name`: `PORT_<NAME>` with the number or, for a Unix socket,
    /// `SOCKET_<NAME>` with the path; the name in upper case, with `_` for `-`.
    #[must_use]
    pub fn variable(&self, name: &PortName) -> String {
        let prefix = match self.kind {
            PortKind::Unix { .. } => "SOCKET",
            PortKind::Socket { .. } | PortKind::Udp { .. } | PortKind::Dynamic | PortKind::Fixed { .. } => {
                "PORT"
            }
        };
        format!("{prefix}_{}", name.as_str().to_ascii_uppercase().replace('-', "_"))
    }
}

/// The three checks, as Kubernetes' probes divide them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checks {
    /// Must pass once before the other two begin; gives slow starters time.
    pub startup: Option<Check>,
    /// Says whether the instance may be used.
    pub readiness: Option<Check>,
    /// When it fails, the workload is restarted.
    pub liveness: Option<Check>,
}

/// One check: what is asked, how often, and how many answers count.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// What is asked.
    pub probe: Probe,
    /// From the start of one attempt to the start of the next.
    pub interval: Millis,
    /// An attempt that takes longer has failed.
    pub timeout: Millis,
    /// Successes in a row that make it pass.
    pub rise: u32,
    /// Failures in a row that make it fail.
    pub fall: u32,
}

/// What a check asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Probe {
    /// Runs a command in the workload's folder and environment; exit code 0 passes.
    Exec {
        /// Program and arguments, as in [`ServiceSpec::exec`].
        command: Vec<String>,
    },
    /// `GET path` on the port; a status from 200 to 399 passes.
    Http {
        /// The port asked.
        port: PortName,
        /// Path and query, starting with `/`.
        path: String,
        /// Only this status passes, where set.
        status: Option<u16>,
    },
    /// A TCP connection that is accepted passes.
    Tcp {
        /// The port asked.
        port: PortName,
    },
    /// `grpc.health.v1.Health/Check`; `SERVING` passes.
    Grpc {
        /// The port asked.
        port: PortName,
        /// The gRPC service name sent; empty asks for the whole server.
        service: String,
    },
}

/// The stop sequence: out of new connections, drain, signal, wait, kill.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StopPolicy {
    /// The signal that asks the workload to stop.
    pub signal: StopSignal,
    /// From that signal to the kill.
    pub timeout: Millis,
    /// In a swap, the longest wait for the old process's open connections to end before it is signalled.
    pub drain: Millis,
}

/// When and how fast a workload that ended is started again.
///
/// The first restart is at once; then `base` doubling to `max`, with full jitter
/// (Brooker, "Exponential Backoff and Jitter", AWS 2015); reset after `reset_after` of health.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RestartPolicy {
    /// Which ends are followed by a restart.
    pub mode: RestartMode,
    /// First backoff after the immediate restart.
    pub base: Millis,
    /// Longest backoff.
    pub max: Millis,
    /// A run this long forgets earlier crashes.
    pub reset_after: Millis,
    /// Crashes in a row after which the instance is said to be in a crash loop (it is still retried, slowly).
    pub crash_loop_after: u32,
}

/// Which ends of a workload are followed by a restart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RestartMode {
    /// Every end.
    Always,
    /// A non-zero exit code or a signal.
    OnFailure,
    /// None: it stays down, and is reported as failed.
    Never,
}

/// Where instances go, and how many there are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Placement {
    /// How many.
    pub count: Count,
    /// Labels a node must have, all of them.
    pub require: BTreeMap<String, String>,
    /// Spread evenly over the values of this label, where given (`node` spreads over nodes, and is the default).
    pub spread: Option<String>,
    /// A node silent for longer than this has lost its instances; they are placed elsewhere.
    pub lost_after: Millis,
}

/// How many instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "replicas")]
pub enum Count {
    /// This many in all.
    Replicas(u32),
    /// One on each eligible node.
    PerNode,
}

/// Bounds of the logs of one instance, and where else its lines go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPolicy {
    /// A file that has reached this size is rotated.
    pub max_bytes: u64,
    /// Files kept, the current one included.
    pub keep: u32,
    /// Each line also goes to the system's journal of its node.
    #[serde(default)]
    pub journald: bool,
}
