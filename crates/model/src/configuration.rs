//! Files that a release brings beside its artifact: templates that each node renders, and secrets.

use crate::spec::StopSignal;
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
    /// The template's text.
    pub template: String,
    /// What is done when a release differs from the one before in nothing but such files.
    pub on_change: OnChange,
}

/// A secret of the coordinator, and what follows its change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretUse {
    /// Its name at the coordinator.
    pub secret: String,
    /// The revision that this release was made with; 0 until the coordinator has taken the release in.
    pub revision: u64,
    /// What is done when a release differs from the one before in nothing but such secrets.
    pub on_change: OnChange,
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
