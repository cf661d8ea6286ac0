//! The gateways that are connected, the table that all of them serve by, and what each of them says of itself.
//! Liveness lives here and does not pass through the store, as it does for nodes in [`crate::sessions`].
//!
//! ```text
//! reconcile ── publish(routes) ─► table {revision} ── watched by each session ─► gateway
//!                                                                                  │ takes it in, keeps it on disk
//! engine ◄── observed() ◄── what is served, what is still busy ◄───────────────────┘
//! ```
//!
//! A gateway has at most one session; a newer one always replaces the older. A gateway that reads slowly is sent the
//! newest table only, never each of them in turn.

mod look;
pub(crate) mod stream;

use crate::clock::Clock;
use crate::flapping::Replacements;
use crate::pulse::Pulse;
use crate::sessions::{Heard, Timing};
use baton_model::evidence::histogram::Histogram;
use baton_model::id::{GatewayName, Revision, ServiceName, SessionId, TableRevision};
use baton_model::observed::{GatewayFacts, GatewayObserved, GatewayState};
use baton_model::route::{Route, RouteTable, UpstreamId};
use baton_model::time::{Millis, UnixMs};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Tables whose way to the gateways is timed; older ones are no longer on their way anywhere.
const TIMED_MAX: usize = 64;

/// All sessions of gateways, and the table they are sent.
pub(crate) struct Gateways {
    clock: Clock,
    pub(crate) timing: Timing,
    state: Mutex<State>,
    table: watch::Sender<Arc<RouteTable>>,
    changed: watch::Sender<u64>,
}

struct State {
    gateways: BTreeMap<GatewayName, Entry>,
    next: SessionId,
    /// When the newest tables were published.
    published: VecDeque<(TableRevision, Instant)>,
    /// From a table's publication, which follows its commit at once, to a gateway's acknowledgement of it.
    acknowledged: Histogram,
    pulse: Pulse,
}

struct Entry {
    last_heard: UnixMs,
    silent: bool,
    facts: GatewayFacts,
    /// What it said last, as far as it can be believed: see [`Gateways::open`].
    said: GatewayState,
    link: Option<Link>,
    replaced: Replacements,
    /// What earlier processes of it still have in flight, by their sessions.
    leaving: BTreeMap<SessionId, BTreeMap<UpstreamId, u64>>,
    /// It said goodbye: nobody needs to wait for it.
    gone: bool,
}

struct Link {
    session: SessionId,
    /// Says by which session this one is replaced.
    replaced_by: watch::Sender<Option<SessionId>>,
    /// Ends the session.
    ended: CancellationToken,
}

/// What a session is run with.
pub(crate) struct Opened {
    pub(crate) session: SessionId,
    pub(crate) tables: watch::Receiver<Arc<RouteTable>>,
    pub(crate) replaced_by: watch::Receiver<Option<SessionId>>,
    pub(crate) ended: CancellationToken,
    /// Two gateways seem to use this identity: sessions were replaced again and again.
    pub(crate) flapping: bool,
    /// It had been silent.
    pub(crate) was_silent: bool,
    /// It serves by a table that is newer than any this coordinator knows of.
    pub(crate) ahead: bool,
}

impl Gateways {
    /// Begins without a gateway, with the routes that are stored.
    ///
    /// `stored` is the number of a change to the store that was just made. Each table is sent after a change of its
    /// own, so that it numbers above every table that an earlier coordinator on this store has sent.
    pub(crate) fn new(
        clock: Clock,
        timing: Timing,
        stored: Revision,
        routes: BTreeMap<ServiceName, Route>,
    ) -> Arc<Self> {
        let state = State {
            gateways: BTreeMap::new(),
            next: SessionId(clock.now().0),
            published: VecDeque::new(),
            acknowledged: Histogram::default(),
            pulse: Pulse::new(timing.silence, clock.now()),
        };
        let table = RouteTable { revision: TableRevision(stored.0).next(), routes };
        Arc::new(Self {
            clock,
            timing,
            state: Mutex::new(state),
            table: watch::Sender::new(Arc::new(table)),
            changed: watch::Sender::new(0),
        })
    }

    /// Wakes whoever follows what is observed; the number has no meaning.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn notify(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What all gateways are to serve by.
    pub(crate) fn table(&self) -> Arc<RouteTable> {
        Arc::clone(&self.table.borrow())
    }

