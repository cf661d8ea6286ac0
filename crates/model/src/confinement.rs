//! What a workload may use and touch: its resource limits and its sandbox.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

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

impl Limits {
    /// The controllers of cgroup v2 that these limits need, each with the first limit that needs it, as both are
    /// written: the controller as in `cgroup.controllers`, the limit as in a service file.
    #[must_use]
    pub fn controllers(&self) -> Vec<(Controller, &'static str)> {
        let asked = [
            (Controller::Memory, "memory_max", self.memory_max.is_some()),
            (Controller::Memory, "memory_high", self.memory_high.is_some()),
            (Controller::Cpu, "cpu", self.cpu_percent.is_some()),
            (Controller::Cpu, "cpu_weight", self.cpu_weight.is_some()),
            (Controller::Pids, "pids_max", self.pids_max.is_some()),
            (Controller::Io, "io_weight", self.io_weight.is_some()),
        ];
        let mut needed: Vec<(Controller, &'static str)> = Vec::new();
        for (controller, limit, is_asked) in asked {
            if is_asked && needed.iter().all(|(already, _)| *already != controller) {
                needed.push((controller, limit));
            }
        }
        needed
    }
}

/// The controllers of cgroup v2 that our limits use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Controller {
    /// `memory.high`, `memory.max`.
    Memory,
    /// `cpu.max`, `cpu.weight`.
    Cpu,
    /// `pids.max`.
    Pids,
    /// `io.weight`.
    Io,
}

impl Controller {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Memory, Self::Cpu, Self::Pids, Self::Io];

    /// The name, as in `cgroup.controllers`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Cpu => "cpu",
            Self::Pids => "pids",
            Self::Io => "io",
        }
    }
}

/// No limit of ours uses a controller of this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownController(String);

