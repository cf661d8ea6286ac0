//! What this node can do for its workloads, found once when the agent starts.

use super::super::contain::Containment;
use baton_model::confinement::{Ability, Capability};
use nix::sys::resource::{Resource, getrlimit};
use std::fs;

/// Numbers of capabilities(7) that say what an agent may do for a workload.
const CAP_CHOWN: u8 = 0;
const CAP_SETGID: u8 = 6;
const CAP_SETUID: u8 = 7;
const CAP_SETPCAP: u8 = 8;
const CAP_SYS_ADMIN: u8 = 21;
const CAP_SYS_NICE: u8 = 23;
const CAP_SYS_RESOURCE: u8 = 24;

/// What this node can do, and who its agent is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// What is told to operators.
    pub(crate) ability: Ability,
    /// The agent's user.
    pub(super) user: u32,
    /// The agent's group.
    pub(super) group: u32,
    /// The agent's capabilities, a bit each.
    pub(super) capabilities: u64,
    /// The largest core dump that can be allowed.
    pub(super) core_max: u64,
}

impl Host {
    /// Looks at this process and this kernel.
    #[must_use]
    pub fn find(containment: &Containment) -> Self {
        let capabilities = own_capabilities();
        let has = |number: u8| capabilities >> number & 1 == 1;
        let any_limit = has(CAP_SYS_RESOURCE);
        let nr_open = read_number("/proc/sys/fs/nr_open").unwrap_or(1 << 20);
        let open_files = hard(Resource::RLIMIT_NOFILE);
        let ability = Ability {
            controllers: containment.controllers().clone(),
            users: has(CAP_SETUID) && has(CAP_SETGID) && has(CAP_CHOWN),
            capabilities: has(CAP_SETPCAP),
            mounts: has(CAP_SYS_ADMIN) && can_mount(),
            open_files_max: if any_limit { nr_open } else { open_files.min(nr_open) },
            nice_min: if has(CAP_SYS_NICE) { -20 } else { own_nice() },
        };
        Self {
            ability,
            user: nix::unistd::geteuid().as_raw(),
            group: nix::unistd::getegid().as_raw(),
            capabilities,
            core_max: if any_limit { u64::MAX } else { hard(Resource::RLIMIT_CORE) },
        }
    }

    /// What this node can honour.
    #[must_use]
    pub fn ability(&self) -> &Ability {
        &self.ability
    }

    /// Whether the agent has this capability itself, so that it can leave it to a workload.
    pub(super) fn has(&self, capability: Capability) -> bool {
        self.capabilities >> capability.number() & 1 == 1
    }
}

/// The permitted set, without what the bounding set would take away at the next execve(2).
fn own_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let set = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        u64::from_str_radix(line.trim(), 16).ok()
    };
    set("CapPrm:").unwrap_or(0) & set("CapBnd:").unwrap_or(u64::MAX)
}

fn hard(resource: Resource) -> u64 {
    getrlimit(resource).map_or(u64::MAX, |(_, hard)| hard)
}

fn own_nice() -> i32 {
    rustix::process::getpriority_process(None).unwrap_or(0)
}

fn read_number(path: &str) -> Option<u64> {
    fs::read_to_string(path).ok()?.trim().parse().ok()
}

/// Whether mounts of one's own can be made: tried in a thread of its own, for a mount namespace is a thread's.
fn can_mount() -> bool {
    std::thread::spawn(crate::shim::confine::try_own_mounts).join().unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_node_says_what_it_can() {
        let host = Host::find(&Containment::process_group());
        assert!(host.ability.controllers.is_empty());
        assert!(host.ability.open_files_max >= 64);
        assert!((-20..=19).contains(&host.ability.nice_min));
        if host.user != 0 {
            assert!(!host.ability.mounts);
        }
    }
}
