//! What a node is given beside its plan, before secrets have their values.

use baton_model::configuration::{Peer, SecretKey};
use baton_model::id::{NodeName, ServiceName};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// What a node is given for one service: with the names of its secrets instead of their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Outline {
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) peers: Arc<Vec<Peer>>,
    pub(crate) secrets: BTreeSet<SecretKey>,
}

/// Outlines by node and service.
pub(crate) type Outlines = BTreeMap<NodeName, BTreeMap<ServiceName, Outline>>;