impl fmt::Display for UnknownController {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` is not one of memory, cpu, pids and io", self.0)
    }
}

impl std::error::Error for UnknownController {}

impl FromStr for Controller {
    type Err = UnknownController;

    fn from_str(name: &str) -> Result<Self, UnknownController> {
        let found = Self::ALL.into_iter().find(|controller| controller.name() == name);
        found.ok_or_else(|| UnknownController(name.to_owned()))
    }
}

impl fmt::Display for Controller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a workload is set apart from the rest of its node. The default sets nothing apart.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sandbox {
    /// The user it runs as, by name or number; the agent's own where it is `None`.
    pub user: Option<String>,
    /// The group it runs as, by name or number; the user's primary group where it is `None`.
    pub group: Option<String>,
    /// The capabilities(7) it keeps, also across an execve(2); all that its user has where it is `None`.
    pub capabilities: Option<BTreeSet<Capability>>,
    /// No program it executes can gain privileges (`PR_SET_NO_NEW_PRIVS`).
    pub no_new_privileges: bool,
    /// It sees a `/tmp` and a `/var/tmp` of its own, which end with the run.
    pub private_tmp: bool,
    /// Absolute paths that it can read but not write, with everything mounted below them; its own home stays
    /// writable.
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

impl Sandbox {
    /// The first field that needs a mount namespace of the workload's own, if any does.
    #[must_use]
    pub fn needs_mounts(&self) -> Option<&'static str> {
        if self.private_tmp {
            return Some("private_tmp");
        }
        if !self.read_only.is_empty() {
            return Some("read_only");
        }
        (!self.hidden.is_empty()).then_some("hidden")
    }
}

/// One of Linux's capabilities(7), by its number there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Capability(u8);

impl Capability {
    /// Their names; the place is the number.
    pub const NAMES: [&str; 41] = [
        "CAP_CHOWN",
        "CAP_DAC_OVERRIDE",
        "CAP_DAC_READ_SEARCH",
        "CAP_FOWNER",
        "CAP_FSETID",
        "CAP_KILL",
        "CAP_SETGID",
        "CAP_SETUID",
        "CAP_SETPCAP",
        "CAP_LINUX_IMMUTABLE",
        "CAP_NET_BIND_SERVICE",
        "CAP_NET_BROADCAST",
        "CAP_NET_ADMIN",
        "CAP_NET_RAW",
        "CAP_IPC_LOCK",
        "CAP_IPC_OWNER",
        "CAP_SYS_MODULE",
        "CAP_SYS_RAWIO",
        "CAP_SYS_CHROOT",
        "CAP_SYS_PTRACE",
        "CAP_SYS_PACCT",
        "CAP_SYS_ADMIN",
        "CAP_SYS_BOOT",
        "CAP_SYS_NICE",
        "CAP_SYS_RESOURCE",
        "CAP_SYS_TIME",
        "CAP_SYS_TTY_CONFIG",
        "CAP_MKNOD",
        "CAP_LEASE",
        "CAP_AUDIT_WRITE",
        "CAP_AUDIT_CONTROL",
        "CAP_SETFCAP",
        "CAP_MAC_OVERRIDE",
        "CAP_MAC_ADMIN",
        "CAP_SYSLOG",
        "CAP_WAKE_ALARM",
        "CAP_BLOCK_SUSPEND",
        "CAP_AUDIT_READ",
        "CAP_PERFMON",
        "CAP_BPF",
        "CAP_CHECKPOINT_RESTORE",
    ];

    /// Its name, such as `CAP_NET_BIND_SERVICE`.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[usize::from(self.0)]
    }

    /// Its number, as the kernel counts them: the place of its bit in a capability set.
    #[must_use]
    pub const fn number(self) -> u8 {
        self.0
    }
}

/// No capability has this name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownCapability(String);

impl fmt::Display for UnknownCapability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a capability; capabilities(7) lists them, such as CAP_NET_BIND_SERVICE",
            self.0
        )
    }
}

impl std::error::Error for UnknownCapability {}

impl FromStr for Capability {
    type Err = UnknownCapability;

    fn from_str(name: &str) -> Result<Self, UnknownCapability> {
        let place = Self::NAMES.iter().position(|known| *known == name);
        place
            .and_then(|place| u8::try_from(place).ok())
            .map(Self)
            .ok_or_else(|| UnknownCapability(name.to_owned()))
    }
}

impl TryFrom<String> for Capability {
    type Error = UnknownCapability;

    fn try_from(name: String) -> Result<Self, UnknownCapability> {
        name.parse()
    }
}

impl From<Capability> for String {
    fn from(capability: Capability) -> Self {
        capability.name().to_owned()
    }
}

impl fmt::Display for Capability {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a node can honour of limits and sandboxes, as its agent found it when it started.
///
/// What is `false` here is refused there, before anything of the running release is touched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ability {
    /// The controllers of cgroup v2 that runs can be limited with.
    pub controllers: BTreeSet<Controller>,
    /// A workload can run as another user or group (`CAP_SETUID`, `CAP_SETGID`).
    pub users: bool,
    /// A workload's capabilities can be taken or kept (`CAP_SETPCAP`).
    pub capabilities: bool,
    /// A workload can have mounts of its own: private `/tmp`, read-only and hidden paths (`CAP_SYS_ADMIN`).
    pub mounts: bool,
    /// The most open files that a workload can be allowed.
    pub open_files_max: u64,
    /// The lowest nice value that a workload can have.
    pub nice_min: i32,
    /// A workload's lines can go to the system's journal (`logs.journald`).
    #[serde(default)]
    pub journal: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn capabilities_have_the_kernels_numbers() {
        for (name, number) in [
            ("CAP_CHOWN", 0),
            ("CAP_NET_BIND_SERVICE", 10),
            ("CAP_SYS_ADMIN", 21),
            ("CAP_SYS_RESOURCE", 24),
            ("CAP_CHECKPOINT_RESTORE", 40),
        ] {
            let capability: Capability = name.parse().unwrap();
            assert_eq!((capability.number(), capability.name()), (number, name));
        }
        assert!("cap_chown".parse::<Capability>().is_err());
    }

    #[test]
    fn each_controller_is_asked_for_once() {
        let limits = Limits {
            memory_high: Some(1),
            memory_max: Some(2),
            pids_max: Some(3),
            open_files: Some(4),
            ..Limits::default()
        };
        assert_eq!(
            limits.controllers(),
            [(Controller::Memory, "memory_max"), (Controller::Pids, "pids_max")]
        );
        assert_eq!(Limits { core_bytes: Some(0), ..Limits::default() }.controllers(), []);
    }
}
