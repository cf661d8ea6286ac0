//! Control groups: one per run where the agent may make them, none where it may not.
//!
//! Only groups below one that is the agent's to divide are made (`delegation` finds it), and only groups made here are
//! removed. Nothing is mounted. The groups serve to kill a workload as a whole (`cgroup.kill`, or on older kernels
//! `cgroup.freeze` and signals), to list it, and where the tree has controllers, to limit it (`limit`).

mod delegation;
mod limit;

use crate::shim::freeze;
use baton_model::confinement::{Controller, Limits};
use delegation::Domain;
use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io};

/// Waits for an emptied group to become removable, at most this often and this long each.
const REMOVE_ATTEMPTS: u32 = 50;
const REMOVE_PAUSE: Duration = Duration::from_millis(10);

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
    /// The group below which the runs' are made.
    domain: Option<PathBuf>,
    controllers: BTreeSet<Controller>,
}

impl Containment {
    /// Finds what there is, by trying: makes a group and removes it, and turns controllers on for the groups below,
    /// where that may be; the agent may be moved into a group of its own for it. Never fails.
    #[must_use]
    pub fn detect() -> Self {
        let (Ok(groups), Ok(mounts)) =
            (fs::read_to_string("/proc/self/cgroup"), fs::read_to_string("/proc/self/mountinfo"))
        else {
            return Self::process_group();
        };
        match own_group(&groups, &mounts) {
            Some((kind, own)) if may_make_groups(&own) => {
                let domain = Domain::of(&own);
                Self { kind, controllers: domain.controllers(), domain: Some(domain.path) }
            }
            Some(_) | None => Self::process_group(),
        }
    }

    /// Uses no control groups.
    #[must_use]
    pub fn process_group() -> Self {
        Self { kind: ContainmentKind::ProcessGroup, domain: None, controllers: BTreeSet::new() }
    }

    /// What this is.
    #[must_use]
    pub fn kind(&self) -> ContainmentKind {
        self.kind
    }

    /// The controllers that runs can be limited with.
    #[must_use]
    pub fn controllers(&self) -> &BTreeSet<Controller> {
        &self.controllers
    }

    /// The group of a run, not made yet: `<domain>/baton-<name>`.
    pub(super) fn group(&self, name: &str) -> Option<Group> {
        Some(Group { path: self.domain.as_ref()?.join(format!("baton-{name}")) })
    }
}

/// The group of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) path: PathBuf,
}

impl Group {
    /// Makes it, with `work` in it for the workload, limited, and `shim` for the shim. Gives it where it is there, and
    /// `None`, and nothing is left, where it cannot be and no limit depends on it.
    ///
    /// # Errors
    /// It cannot be made as these limits need it; nothing is left.
    pub(super) fn make(self, limits: &Limits) -> io::Result<Option<Self>> {
        let made = fs::create_dir(&self.path)
            .and_then(|()| fs::create_dir(self.work()))
            .and_then(|()| fs::create_dir(self.path.join("shim")))
            .and_then(|()| limit::limit(&self.path, &self.work(), limits));
        let Err(error) = made else { return Ok(Some(self)) };
        let _ = self.try_remove();
        if limit::needs_group(limits) {
            return Err(error);
        }
        tracing::warn!(%error, path = %self.path.display(), "no control group for a run");
        Ok(None)
    }

    /// Where the limits hold that these need, if any of them is a control group's.
    pub(super) fn limiting(&self, limits: &Limits) -> Option<PathBuf> {
        limit::needs_group(limits).then(|| self.work())
    }

    /// The group of the workload's processes.
    pub(super) fn work(&self) -> PathBuf {
        self.path.join("work")
    }

    /// Moves the shim into its own leaf. This may take many milliseconds in the kernel.
    pub(super) fn take_shim(&self, pid: u32) -> io::Result<()> {
        fs::write(self.path.join("shim/cgroup.procs"), pid.to_string())
    }

    /// Kills all of the workload.
    pub(super) fn kill(&self) -> io::Result<()> {
        let group = fs::File::open(self.work())?;
        if freeze::write(group.as_fd(), c"cgroup.kill", b"1") || freeze::kill(group.as_fd()) {
            return Ok(());
        }
        Err(io::Error::last_os_error())
    }

