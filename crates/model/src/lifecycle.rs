//! How the processes of a service live beyond start, check and stop: jobs that end, order, notification, reload, hooks.

use crate::id::ServiceName;
use crate::spec::StopSignal;
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a service's processes do beyond the plain start, check and stop. The default does nothing more.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// Whether its process serves, or does one thing and ends.
    pub kind: RunKind,
    /// Services that must be ready before an instance of this one is first started.
    pub after: BTreeMap<ServiceName, Near>,
    /// What the workload tells its supervisor, as in sd_notify(3).
    pub notify: Notify,
    /// How the workload takes in a new configuration without a restart, where it can.
    pub reload: Option<Reload>,
    /// Commands around its life.
    pub hooks: Hooks,
}

/// Whether a service's process serves, or does one thing and ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RunKind {
    /// It runs until it is told to stop; its end is a crash.
    #[default]
    Service,
    /// It runs once per release and instance; exit code 0 makes the instance ready, any other end is a failure.
    OneShot,
}

/// Where a service that another one waits for must be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Near {
    /// On the same node; the node's agent sees to it by itself.
    SameNode,
    /// On any node, as many as its `min_available` asks and at least one; the coordinator sees to it.
    Anywhere,
}

/// What the workload tells its supervisor through `NOTIFY_SOCKET`, as in sd_notify(3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notify {
    /// It sends `READY=1`, and does not count as started before.
    pub ready: bool,
    /// It sends `WATCHDOG=1` at least this often, or is restarted; it is told by `WATCHDOG_USEC`.
    pub watchdog: Option<Millis>,
}

/// How a workload takes in a new configuration without a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Reload {
    /// A signal to the workload's main process.
    Signal {
        /// Which.
        signal: StopSignal,
    },
    /// A command in the workload's folder and environment; exit code 0 says that it is done.
    Command {
        /// Program and arguments, as in [`crate::spec::ServiceSpec::exec`].
        command: Vec<String>,
        /// A command that takes longer has failed.
        timeout: Millis,
    },
}

/// Commands around a workload's life, in its folder, environment and confinement.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// Before each start, restarts included; a failure counts as a crash of the workload.
    pub before_start: Option<Hook>,
    /// Once the instance is ready, after each start.
    pub after_ready: Option<Hook>,
    /// Before a workload that runs is signalled to stop.
    pub before_stop: Option<Hook>,
    /// After each end of the workload, however it came.
    pub after_stop: Option<Hook>,
}

/// One command around a workload's life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hook {
    /// Program and arguments, as in [`crate::spec::ServiceSpec::exec`].
    pub command: Vec<String>,
    /// A command that takes longer is killed, and has failed.
    pub timeout: Millis,
}
