//! How the processes of a service live beyond start, check and stop: jobs that end, order, notification, reload, hooks.

use crate::id::ServiceName;
use crate::signal::StopSignal;
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

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
    /// It sends `READY=1` within this time of its start, and does not count as started before; a workload that is
    /// late is restarted. `None`: nothing is waited for.
    pub ready_within: Option<Millis>,
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
        /// With [`Notify::ready_within`]: a `READY=1` that takes longer to follow the signal has failed.
        timeout: Millis,
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

impl Hooks {
    /// All of them with the names they have in a service file, in the order of a life.
    #[must_use]
    pub fn named(&self) -> [(HookPoint, Option<&Hook>); 4] {
        [
            (HookPoint::BeforeStart, self.before_start.as_ref()),
            (HookPoint::AfterReady, self.after_ready.as_ref()),
            (HookPoint::BeforeStop, self.before_stop.as_ref()),
            (HookPoint::AfterStop, self.after_stop.as_ref()),
        ]
    }
}

/// The places in a workload's life where a hook may stand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HookPoint {
    /// Before each start.
    BeforeStart,
    /// Once it is ready.
    AfterReady,
    /// Before it is signalled to stop.
    BeforeStop,
    /// After each end.
    AfterStop,
}

impl HookPoint {
    /// As a service file names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BeforeStart => "before_start",
            Self::AfterReady => "after_ready",
            Self::BeforeStop => "before_stop",
            Self::AfterStop => "after_stop",
        }
    }
}

impl fmt::Display for HookPoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Services that come after one another in a circle, if `name` would with these be in one: the way around it, from
/// `name` on and without its return. Asked before a release is taken, so that no service waits for itself.
#[must_use]
pub fn circle<'a>(
    name: &'a ServiceName,
    after: &'a BTreeMap<ServiceName, Near>,
    known: impl Fn(&ServiceName) -> Option<&'a BTreeMap<ServiceName, Near>>,
) -> Option<Vec<ServiceName>> {
    let mut seen = BTreeSet::new();
    // A way back to `name`, looked for in depth; each service is looked at once.
    let mut ways: Vec<Vec<&ServiceName>> = after.keys().map(|next| vec![name, next]).collect();
    while let Some(way) = ways.pop() {
        let Some(last) = way.last().copied() else { continue };
        if last == name {
            return Some(way[..way.len() - 1].iter().map(|&name| name.clone()).collect());
        }
        if !seen.insert(last) {
            continue;
        }
        for next in known(last).into_iter().flat_map(BTreeMap::keys) {
            let mut longer = way.clone();
            longer.push(next);
            ways.push(longer);
        }
    }
    None
}

/// The circle in words: `web after db after web`.
#[must_use]
pub fn circle_in_words(circle: &[ServiceName]) -> String {
    let names: Vec<&str> = circle.iter().chain(circle.first()).map(ServiceName::as_str).collect();
    names.join(" after ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Services as `web: db cache; db: disk`, and what is asked about.
    fn check(graph: &str, name: &str, expect: Option<&str>) {
        let parse = |text: &str| ServiceName::new(text).expect("a valid name");
        let graph: BTreeMap<ServiceName, BTreeMap<ServiceName, Near>> = graph
            .split("; ")
            .map(|line| {
                let (name, after) = line.split_once(": ").expect("a name and what it comes after");
                let after = after.split_whitespace().map(|name| (parse(name), Near::Anywhere)).collect();
                (parse(name), after)
            })
            .collect();
        let name = parse(name);
        let found = circle(&name, &graph[&name], |name| graph.get(name));
        assert_eq!(found.as_deref().map(circle_in_words).as_deref(), expect, "{graph:?}");
    }

    #[test]
    fn circles_are_found_and_nothing_else() {
        check("web: db cache; db: disk; cache: disk; disk: net", "web", None);
        check("web: web", "web", Some("web after web"));
        check("web: db; db: web", "web", Some("web after db after web"));
        check(
            "web: cache db; cache: disk; db: disk; disk: web",
            "web",
            Some("web after db after disk after web"),
        );
        // A circle elsewhere is not ours, and does not hold us up.
        check("web: db; db: cache; cache: db", "web", None);
    }
}
