//! The table in force.

use super::{Table, TableError};
use arc_swap::{ArcSwap, Guard};
use baton_model::id::TableRevision;
use baton_model::route::RouteTable;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;
use tokio::sync::watch;

/// The table in force: read by every request, replaced as a whole.
#[derive(Debug)]
pub struct Served {
    table: ArcSwap<Table>,
    zone: Option<String>,
    /// Held while a table is taken in: whether there was one before.
    installing: Mutex<bool>,
    installed: watch::Sender<TableRevision>,
}

impl Served {
    /// Nothing is routed until the first table. `zone` is the gateway's own.
    #[must_use]
    pub fn new(zone: Option<String>) -> Self {
        Self {
            table: ArcSwap::from_pointee(Table::default()),
            zone,
            installing: Mutex::new(false),
            installed: watch::Sender::new(TableRevision::default()),
        }
    }

    /// The revision of the table in force, as it changes.
    #[must_use]
    pub fn installed(&self) -> watch::Receiver<TableRevision> {
        self.installed.subscribe()
    }

    /// The table in force, for a moment: do not hold it while waiting.
    #[must_use]
    pub fn load(&self) -> Guard<Arc<Table>> {
        self.table.load()
    }

    /// Takes a table in. When this returns, every new request follows it; what is in flight goes on.
    ///
    /// # Errors
    /// [`TableError`] when it is older or contradicts itself; the one before stays in force.
    pub fn install(&self, table: &RouteTable, now: Instant) -> Result<Arc<Table>, TableError> {
        let mut has_one = self.installing.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.table.load_full();
        if table.revision < before.revision {
            return Err(TableError::Older { offered: table.revision, in_force: before.revision });
        }
        if *has_one && table.revision == before.revision {
            // Sent again, after a reconnection: a revision's content does not change.
            return Ok(before);
        }
        let previous = has_one.then_some(before.as_ref());
        let next = Arc::new(Table::compile(table, self.zone.as_deref(), previous, now)?);
        for state in next.upstreams() {
            state.come_back();
        }
        self.table.store(Arc::clone(&next));
        // Only now, so that no request finds the old table with nobody in it.
        for route in next.routes.values() {
            let members = route.upstreams().map(Arc::downgrade).collect();
            route.service().enact(next.revision, route.spec().ejection, members);
        }
        for state in next.leaving.values() {
            state.leave();
        }
        for route in before.routes.values().filter(|route| !next.routes.contains_key(route.name())) {
            route.service().enact(next.revision, route.spec().ejection, Vec::new());
        }
        *has_one = true;
        self.installed.send_replace(next.revision);
        Ok(next)
    }
}
