//! What operators want. Written by the API with compare-and-set, read by the engine, never written by it.

use crate::artifact::Artifact;
use crate::id::{GatewayName, NodeName, ReleaseNumber, ServiceName, Version};
use crate::rollout::{RolloutControl, RolloutRequest};
use crate::spec::ServiceSpec;
use crate::time::UnixMs;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Everything operators want.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Desired {
    /// The nodes that may be used.
    pub nodes: BTreeMap<NodeName, Node>,
    /// The services that should exist.
    pub services: BTreeMap<ServiceName, Service>,
    /// The gateways that have joined. One of them that was not heard since the coordinator started may be serving all
    /// the same: it is waited for as one that was heard last at that moment.
    #[serde(default)]
    pub gateways: BTreeSet<GatewayName>,
}

/// A gateway that has joined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gateway {
    /// Its name.
    pub name: GatewayName,
    /// When it joined, the latest time.
    pub joined_at: UnixMs,
}

/// A node as its operators see it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Node {
    /// Its name.
    pub name: NodeName,
    /// The address its services are reached at: an IP address.
    pub address: String,
    /// Its labels, among them `region` and `zone`.
    pub labels: BTreeMap<String, String>,
    /// Nothing new is placed here.
    pub cordoned: bool,
    /// Everything here is moved away, and nothing new is placed here.
    pub draining: bool,
    /// When it joined.
    pub joined_at: UnixMs,
}

/// A service as its operators want it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Its name.
    pub name: ServiceName,
    /// The releases that are kept, oldest first.
    pub releases: BTreeMap<ReleaseNumber, Release>,
    /// The latest request; `None` only before the first deploy.
    pub request: Option<RolloutRequest>,
    /// What an operator has set about the current rollout.
    pub control: RolloutControl,
    /// The service should stop everywhere and be forgotten.
    pub removed: bool,
    /// Counts the reloads that were asked for.
    #[serde(default)]
    pub reload: u64,
}

/// An immutable version of a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Release {
    /// Its number within the service.
    pub number: ReleaseNumber,
    /// The operator's own name for it.
    pub version: Version,
    /// What is run.
    pub artifact: Artifact,
    /// How it is run.
    pub spec: ServiceSpec,
    /// When it was made.
    pub created_at: UnixMs,
    /// Which operator made it.
    pub created_by: String,
}
