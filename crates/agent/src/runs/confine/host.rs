//! What this node can do for its workloads, found once when the agent starts.

use super::super::contain::Containment;
use super::super::journal;
use super::refusal::Refusal;
use baton_model::confinement::{Ability, Capability};
use nix::sys::resource::{Resource, getrlimit};
use std::fs;
use std::path::{Path, PathBuf};

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
    /// Where the system's journal listens.
    journal: PathBuf,
}

impl Host {
    /// Looks at this process and this kernel; of no journal yet.
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
            journal: false,
        };
        Self {
            ability,
            user: nix::unistd::geteuid().as_raw(),
            group: nix::unistd::getegid().as_raw(),
            capabilities,
            core_max: if any_limit { u64::MAX } else { hard(Resource::RLIMIT_CORE) },
            journal: PathBuf::new(),
        }
    }

    /// The same node, with the system's journal at `socket`, where it is there.
    #[must_use]
    pub fn with_journal(&self, socket: &Path) -> Self {
        let ability = Ability { journal: journal::reach(socket).is_ok(), ..self.ability.clone() };
        Self { ability, journal: socket.to_owned(), ..self.clone() }
    }

    /// A node as a test wants it.
    #[cfg(test)]
    pub(super) fn of(ability: Ability, user: u32, capabilities: u64, core_max: u64) -> Self {
        Self { ability, user, group: user, capabilities, core_max, journal: PathBuf::new() }
    }

    /// What this node can honour.
    #[must_use]
    pub fn ability(&self) -> &Ability {
        &self.ability
    }

    /// Where the system's journal listens.
    #[must_use]
    pub fn journal(&self) -> &Path {
        &self.journal
    }

    /// Whether lines can go to the system's journal, as it is now.
    ///
    /// # Errors
    /// They cannot, and what to do about it.
    pub fn reach_journal(&self) -> Result<(), Refusal> {
        journal::reach(&self.journal)
            .map_err(|error| Refusal::NoJournal { socket: self.journal.clone(), why: error.to_string() })
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
        let host = Host::find(&Containment::process_group()).with_journal(Path::new("/no/such/journal"));
        assert!(!host.ability.journal && host.reach_journal().is_err());
        assert!(host.ability.controllers.is_empty());
        assert!(host.ability.open_files_max >= 64);
        assert!((-20..=19).contains(&host.ability.nice_min));
        if host.user != 0 {
            assert!(!host.ability.mounts);
        }
    }
}
