//! Files that a release brings beside its artifact: templates that each node renders, and secrets.
//!
//! A release names them, so that a change of one is a change of release and is rolled out as such. What a running
//! workload needs to take a change in is said by [`Configuration::change_from`].

use crate::id::{InstanceId, NodeName, SecretName};
use crate::secret::Secret;
use crate::signal::StopSignal;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Configuration of a service. The default is none.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Files by name, found by the workload in the folder that `BATON_CONFIG_DIR` names.
    pub files: BTreeMap<String, ConfigFile>,
    /// Secrets by file name, found by the workload in the folder that `BATON_SECRETS_DIR` names.
    pub secrets: BTreeMap<String, SecretUse>,
}

/// A file that is rendered from a template on each node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigFile {
    /// The template's text; [`crate::render`] says what it may use.
    pub template: String,
    /// What is done when a release differs from the one before in nothing but such files.
    pub on_change: OnChange,
}

/// A secret of the coordinator, and what follows its change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    /// Its name at the coordinator.
    pub secret: SecretName,
    /// The revision that this release was made with; 0 until the coordinator has taken the release in.
    pub revision: u64,
    /// What is done when a release differs from the one before in nothing but such secrets.
    pub on_change: OnChange,
}

impl SecretUse {
    /// The one value that this release means.
    #[must_use]
    pub fn key(&self) -> SecretKey {
        SecretKey { name: self.secret.clone(), revision: self.revision }
    }
}

/// Names one value of a secret for ever.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SecretKey {
    /// The secret.
    pub name: SecretName,
    /// Its revision, counted from 1.
    pub revision: u64,
}

/// What a changed file asks of the workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "signal")]
pub enum OnChange {
    /// A swap, as for a new artifact.
    Restart,
    /// This signal to the workload's main process.
    Signal(StopSignal),
    /// Nothing: the workload looks for itself.
    Nothing,
}

impl OnChange {
    /// The word for it in a service file: `restart`, the signal's name, `nothing`.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Restart => "restart",
            Self::Signal(signal) => signal.name(),
            Self::Nothing => "nothing",
        }
    }
}

/// What takes a running workload from one configuration to another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Nothing differs.
    None,
    /// The files are written anew, and its main process gets these signals, each once.
    Refresh(Vec<StopSignal>),
    /// At least one file that differs asks for a swap.
    Swap,
}

impl Configuration {
    /// Whether there are neither files nor secrets.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.files.is_empty() && self.secrets.is_empty()
    }

    /// What takes a workload from `old` to this one. Of several files that differ the strongest wins: a swap before
    /// signals before nothing. A file that both have is followed as this one says; one that is gone, as `old` said.
    #[must_use]
    pub fn change_from(&self, old: &Self) -> Change {
        let files =
            differing(&self.files, &old.files, |file| file.on_change, |a, b| a.template == b.template);
        let secrets =
            differing(&self.secrets, &old.secrets, |used| used.on_change, |a, b| a.key() == b.key());
        let asked: Vec<OnChange> = files.into_iter().chain(secrets).collect();
        if asked.contains(&OnChange::Restart) {
            return Change::Swap;
        }
        if asked.is_empty() {
            return if self == old { Change::None } else { Change::Refresh(Vec::new()) };
        }
        Change::Refresh(signals_of(&asked))
    }
}

/// The signals among what is asked, each once.
#[must_use]
pub fn signals_of(asked: &[OnChange]) -> Vec<StopSignal> {
    StopSignal::ALL.into_iter().filter(|signal| asked.contains(&OnChange::Signal(*signal))).collect()
}

/// What each entry that is not the same on both sides asks for.
fn differing<T>(
    new: &BTreeMap<String, T>,
    old: &BTreeMap<String, T>,
    on_change: impl Fn(&T) -> OnChange,
    same: impl Fn(&T, &T) -> bool,
) -> Vec<OnChange> {
    let changed = new.iter().filter(|(name, entry)| !old.get(*name).is_some_and(|old| same(entry, old)));
    let gone = old.iter().filter(|(name, _)| !new.contains_key(*name));
    changed.chain(gone).map(|(_, entry)| on_change(entry)).collect()
}

/// What the instances of one service are given on a node beside their plan; always the whole of it.
///
/// It is not part of the plan: a plan is kept on disk, and peers change without a new plan.
#[derive(Clone, Debug, Default)]
pub struct Provision {
    /// The node's labels.
    pub labels: BTreeMap<String, String>,
    /// Where the service's instances are, in the order of their slots.
    pub peers: Vec<Peer>,
    /// The values of the secrets that the releases on this node name.
    pub secrets: BTreeMap<SecretKey, Secret>,
}

/// Where one instance of a service is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Which instance.
    pub instance: InstanceId,
    /// The node it is placed on.
    pub node: NodeName,
    /// The node's address.
    pub address: String,
    /// Its ports by name.
    pub ports: BTreeMap<String, u16>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const HUP: OnChange = OnChange::Signal(StopSignal::Sighup);
    const USR1: OnChange = OnChange::Signal(StopSignal::Sigusr1);

    /// Files by name with text and reaction; secrets by name with revision and reaction.
    fn configuration(files: &[(&str, &str, OnChange)], secrets: &[(&str, u64, OnChange)]) -> Configuration {
        let file = |(name, text, on_change): &(&str, &str, OnChange)| {
            ((*name).to_owned(), ConfigFile { template: (*text).to_owned(), on_change: *on_change })
        };
        let used = |(name, revision, on_change): &(&str, u64, OnChange)| {
            let secret = name.parse().unwrap();
            ((*name).to_owned(), SecretUse { secret, revision: *revision, on_change: *on_change })
        };
        Configuration { files: files.iter().map(file).collect(), secrets: secrets.iter().map(used).collect() }
    }

    fn check(old: &Configuration, new: &Configuration, expect: Change) {
        assert_eq!(new.change_from(old), expect, "from {old:?} to {new:?}");
    }

    #[test]
    fn the_strongest_of_what_differs_wins() {
        let old = configuration(&[("a", "1", HUP), ("b", "1", OnChange::Restart)], &[("p", 1, USR1)]);
        let new = |a: &str, b: &str, p: u64| {
            configuration(&[("a", a, HUP), ("b", b, OnChange::Restart)], &[("p", p, USR1)])
        };
        check(&old, &old, Change::None);
        check(&old, &new("2", "1", 1), Change::Refresh(vec![StopSignal::Sighup]));
        check(&old, &new("2", "1", 2), Change::Refresh(vec![StopSignal::Sighup, StopSignal::Sigusr1]));
        check(&old, &new("2", "2", 2), Change::Swap);
        check(&new("1", "1", 2), &old, Change::Refresh(vec![StopSignal::Sigusr1]));
    }

    #[test]
    fn files_that_come_and_go_count_too() {
        let none = Configuration::default();
        let quiet = configuration(&[("a", "1", OnChange::Nothing)], &[]);
        let loud = configuration(&[], &[("p", 1, OnChange::Restart)]);
        check(&none, &quiet, Change::Refresh(Vec::new()));
        check(&quiet, &none, Change::Refresh(Vec::new()));
        check(&none, &loud, Change::Swap);
        check(&loud, &none, Change::Swap);
        // Only what is to be done about the next change is another.
        let later = configuration(&[("a", "1", HUP)], &[]);
        check(&quiet, &later, Change::Refresh(Vec::new()));
    }
}