    /// Sends every gateway these routes, which are durable, unless they have them already.
    pub(crate) fn publish(&self, routes: BTreeMap<ServiceName, Route>) {
        self.table.send_if_modified(|table| {
            if table.routes == routes {
                return false;
            }
            *table = Arc::new(RouteTable { revision: table.revision.next(), routes });
            self.lock().note_published(table.revision);
            true
        });
    }

    /// How long tables took from their publication to each gateway's acknowledgement.
    pub(crate) fn acknowledged(&self) -> Histogram {
        self.lock().acknowledged.clone()
    }

    /// A gateway said hello: its session begins, and an older one ends.
    ///
    /// What it says it serves counts, since it is of tables that this cluster has sent it, unless it has one that this
    /// coordinator cannot have sent: the store was restored from an older copy. Then nothing that it says counts before
    /// it has taken the present table, which gets a number above its own.
    pub(crate) fn open(&self, gateway: &GatewayName, facts: GatewayFacts, said: GatewayState) -> Opened {
        let now = self.clock.now();
        let ahead = self.overtake(&said);
        let (replaced_by, replacement) = watch::channel(None);
        let ended = CancellationToken::new();
        let mut state = self.lock();
        state.next = state.next.next();
        let session = state.next;
        let entry = state.gateways.entry(gateway.clone()).or_insert_with(|| Entry::unheard(now));
        let was_silent = std::mem::take(&mut entry.silent);
        let mut flapping = false;
        if let Some(old) = entry.link.replace(Link { session, replaced_by, ended: ended.clone() }) {
            old.replaced_by.send_replace(Some(session));
            old.ended.cancel();
            flapping = entry.replaced.note(now);
        }
        entry.last_heard = now;
        entry.gone = false;
        entry.facts = facts;
        entry.said = if ahead { GatewayState::default() } else { said };
        drop(state);
        self.notify();
        let tables = self.table.subscribe();
        Opened { session, tables, replaced_by: replacement, ended, flapping, was_silent, ahead }
    }

    /// An earlier process of a gateway said hello: another one serves in its place, and it ends what it has in flight.
    pub(crate) fn open_leaving(&self, gateway: &GatewayName, busy: BTreeMap<UpstreamId, u64>) -> SessionId {
        let now = self.clock.now();
        let mut state = self.lock();
        state.next = state.next.next();
        let session = state.next;
        let entry = state.gateways.entry(gateway.clone()).or_insert_with(|| Entry::unheard(now));
        entry.leaving.insert(session, busy);
        drop(state);
        self.notify();
        session
    }

    /// What such a process has in flight now; `None`: nothing any more, or it is not heard any more.
    pub(crate) fn hear_leaving(
        &self,
        gateway: &GatewayName,
        session: SessionId,
        busy: Option<BTreeMap<UpstreamId, u64>>,
    ) {
        if let Some(entry) = self.lock().gateways.get_mut(gateway) {
            match busy {
                Some(busy) => drop(entry.leaving.insert(session, busy)),
                None => drop(entry.leaving.remove(&session)),
            }
        }
        self.notify();
    }

    /// A gateway said goodbye: it serves nothing any more.
    pub(crate) fn goodbye(&self, gateway: &GatewayName, session: SessionId) {
        if let Some(entry) = self.lock().gateways.get_mut(gateway)
            && entry.link.as_ref().is_some_and(|link| link.session == session)
        {
            entry.gone = true;
            entry.link = None;
        }
        self.notify();
    }

    /// Gives the present table a number above the one that a gateway serves by, where that one was not sent by this
    /// coordinator nor by an earlier one on this store; answers whether it was so.
    fn overtake(&self, said: &GatewayState) -> bool {
        self.table.send_if_modified(|table| {
            let ours = table.routes.iter().map(|(name, route)| (name, &route.revision));
            let same = table.revision == said.table && ours.eq(&said.routes);
            if same || table.revision > said.table {
                return false;
            }
            *table = Arc::new(RouteTable { revision: said.table.next(), ..RouteTable::clone(table) });
            true
        })
    }