    /// The processes of the workload, sub-groups it made included.
    pub(super) fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        let mut next = vec![self.work()];
        while let Some(directory) = next.pop() {
            pids.extend(super::process::read_pids(&directory.join("cgroup.procs"))?);
            next.extend(subgroups(&directory));
        }
        Ok(pids)
    }

    /// Removes it with its sub-groups, once it is empty.
    pub(super) async fn remove(&self) -> io::Result<()> {
        for _ in 0..REMOVE_ATTEMPTS {
            match self.try_remove() {
                Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                    tokio::time::sleep(REMOVE_PAUSE).await
                }
                result => return result,
            }
        }
        self.try_remove()
    }

    /// Removes it if no process is in it or below: a shim that lives may start its workload again.
    pub(super) fn remove_if_empty(&self) {
        let events = fs::read_to_string(self.path.join("cgroup.events")).unwrap_or_default();
        if events.lines().any(|line| line == "populated 0") {
            let _ = self.try_remove();
        }
    }

    fn try_remove(&self) -> io::Result<()> {
        remove_tree(&self.path)
    }
}

fn subgroups(directory: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(directory) else { return Vec::new() };
    entries
        .filter_map(Result::ok)
        .filter(|e| e.file_type().is_ok_and(|t| t.is_dir()))
        .map(|e| e.path())
        .collect()
}

fn remove_tree(directory: &Path) -> io::Result<()> {
    for sub in subgroups(directory) {
        remove_tree(&sub)?;
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// The agent's own group in the v2 hierarchy, from the texts of `/proc/self/cgroup` and `/proc/self/mountinfo`.
fn own_group(groups: &str, mounts: &str) -> Option<(ContainmentKind, PathBuf)> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let hybrid = groups.lines().any(|line| !line.starts_with("0::"));
    let mount = mounts.lines().find_map(|line| {
        let (fields, rest) = line.split_once(" - ")?;
        let mut fields = fields.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        (rest.split(' ').next()? == "cgroup2").then_some((root, point))
    });
    let (root, point) = mount?;
    // In a container the mount may show only a part of the hierarchy.
    let relative = Path::new(own).strip_prefix(root).ok()?;
    let kind = if hybrid { ContainmentKind::Cgroup2Hybrid } else { ContainmentKind::Cgroup2 };
    Some((kind, Path::new(point).join(relative)))
}

fn may_make_groups(own: &Path) -> bool {
    let probe = own.join(format!("baton-probe-{}", std::process::id()));
    if fs::create_dir(&probe).is_err() {
        return false;
    }
    // cgroup.kill came with Linux 5.14, its stand-in with 5.2; moving processes needs the right to the common ancestor's
    // list, too.
    let writable = |path: PathBuf| rustix::fs::access(path, rustix::fs::Access::WRITE_OK).is_ok();
    let can_kill = writable(probe.join("cgroup.kill")) || writable(probe.join("cgroup.freeze"));
    let usable = can_kill && writable(own.join("cgroup.procs"));
    let _ = fs::remove_dir(&probe);
    usable
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt;

    /// As on a kernel without `cgroup.kill`.
    #[tokio::test]
    async fn what_is_frozen_is_killed_as_a_whole() {
        let containment = Containment::detect();
        let Some(group) = containment.group("freeze-test") else {
            return; // No groups on this node; `cgroup2-hybrid` and `cgroup2` have them.
        };
        let group = group.make(&Limits::default()).unwrap().expect("a group");
        let mut children: Vec<_> =
            (0..5).map(|_| std::process::Command::new("sleep").arg("1000").spawn().unwrap()).collect();
        for child in &children {
            fs::write(group.work().join("cgroup.procs"), child.id().to_string()).unwrap();
        }
        assert_eq!(group.pids().unwrap().len(), 5);
        assert!(freeze::kill(fs::File::open(group.work()).unwrap().as_fd()));
        for child in &mut children {
            assert_eq!(child.wait().unwrap().signal(), Some(9));
        }
        group.remove().await.unwrap();
        assert!(!group.path.exists());
    }

    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "31 30 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                          35 30 0:30 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";

    fn check(groups: &str, mounts: &str, expect: Option<(ContainmentKind, &str)>) {
        assert_eq!(own_group(groups, mounts), expect.map(|(kind, path)| (kind, PathBuf::from(path))));
    }

    #[test]
    fn the_own_group_is_found() {
        let unit = "0::/system.slice/baton-agent.service\n";
        check(unit, V2, Some((ContainmentKind::Cgroup2, "/sys/fs/cgroup/system.slice/baton-agent.service")));
        let both = format!("1:cpu:/\n{unit}");
        let path = "/sys/fs/cgroup/unified/system.slice/baton-agent.service";
        check(&both, HYBRID, Some((ContainmentKind::Cgroup2Hybrid, path)));
        check("1:cpu:/\n", V2, None);
        check(unit, "", None);
        let part = "30 23 0:26 /machine/x /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
        check("0::/machine/x/init\n", part, Some((ContainmentKind::Cgroup2, "/sys/fs/cgroup/init")));
        check("0::/elsewhere\n", part, None);
    }
}
