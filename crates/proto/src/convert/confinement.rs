//! Limits and sandbox, and what a node can honour of them.

use super::field::{WireError, text};
use crate::v1;
use baton_model::confinement::{Ability, Capability, Limits, Sandbox};
use std::collections::BTreeSet;

impl From<Limits> for v1::Limits {
    fn from(limits: Limits) -> Self {
        Self {
            memory_high: limits.memory_high,
            memory_max: limits.memory_max,
            cpu_percent: limits.cpu_percent,
            cpu_weight: limits.cpu_weight,
            pids_max: limits.pids_max,
            io_weight: limits.io_weight,
            open_files: limits.open_files,
            core_bytes: limits.core_bytes,
        }
    }
}

impl From<v1::Limits> for Limits {
    /// Any numbers can be held; whether they make sense is asked by `baton_model::file::check_spec`.
    fn from(wire: v1::Limits) -> Self {
        Self {
            memory_high: wire.memory_high,
            memory_max: wire.memory_max,
            cpu_percent: wire.cpu_percent,
            cpu_weight: wire.cpu_weight,
            pids_max: wire.pids_max,
            io_weight: wire.io_weight,
            open_files: wire.open_files,
            core_bytes: wire.core_bytes,
        }
    }
}

impl From<Sandbox> for v1::Sandbox {
    fn from(sandbox: Sandbox) -> Self {
        let names = |kept: BTreeSet<Capability>| v1::Capabilities {
            names: kept.into_iter().map(String::from).collect(),
        };
        Self {
            user: sandbox.user,
            group: sandbox.group,
            capabilities: sandbox.capabilities.map(names),
            no_new_privileges: sandbox.no_new_privileges,
            private_tmp: sandbox.private_tmp,
            read_only: sandbox.read_only.into_iter().collect(),
            hidden: sandbox.hidden.into_iter().collect(),
            umask: sandbox.umask,
            working_directory: sandbox.working_directory,
            nice: sandbox.nice,
        }
    }
}

impl TryFrom<v1::Sandbox> for Sandbox {
    type Error = WireError;
    fn try_from(wire: v1::Sandbox) -> Result<Self, WireError> {
        let capabilities = |wire: v1::Capabilities| -> Result<BTreeSet<Capability>, WireError> {
            wire.names.iter().map(|name| text("capabilities", name)).collect()
        };
        Ok(Self {
            user: wire.user,
            group: wire.group,
            capabilities: wire.capabilities.map(capabilities).transpose()?,
            no_new_privileges: wire.no_new_privileges,
            private_tmp: wire.private_tmp,
            read_only: wire.read_only.into_iter().collect(),
            hidden: wire.hidden.into_iter().collect(),
            umask: wire.umask,
            working_directory: wire.working_directory,
            nice: wire.nice,
        })
    }
}

impl From<Ability> for v1::Ability {
    fn from(ability: Ability) -> Self {
        Self {
            controllers: ability.controllers.into_iter().map(|it| it.name().to_owned()).collect(),
            users: ability.users,
            capabilities: ability.capabilities,
            mounts: ability.mounts,
            open_files_max: ability.open_files_max,
            nice_min: ability.nice_min,
            journal: ability.journal,
        }
    }
}

impl From<v1::Ability> for Ability {
    /// Facts are for people: a controller that only a newer agent knows is left out.
    fn from(wire: v1::Ability) -> Self {
        Self {
            controllers: wire.controllers.iter().filter_map(|name| name.parse().ok()).collect(),
            users: wire.users,
            capabilities: wire.capabilities,
            mounts: wire.mounts,
            open_files_max: wire.open_files_max,
            nice_min: wire.nice_min,
            journal: wire.journal,
        }
    }
}
