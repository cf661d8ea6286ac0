//! What the agent writes into a run's directory before it starts the shim, to know the run again.

use baton_model::id::{InstanceId, ReleaseNumber, RunNumber};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// The agent's record of a run (`run.json`, mode 0600).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunRecord {
    /// The instance.
    pub instance: InstanceId,
    /// The run.
    pub run: RunNumber,
    /// The release it runs.
    pub release: ReleaseNumber,
    /// All its ports, by name.
    pub ports: BTreeMap<String, u16>,
}
