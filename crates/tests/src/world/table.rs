//! The coordinator's half of what gateways do: their sessions, and the table that each is sent once it is durable.

use super::World;
use super::coordinator::Coordinator;
use super::gateway::{Letter, State, Table, Word};
use baton_model::id::{GatewayName, ServiceName, TableRevision};
use baton_model::observed::GatewayObserved;
use baton_model::route::Route;
use baton_model::time::UnixMs;
use std::collections::BTreeMap;

/// What a coordinator process holds for gateways.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    /// The table of now; `None` before the first decision is durable.
    table: Option<Table>,
    /// The last connection of each gateway: a newer session replaces the older.
    sessions: BTreeMap<GatewayName, u64>,
}

impl World {
    /// The routes changed, and are durable: every gateway that has a session is sent the whole table.
    pub(crate) fn send_routes(&mut self, routes: BTreeMap<ServiceName, Route>) {
        let revision = TableRevision(self.store.revision());
        let Some(coordinator) = &mut self.coordinator else { return };
        coordinator.tables.table = Some(Table { revision, routes });
        let gateways: Vec<GatewayName> = coordinator.tables.sessions.keys().cloned().collect();
        gateways.iter().for_each(|gateway| self.send_table(gateway));
    }

    fn send_table(&mut self, gateway: &GatewayName) {
        let Some(coordinator) = &self.coordinator else { return };
        let Tables { table: Some(table), sessions } = &coordinator.tables else { return };
        let Some(connection) = sessions.get(gateway).copied() else { return };
        let word = Word::Table(Box::new(table.clone()));
        let letter = Letter { gateway: gateway.clone(), connection, process: coordinator.process, word };
        self.post(letter);
    }

    /// A letter from a gateway.
    pub(crate) fn coordinator_hears_gateway(&mut self, letter: Letter) {
        let now = self.unix_now();
        let Letter { gateway, connection, process, word } = letter;
        let Some(coordinator) = self.coordinator.as_mut().filter(|alive| alive.process == process) else {
            return;
        };
        let current = coordinator.tables.sessions.get(&gateway).copied() == Some(connection);
        match word {
            Word::State { first, state } if first || current => {
                coordinator.note_gateway(&gateway, state, now);
                if first {
                    coordinator.tables.sessions.insert(gateway.clone(), connection);
                    self.send_table(&gateway);
                }
                self.ledger_heard(&gateway);
                self.wake_coordinator();
            }
            Word::Beat if current => {
                if let Some(seen) = coordinator.observed.gateways.get_mut(&gateway) {
                    seen.last_heard = now;
                }
                self.ledger_heard(&gateway);
                self.post(Letter { gateway, connection, process, word: Word::BeatBack });
            }
            Word::Counted(counted) if current => coordinator.note_counted(&gateway, *counted, now),
            Word::State { .. } | Word::Beat | Word::BeatBack | Word::Table(_) | Word::Counted(_) => {}
        }
    }
}

impl Coordinator {
    fn note_gateway(&mut self, gateway: &GatewayName, state: State, now: UnixMs) {
        let State { routes, busy, unserved } = state;
        let why = |service| (service, "cannot listen: the port is taken".to_owned());
        let unserved = unserved.into_iter().map(why).collect();
        let seen = GatewayObserved { last_heard: now, routes, busy, unserved };
        self.observed.gateways.insert(gateway.clone(), seen);
    }
}
