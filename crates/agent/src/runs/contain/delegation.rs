//! Which part of the tree of control groups is the agent's to divide, and with which controllers.
//!
//! cgroup v2 allows processes only in the leaves of a tree whose inner groups hand controllers down (cgroups(7), "no
//! internal processes"), so a tree with limits needs its divider out of the way. There are three such trees:
//!
//! - **Under systemd** it is the group of the unit `baton-workloads.service` beside the agent's own unit. It is not the
//!   agent's own group: systemd puts a restarted agent there, which fails once that group hands controllers down
//!   (systemd 254 has `DelegateSubgroup=` for this; Debian 12 has 252). The unit's only process is moved into a leaf.
//! - An agent that was put into a group called `agent` (by `DelegateSubgroup=agent`, or by itself, below) divides the
//!   group above.
//! - **Elsewhere**, an agent that is alone in its group moves into a leaf `agent` of it.
//!
//! Where none of these is so, the agent's own group is used without controllers: to kill a workload as a whole.

use baton_model::confinement::Controller;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{fs, io};

/// The weight among groups, where the kernel shares a disk by cost (`blk-iocost`) and where the scheduler BFQ does: it
/// depends on the kernel which of them is there, and on the disk which counts.
pub(super) const IO_WEIGHTS: [&str; 2] = ["io.weight", "io.bfq.weight"];

/// The unit whose group is for workloads; see `packaging/systemd/`.
const WORKLOADS: &str = "baton-workloads.service";
/// The leaf of the agent itself.
const AGENT: &str = "agent";
/// The leaf of the process that keeps the workloads' unit alive.
const HOLDER: &str = "holder";
/// Processes moved out of the workloads' unit: it has one.
const MOVED_MAX: usize = 16;

/// The group below which runs get theirs, and whether it may be divided with controllers.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Domain {
    pub(super) path: PathBuf,
    /// The leaf for the processes in `path`, where they may be moved.
    leaf: Option<&'static str>,
}

impl Domain {
    /// Of an agent whose own group is `own`.
    pub(super) fn of(own: &Path) -> Self {
        let above = own.parent().filter(|above| above.join("cgroup.procs").exists());
        let is_unit = own.extension().is_some_and(|kind| kind == "service");
        if let Some(workloads) = above.map(|above| above.join(WORKLOADS)).filter(|_| is_unit)
            && super::may_make_groups(&workloads)
        {
            return Self { path: workloads, leaf: Some(HOLDER) };
        }
        if let Some(above) = above.filter(|above| own.ends_with(AGENT) && super::may_make_groups(above)) {
            return Self { path: above.to_owned(), leaf: Some(AGENT) };
        }
        Self { path: own.to_owned(), leaf: (!is_unit).then_some(AGENT) }
    }

    /// Turns on for the groups below whatever of our controllers is there, and tells what works.
    pub(super) fn controllers(&self) -> BTreeSet<Controller> {
        let available = listed(&self.path.join("cgroup.controllers"));
        if available.is_empty() || !self.is_clear() {
            return listed(&self.path.join("cgroup.subtree_control"));
        }
        for controller in &available {
            // One at a time: one that is refused does not keep the others off.
            if let Err(error) = hand_down(&self.path, [*controller]) {
                tracing::warn!(%error, group = %self.path.display(), %controller, "a controller cannot be handed down");
            }
        }
        self.working()
    }

    /// No process is in the group itself, or none is any more; the top of the hierarchy may have some.
    fn is_clear(&self) -> bool {
        if !self.path.join("cgroup.type").exists() {
            return true;
        }
        let Ok(inside) = super::super::process::read_pids(&self.path.join("cgroup.procs")) else {
            return false;
        };
        let Some(leaf) = self.leaf else { return inside.is_empty() };
        // Others' processes are not ours to move: those of a login session, say.
        let only_ours = leaf == HOLDER || inside.iter().all(|pid| *pid == std::process::id());
        only_ours && inside.len() <= MOVED_MAX && self.clear(leaf, &inside).is_ok()
    }

    fn clear(&self, leaf: &str, inside: &[u32]) -> io::Result<()> {
        if inside.is_empty() {
            return Ok(());
        }
        let leaf = self.path.join(leaf);
        match fs::create_dir(&leaf) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        inside.iter().try_for_each(|pid| fs::write(leaf.join("cgroup.procs"), pid.to_string()))
    }

    /// The controllers whose files a group below really has: `io.weight`, for one, is not in every kernel.
    fn working(&self) -> BTreeSet<Controller> {
        let probe = self.path.join(format!("baton-probe-{}", std::process::id()));
        if fs::create_dir(&probe).is_err() {
            return BTreeSet::new();
        }
        let files = |controller: &Controller| match controller {
            Controller::Memory => ["memory.max"].as_slice(),
            Controller::Cpu => &["cpu.max"],
            Controller::Pids => &["pids.max"],
            Controller::Io => &IO_WEIGHTS,
        };
        let works = |it: &Controller| files(it).iter().any(|file| probe.join(file).exists());
        let works = Controller::ALL.into_iter().filter(works).collect();
        let _ = fs::remove_dir(&probe);
        works
    }
}

/// Has the groups directly below `group` limited by these controllers.
pub(super) fn hand_down(group: &Path, controllers: impl IntoIterator<Item = Controller>) -> io::Result<()> {
    let words: Vec<String> = controllers.into_iter().map(|controller| format!("+{controller}")).collect();
    fs::write(group.join("cgroup.subtree_control"), words.join(" "))
}

/// Those of our controllers that a file lists.
fn listed(file: &Path) -> BTreeSet<Controller> {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|name| name.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_of_its_own_is_never_divided() {
        let domain = Domain::of(Path::new("/no/such/system.slice/baton-agent.service"));
        let path = PathBuf::from("/no/such/system.slice/baton-agent.service");
        assert_eq!(domain, Domain { path, leaf: None });
        let domain = Domain::of(Path::new("/no/such/group"));
        assert_eq!(domain, Domain { path: "/no/such/group".into(), leaf: Some(AGENT) });
    }

    #[test]
    fn only_controllers_that_we_use_are_listed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cgroup.controllers");
        std::fs::write(&file, "cpuset cpu io memory hugetlb pids rdma misc\n").unwrap();
        assert_eq!(listed(&file), Controller::ALL.into());
        assert_eq!(listed(&folder.path().join("gone")), BTreeSet::new());
    }
}
