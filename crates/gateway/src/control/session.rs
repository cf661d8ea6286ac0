//! Keeps a session with the coordinator up. Everything said is whole state, so a lost stream loses nothing: the next one
//! says it again. Without a coordinator the gateway serves on by the table it has.

use super::home::{Home, HomeError};
use super::shelf::{Kept, Shelf};
use super::stream::{self, Ended};
use crate::app::Gateway;
use crate::evidence::Reporter;
use crate::table::Served;
use baton_model::id::ServiceName;
use baton_model::observed::{GatewayFacts, TableRefused};
use baton_proto::identity::{Identity, IdentityError};
use baton_proto::reconnect::Backoff;
use std::collections::BTreeMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Instant;
use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;

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
    home: Arc<Home>,
    coordinators: Vec<String>,
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

    /// Connects and serves one session to its end.
    async fn once(&mut self, address: &str, stop: &CancellationToken) -> Result<Ended, IdentityError> {
        // Read anew each time: a renewal, or a person who joined again, may have replaced it.
        let identity = Identity::load(&self.home.identity_dir())?;
        let channel = baton_proto::identity::connect(address, &identity).await?;
        let dir = self.home.identity_dir();
        Ok(stream::serve(self, address, channel, identity, dir, stop).await)
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

/// Puts the table that is kept in force, where there is one. One that cannot be read or taken is only logged: the gateway
/// begins without it.
pub fn restore(home: &Home, served: &Served) {
    let told = |error: &dyn Error| {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%error, cause, "nothing is routed until the coordinator sends a table");
    };
    match home.table() {
        Ok(Some(table)) => match served.install(&table, Instant::now()) {
            Ok(_) => {
                let (revision, routes) = (table.revision.0, table.routes.len());
                tracing::info!(revision, routes, "serving by the table on disk");
            }
            Err(error) => told(&error),
        },
        Ok(None) => {}
        Err(error) => told(&error),
    }
}

/// Keeps a session up until cancelled, and then says goodbye: whoever cancels it has nothing in flight any more.
pub async fn keep(mut control: Control, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut turn = 0;
    while !stop.is_cancelled() && !control.coordinators.is_empty() {
        let address = control.coordinators[turn % control.coordinators.len()].clone();
        let ended = match control.once(&address, &stop).await {
            Ok(Ended::Stopped) => return,
            Ok(Ended::Anew) => {
                backoff = Backoff::default();
                continue;
            }
            Ok(ended) => {
                if ended.was_welcome() {
                    backoff = Backoff::default();
                }
                if matches!(ended, Ended::Replaced) {
                    backoff.lengthen();
                }
                ended.to_string()
            }
            Err(error) => error.to_string(),
        };
        control.say(&address, &ended);
        turn += 1;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}