    /// The stream of a session ended. What the gateway said is kept: it goes on serving by it.
    pub(crate) fn close(&self, gateway: &GatewayName, session: SessionId) {
        let mut state = self.lock();
        if let Some(entry) = state.gateways.get_mut(gateway)
            && entry.link.as_ref().is_some_and(|link| link.session == session)
        {
            entry.link = None;
        }
    }

    /// Ends every session: the coordinator stops.
    pub(crate) fn end_all(&self) {
        for entry in self.lock().gateways.values_mut() {
            if let Some(link) = entry.link.take() {
                link.ended.cancel();
            }
        }
    }

    /// Forgets a gateway that was removed, and ends its session.
    pub(crate) fn forget(&self, gateway: &GatewayName) {
        if let Some(link) = self.lock().gateways.remove(gateway).and_then(|entry| entry.link) {
            link.ended.cancel();
        }
        self.notify();
    }

    /// Notes a word of a gateway in its current session; what it says of itself where it said that.
    pub(crate) fn hear(
        &self,
        gateway: &GatewayName,
        session: SessionId,
        said: Option<GatewayState>,
    ) -> Heard {
        let now = self.clock.now();
        let mut state = self.lock();
        let State { gateways, published, acknowledged, .. } = &mut *state;
        let current = |entry: &&mut Entry| entry.link.as_ref().is_some_and(|link| link.session == session);
        let Some(entry) = gateways.get_mut(gateway).filter(current) else { return Heard::Replaced };
        let was_silent = std::mem::take(&mut entry.silent);
        entry.last_heard = now;
        let changed = said.is_some_and(|said| {
            let changed = entry.said != said;
            let new =
                published.iter().filter(|(table, _)| (entry.said.table < *table) && *table <= said.table);
            new.for_each(|(_, at)| acknowledged.record(at.elapsed()));
            entry.said = said;
            changed
        });
        drop(state);
        if was_silent || changed {
            self.notify();
        }
        if was_silent { Heard::AfterSilence } else { Heard::Yes }
    }

    /// What the engine sees.
    pub(crate) fn observed(&self) -> BTreeMap<GatewayName, GatewayObserved> {
        let now = self.clock.now();
        let mut state = self.lock();
        if let Some(gap) = state.pulse.feel(now) {
            state.stood_still(gap, now);
        }
        let seen = state.gateways.iter().map(|(name, entry)| {
            let GatewayState { routes, busy, unserved, .. } = entry.said.clone();
            // One that said goodbye is not waited for: as if it had not been heard since ever.
            let last_heard = if entry.gone { UnixMs(0) } else { entry.last_heard };
            let mut seen = GatewayObserved { last_heard, routes, busy, unserved };
            for (run, count) in entry.leaving.values().flatten() {
                *seen.busy.entry(run.clone()).or_default() += count;
            }
            (name.clone(), seen)
        });
        seen.collect()
    }

    /// Marks the gateways that have fallen silent, and names them.
    pub(crate) fn sweep(&self) -> Vec<GatewayName> {
        let now = self.clock.now();
        let mut fallen = Vec::new();
        let mut state = self.lock();
        if let Some(gap) = state.pulse.beat(now) {
            state.stood_still(gap, now);
        }
        for (name, entry) in &mut state.gateways {
            if !entry.silent && !entry.gone && now.since(entry.last_heard) > self.timing.silence {
                entry.silent = true;
                fallen.push(name.clone());
                if let Some(link) = entry.link.take() {
                    link.ended.cancel();
                }
            }
        }
        drop(state);
        if !fallen.is_empty() {
            self.notify();
        }
        fallen
    }
}

impl State {
    /// This process stood still for so long: that is no gateway's silence.
    fn stood_still(&mut self, gap: Millis, now: UnixMs) {
        for entry in self.gateways.values_mut() {
            entry.last_heard = entry.last_heard.plus(gap).min(now);
        }
    }

    fn note_published(&mut self, table: TableRevision) {
        self.published.push_back((table, Instant::now()));
        while self.published.len() > TIMED_MAX {
            self.published.pop_front();
        }
    }
}

impl Entry {
    fn unheard(now: UnixMs) -> Self {
        Self {
            last_heard: now,
            silent: false,
            facts: GatewayFacts::default(),
            said: GatewayState::default(),
            link: None,
            replaced: Replacements::default(),
            leaving: BTreeMap::new(),
            gone: false,
        }
    }
}

#[cfg(test)]
mod tests;
