//! What this node cannot do for a release, in words for the operator.

use baton_model::confinement::{Capability, Controller};
use std::path::PathBuf;

/// Why this node refuses a release's limits or sandbox. Each says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The limit needs a controller of cgroup v2.
    #[error(
        "`limits.{limit}` needs the {controller} controller of cgroup v2, and this node has {has}; place the \
         service on nodes that have it (`baton node show`), delegate it to the agent (Delegate=yes), or take the \
         limit out"
    )]
    Controller {
        /// The field of the service file.
        limit: &'static str,
        /// What it needs.
        controller: Controller,
        /// What there is, in words.
        has: String,
    },
    /// The agent's own limit is lower, and it may not raise it.
    #[error(
        "`limits.{limit}` of {asked} is more than this node's agent may allow ({most}); raise {setting} of the \
         agent's unit, or ask for less"
    )]
    Limit {
        /// The field of the service file.
        limit: &'static str,
        /// What was asked.
        asked: u64,
        /// The most that can be.
        most: u64,
        /// Where that is set.
        setting: &'static str,
    },
    /// The user or group is not known here.
    #[error(
        "{kind} `{name}` does not exist on this node; create it there, or name another in `sandbox.{kind}`"
    )]
    UnknownAccount {
        /// `user` or `group`.
        kind: &'static str,
        /// As in the service file.
        name: String,
    },
    /// A user number without an entry has no group.
    #[error(
        "user {0} has no entry in this node's user database, so its group is not known; name it in \
         `sandbox.group`, or create the user"
    )]
    NoGroup(u32),
    /// The user database could not be asked.
    #[error(
        "looking up {kind} `{name}` failed: {why}; check the node's /etc/nsswitch.conf and what it names"
    )]
    Lookup {
        /// `user` or `group`.
        kind: &'static str,
        /// As in the service file.
        name: String,
        /// What the system said.
        why: String,
    },
    /// More groups than can be passed on.
    #[error("user `{name}` is in {count} groups, and at most {most} can be taken; name a user with fewer")]
    TooManyGroups {
        /// The user.
        name: String,
        /// Its groups.
        count: usize,
        /// The most.
        most: usize,
    },
    /// Only root may become another.
    #[error(
        "`sandbox.{field}` asks for another {field}, and this node's agent runs as user {user} without the right \
         to switch; run the agent as root, or take the field out"
    )]
    CannotSwitch {
        /// `user` or `group`.
        field: &'static str,
        /// Whom the agent runs as.
        user: u32,
    },
    /// The agent has no CAP_SETPCAP.
    #[error(
        "`sandbox.capabilities` needs an agent with CAP_SETPCAP, and this node's runs as user {0} without it; run \
         the agent as root, or take the field out"
    )]
    CannotBound(u32),
    /// The agent does not have what the workload should keep.
    #[error(
        "`sandbox.capabilities` asks for {0}, which this node's agent does not have itself; allow it in \
         CapabilityBoundingSet= of the agent's unit, or take it out"
    )]
    NotOurs(Capability),
    /// The agent may not mount.
    #[error(
        "`sandbox.{field}` needs mounts of its own, and this node's agent cannot make them (that takes root with \
         CAP_SYS_ADMIN and Linux 5.12 or later); run the agent as root, or take the field out"
    )]
    CannotMount {
        /// The field of the service file.
        field: &'static str,
    },
    /// Lower nice values take CAP_SYS_NICE.
    #[error(
        "`sandbox.nice` of {asked} is lower than this node's agent may give ({least}); run the agent as root, or \
         write {least} or more"
    )]
    CannotNice {
        /// What was asked.
        asked: i32,
        /// The lowest that can be.
        least: i32,
    },
    /// A path of the sandbox is not there.
    #[error(
        "`sandbox.{field}` names {path}, which does not exist on this node; create it there, or take it out"
    )]
    NoPath {
        /// The field of the service file.
        field: &'static str,
        /// As in the service file.
        path: String,
    },
    /// The workload would not see itself.
    #[error(
        "`sandbox.{field}` covers {covered} with {path}, and the workload needs it; take the path out, or move \
         the agent's folder (--dir)"
    )]
    Covers {
        /// The field of the service file.
        field: &'static str,
        /// What is covered with it.
        path: String,
        /// What the workload needs.
        covered: PathBuf,
    },
    /// The folder it should start in.
    #[error("`sandbox.working_directory` is {0}, which is not a folder {1}; correct it, or what is packed")]
    WorkingDirectory(String, &'static str),
    /// There is no journal.
    #[error(
        "`logs.journald` needs systemd-journald, and this node's agent cannot reach it at {socket}: {why}; place the \
         service on nodes that have it (`baton node show`), start it there, or take the field out: lines are kept in \
         Baton's own files in any case"
    )]
    NoJournal {
        /// Where it should listen.
        socket: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The user cannot get at something that the workload needs.
    #[error(
        "user {user} may not {act} {path}; change the mode of the path or of a folder above it, or name another \
         user in `sandbox.user`"
    )]
    Unreachable {
        /// Whom the workload runs as.
        user: String,
        /// `execute`, `enter`.
        act: &'static str,
        /// What it needs.
        path: PathBuf,
    },
}
