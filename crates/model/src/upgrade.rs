//! The agents' own program: what operators want of it, and how far each node is.
//!
//! One record of the store. The API writes the request, the engine the rest; both by compare-and-set.

use crate::artifact::Artifact;
use crate::id::{InstanceId, NodeName, Version};
use crate::spec::Amount;
use crate::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// A change of the agents' program over a fleet; the latest request takes the place of every earlier one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentUpgrade {
    /// Counts the requests from 1. A node that failed one tries again only for a later one.
    pub request: u64,
    /// The operator's name for the program.
    pub version: Version,
    /// The program: one file.
    pub artifact: Artifact,
    /// Nodes asked at a time.
    pub batch: Amount,
    /// When it was asked for.
    pub requested_at: UnixMs,
    /// Which operator asked.
    pub requested_by: String,
    /// The nodes it is for, as they were when it was asked for.
    pub nodes: BTreeMap<NodeName, NodeUpgrade>,
    /// Why no further node is asked, where that is so.
    pub paused: Option<String>,
    /// An operator ended it: no further node is asked.
    pub cancelled: bool,
}

/// How far one node is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum NodeUpgrade {
    /// Not its turn yet, or it is not there.
    Waiting,
    /// It was asked, and has not come through.
    Asked(NodeAsked),
    /// Its agent runs the program, and everything that was ready on it is ready.
    Done {
        /// Since when.
        at: UnixMs,
    },
    /// It goes on with the program that it had, or does not answer.
    Failed {
        /// Why, and what to do.
        reason: String,
    },
}

/// A node that was asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeAsked {
    /// When.
    pub at: UnixMs,
    /// What was ready on it then.
    pub ready: BTreeSet<InstanceId>,
    /// Since when its agent runs the program.
    pub back_at: Option<UnixMs>,
    /// Since when, besides, everything in `ready` is ready, or is not on the node any more.
    pub well_since: Option<UnixMs>,
}

/// Why an agent did not take a program.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct UpgradeFailure {
    /// The request, as [`AgentUpgrade::request`] counts them.
    pub request: u64,
    /// Why, for people.
    pub reason: String,
}

impl AgentUpgrade {
    /// Whether every node is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.nodes.values().all(|node| matches!(node, NodeUpgrade::Done { .. }))
    }

    /// Whether a node may still be asked.
    #[must_use]
    pub fn goes_on(&self) -> bool {
        !self.cancelled && self.paused.is_none()
    }
}
