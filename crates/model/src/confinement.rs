//! What a workload may use and touch: its resource limits and its sandbox.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Resource limits of one instance. What is `None` is not limited by us.
///
/// All but the rlimits need controllers of cgroup v2 (cgroups(7)); a node without them refuses a release that asks.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Limits {
    /// `memory.high`, bytes: above it the instance is slowed and its memory reclaimed.
    pub memory_high: Option<u64>,
    /// `memory.max`, bytes: above it the instance is killed, whole (`memory.oom.group`).
    pub memory_max: Option<u64>,
    /// `cpu.max`, in percent of one processor: 150 is one and a half.
    pub cpu_percent: Option<u32>,
    /// `cpu.weight`, 1 to 10,000; the kernel's default is 100.
    pub cpu_weight: Option<u32>,
    /// `pids.max`: processes and threads.
    pub pids_max: Option<u32>,
    /// `io.weight`, 1 to 10,000; the kernel's default is 100.
    pub io_weight: Option<u32>,
    /// `RLIMIT_NOFILE`, open files; soft and hard.
    pub open_files: Option<u64>,
    /// `RLIMIT_CORE`, bytes of a core dump; soft and hard.
    pub core_bytes: Option<u64>,
}

/// How a workload is set apart from the rest of its node. The default sets nothing apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The user it runs as, by name or number; the agent's own where it is `None`.
    pub user: Option<String>,
    /// The group it runs as, by name or number; the user's primary group where it is `None`.
    pub group: Option<String>,
    /// The capabilities(7) it keeps, such as `CAP_NET_BIND_SERVICE`; all that its user has where it is `None`.
    pub capabilities: Option<BTreeSet<String>>,
    /// No program it executes can gain privileges (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
    /// It sees a `/tmp` and a `/var/tmp` of its own, which end with the run.
    pub private_tmp: bool,
    /// Absolute paths that it can read but not write.
    pub read_only: BTreeSet<String>,
    /// Absolute paths that it sees empty.
    pub hidden: BTreeSet<String>,
    /// Its file mode creation mask, such as 0o027.
    pub umask: Option<u32>,
    /// The folder it starts in: absolute, or inside the artifact; the artifact's top where it is `None`.
    pub working_directory: Option<String>,
    /// Its nice value, -20 to 19.
    pub nice: Option<i32>,
}
