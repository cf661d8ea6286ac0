//! What sessions with the coordinator are held with: what the gateway is, what it serves by, and what it said last.

use super::home::{Home, HomeError};
use super::shelf::{Kept, Shelf};
use crate::app::Gateway;
use crate::evidence::Reporter;
use crate::table::Served;
use baton_model::id::ServiceName;
use baton_model::observed::{GatewayFacts, TableRefused};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{RwLock, watch};

/// What this process does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It takes requests.
    Serving,
    /// Another process of this gateway takes them; this one ends what it has in flight.
    Leaving,
}

/// The gateway while it serves: taken out when it drains, during which the session goes on.
pub type Running = RwLock<Option<Gateway>>;

/// What the coordinator is told with.
pub struct Control {
    pub(super) home: Arc<Home>,
    pub(super) coordinators: Vec<String>,
    pub(super) facts: GatewayFacts,
    pub(super) served: Arc<Served>,
    pub(super) running: Arc<Running>,
    pub(super) shelf: Shelf,
    /// The latest table that was not taken, until one is.
    pub(super) refused: Option<TableRefused>,
    pub(super) reporter: Reporter,
    /// Services whose route cannot be served, each with why.
    pub(super) unserved: watch::Receiver<BTreeMap<ServiceName, String>>,
    pub(super) phase: watch::Receiver<Phase>,
    /// What was said last of how it stands: each change of it is one line of the log.
    said: String,
}

/// What a [`Control`] is made of.
pub struct Parts {
    /// The gateway's folder, locked.
    pub home: Arc<Home>,
    /// What is in force; the table on disk was [`restore`]d into it.
    pub served: Arc<Served>,
    /// What takes tables in while it serves.
    pub running: Arc<Running>,
    /// What the gateway is, and where it listens.
    pub facts: GatewayFacts,
    /// Services whose route cannot be served, each with why.
    pub unserved: watch::Receiver<BTreeMap<ServiceName, String>>,
    /// What this process does.
    pub phase: watch::Receiver<Phase>,
}

impl Control {
    /// Makes ready for sessions.
    ///
    /// # Errors
    /// [`HomeError::NotJoined`], and what the file system says.
    pub fn new(parts: Parts) -> Result<Self, HomeError> {
        let Parts { home, served, running, facts, unserved, phase } = parts;
        let coordinators = home.file()?.coordinators;
        let kept = Kept::in_force(&served.load());
        let shelf = Shelf::new(home.table_path(), kept);
        let (refused, said) = (None, String::new());
        let reporter = Reporter::new(Instant::now());
        Ok(Self {
            home,
            coordinators,
            facts,
            served,
            running,
            shelf,
            refused,
            reporter,
            unserved,
            phase,
            said,
        })
    }

    /// Tells how it stands, where that is news.
    pub(super) fn say(&mut self, coordinator: &str, state: &str) {
        if self.said == state {
            return;
        }
        state.clone_into(&mut self.said);
        if state == CONNECTED {
            tracing::info!(coordinator, "connected");
        } else {
            tracing::warn!(
                coordinator,
                reason = state,
                "not connected; the gateway serves on by the table it has, it is tried again"
            );
        }
    }
}

pub(super) const CONNECTED: &str = "connected";
