//! Gateways: they take tables that come late, lost or twice, keep them on disk, acknowledge them late, send requests
//! that take their time, are cut off, freeze, die and come back with what is on their disk.

use super::World;
use super::counting::Counted;
use super::mutation::Mutation;
use super::network::Link;
use super::queue::Happening;
use super::random::Random;
use baton_model::id::{GatewayName, RouteRevision, ServiceName, TableRevision};
use baton_model::route::{Route, UpstreamId};
use std::collections::{BTreeMap, BTreeSet};

/// A coordinator that was silent for this long is given up.
const SILENCE_MS: u64 = 3000;
const BEAT_MS: u64 = 1000;
/// Requests in flight at one gateway; no more are sent then.
const IN_FLIGHT_MAX: usize = 32;

/// A table as it is sent and kept.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Table {
    pub(crate) revision: TableRevision,
    pub(crate) routes: BTreeMap<ServiceName, Route>,
}

impl Table {
    /// Whether requests go to this run by it.
    pub(crate) fn names(&self, id: &UpstreamId) -> bool {
        self.routes.get(&id.instance.service).is_some_and(|route| route.upstreams.contains_key(id))
    }
}

/// What a gateway says of itself, of one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    pub(crate) routes: BTreeMap<ServiceName, RouteRevision>,
    pub(crate) busy: BTreeMap<UpstreamId, u64>,
    /// What it has and cannot listen for.
    pub(crate) unserved: BTreeSet<ServiceName>,
}

/// A message between a gateway and the coordinator.
#[derive(Clone, Debug)]
pub(crate) enum Word {
    /// To the coordinator, first, and again on each change.
    State { first: bool, state: State },
    /// To the coordinator.
    Beat,
    /// To the coordinator, each second, once: what is lost is lost.
    Counted(Box<Counted>),
    /// To the gateway, the echo.
    BeatBack,
    /// To the gateway.
    Table(Box<Table>),
}

/// One message on its way.
#[derive(Clone, Debug)]
pub(crate) struct Letter {
    pub(crate) gateway: GatewayName,
    pub(crate) connection: u64,
    pub(crate) process: u64,
    pub(crate) word: Word,
}

impl Letter {
    /// From the gateway to the coordinator.
    pub(crate) fn goes_up(&self) -> bool {
        match self.word {
            Word::State { .. } | Word::Beat | Word::Counted(_) => true,
            Word::BeatBack | Word::Table(_) => false,
        }
    }
}

/// One gateway.
#[derive(Clone, Debug)]
pub(crate) struct Gateway {
    random: Random,
    pub(crate) link: Link,
    up: bool,
    /// Counts its processes: what was scheduled for an earlier one is void.
    life: u64,
    pub(crate) frozen_until: u64,
    /// What it serves by, which is also what is on its disk: it writes before it serves.
    pub(crate) table: Table,
    connection: Option<(u64, u64)>,
    heard_at: u64,
    told: Option<State>,
    /// Requests in flight: to which run, and until when.
    in_flight: BTreeMap<u64, (UpstreamId, u64)>,
    pub(super) requests: u64,
    counting: Random,
    /// What it counted since its last report.
    pub(super) counted: Counted,
    /// TCP routes whose port another program holds, and from when until when.
    pub(super) taken: BTreeMap<ServiceName, (u64, u64)>,
}

impl Gateway {
    pub(crate) fn new(seed: u64, name: &GatewayName) -> Self {
        Self {
            random: Random::of(seed, name.as_str()),
            link: Link::default(),
            up: false,
            life: 0,
            frozen_until: 0,
            table: Table::default(),
            connection: None,
            heard_at: 0,
            told: None,
            in_flight: BTreeMap::new(),
            requests: 0,
            counting: Random::of(seed, &format!("counting at {name}")),
            counted: Counted::default(),
            taken: BTreeMap::new(),
        }
    }

    /// The routes that it listens for.
    fn served(&self, now: u64) -> impl Iterator<Item = &Route> {
        self.table.routes.iter().filter(move |(service, _)| !self.lacks(service, now)).map(|(_, route)| route)
    }

    /// Requests in flight to a run.
    pub(crate) fn in_flight_to(&self, id: &UpstreamId) -> usize {
        self.in_flight.values().filter(|(to, _)| to == id).count()
    }

    /// Whether it has no port for a service.
    fn lacks(&self, service: &ServiceName, now: u64) -> bool {
        self.taken.get(service).is_some_and(|(from, until)| (*from..*until).contains(&now))
    }

    fn state(&self, now: u64) -> State {
        let mut busy: BTreeMap<UpstreamId, u64> = BTreeMap::new();
        for (id, _) in self.in_flight.values().filter(|(id, _)| !self.table.names(id)) {
            *busy.entry(id.clone()).or_default() += 1;
        }
        let routes = self.table.routes.iter().map(|(name, route)| (name.clone(), route.revision)).collect();
        let unserved = self.table.routes.keys().filter(|service| self.lacks(service, now)).cloned().collect();
        State { routes, busy, unserved }
    }
}

impl World {
    pub(crate) fn gateway_starts(&mut self, name: &GatewayName) {
        let now = self.now;
        let Some(gateway) = self.gateways.get_mut(name).filter(|gateway| !gateway.up) else { return };
        gateway.up = true;
        gateway.life += 1;
        let life = gateway.life;
        self.trace.line(now, &format!("gateway {name} starts by table {}", gateway.table.revision));
        let soon = now + gateway.random.between(1, 300);
        self.queue.push(soon, Happening::GatewayConnects { gateway: name.clone(), life });
        self.queue.push(now + BEAT_MS, Happening::GatewayBeats { gateway: name.clone(), life });
        self.queue.push(soon, Happening::GatewayWorks { gateway: name.clone(), life });
    }

    /// It dies, and with it every request it has in flight; its table is on its disk.
    pub(crate) fn gateway_dies(&mut self, name: &GatewayName) {
        let now = self.now;
        let Some(gateway) = self.gateways.get_mut(name).filter(|gateway| gateway.up) else { return };
        gateway.up = false;
        gateway.life += 1;
        gateway.in_flight.clear();
        gateway.counted = Counted::default();
        gateway.connection = None;
        gateway.told = None;
        let back = now + gateway.random.between(100, 15_000);
        self.trace.line(now, &format!("gateway {name} dies"));
        self.queue.push(back, Happening::GatewayStarts { gateway: name.clone() });
    }

    fn has_gateway(&mut self, name: &GatewayName, life: u64) -> Option<&mut Gateway> {
        self.gateways.get_mut(name).filter(|gateway| gateway.up && gateway.life == life)
    }

    pub(crate) fn gateway_connects(&mut self, name: &GatewayName, life: u64) {
        let (now, process) = (self.now, self.coordinator.as_ref().map(|coordinator| coordinator.process));
        self.connections += 1;
        let connection = self.connections;
        let Some(gateway) = self.has_gateway(name, life) else { return };
        let Some(process) = process else {
            gateway.connection = None;
            let again = now + gateway.random.between(100, 2000);
            let happening = Happening::GatewayConnects { gateway: name.clone(), life };
            return self.queue.push(again, happening);
        };
        gateway.connection = Some((connection, process));
        gateway.heard_at = now;
        let state = gateway.state(now);
        gateway.told = Some(state.clone());
        self.gateway_says(name, Word::State { first: true, state });
    }

    pub(crate) fn gateway_beats(&mut self, name: &GatewayName, life: u64) {
        let now = self.now;
        let Some(gateway) = self.has_gateway(name, life) else { return };
        let next = Happening::GatewayBeats { gateway: name.clone(), life };
        let silent = gateway.connection.is_some() && now - gateway.heard_at > SILENCE_MS;
        let connected = gateway.connection.is_some();
        let again = now + gateway.random.between(10, 500);
        if silent {
            gateway.connection = None;
        }
        let counted = gateway.report();
        self.queue.push(now + BEAT_MS, next);
        if silent {
            self.queue.push(again, Happening::GatewayConnects { gateway: name.clone(), life });
        } else if connected {
            self.gateway_says(name, Word::Beat);
            self.gateway_says(name, Word::Counted(Box::new(counted)));
        }
    }

    /// Requests end, one more is sent, and what changed is told.
    pub(crate) fn gateway_works(&mut self, name: &GatewayName, life: u64) {
        let now = self.now;
        self.end_requests(name);
        let Some(gateway) = self.has_gateway(name, life) else { return };
        let next = now + gateway.random.between(50, 500);
        let upstreams: Vec<UpstreamId> =
            gateway.served(now).flat_map(|route| route.upstreams.keys().cloned()).collect();
        let room = gateway.in_flight.len() < IN_FLIGHT_MAX;
        if !upstreams.is_empty() && room {
            let id = gateway.random.pick(&upstreams).clone();
            let long = gateway.random.percent(3);
            let length = gateway.random.between(5, if long { 40_000 } else { 1500 });
            gateway.requests += 1;
            let number = gateway.requests;
            gateway.in_flight.insert(number, (id.clone(), now + length));
            self.count(name, &id);
            self.judge_request(name, &id);
        }
        self.queue.push(next, Happening::GatewayWorks { gateway: name.clone(), life });
        self.gateway_tells(name);
    }

    /// Requests end in their time, or with the process that answers them.
    fn end_requests(&mut self, name: &GatewayName) {
        let now = self.now;
        let Some(gateway) = self.gateways.get_mut(name) else { return };
        let nodes = &self.nodes;
        gateway.in_flight.retain(|_, (id, until)| {
            let key = (id.instance.clone(), id.run);
            let answers = nodes.values().any(|host| host.runs.get(&key).is_some_and(|run| run.pid.is_some()));
            *until > now && answers
        });
    }

    /// Says what it serves by and is busy with, where that is not what it said last.
    fn gateway_tells(&mut self, name: &GatewayName) {
        let now = self.now;
        let Some(gateway) = self.gateways.get_mut(name).filter(|gateway| gateway.connection.is_some()) else {
            return;
        };
        let state = gateway.state(now);
        if gateway.told.as_ref() != Some(&state) {
            gateway.told = Some(state.clone());
            self.gateway_says(name, Word::State { first: false, state });
        }
    }

    fn gateway_says(&mut self, name: &GatewayName, word: Word) {
        let connection = self.gateways.get(name).and_then(|gateway| gateway.connection);
        if let Some((connection, process)) = connection {
            self.post(Letter { gateway: name.clone(), connection, process, word });
        }
    }

    /// Puts a letter on its way, or loses it; a table may come again, late.
    pub(crate) fn post(&mut self, letter: Letter) {
        let (now, faulty) = (self.now, self.faults_on);
        let Some(gateway) = self.gateways.get_mut(&letter.gateway) else { return };
        if matches!(letter.word, Word::Counted(_)) {
            // Of a stream of its own, and out of the order of the rest: seeds go on as they did without.
            let wait = gateway.counting.between(1, 20) + gateway.link.slow_ms;
            if !gateway.link.up_cut {
                self.queue.push(now + wait, Happening::Posted(letter));
            }
            return;
        }
        let Gateway { random, link, .. } = gateway;
        let Some(at) = link.arrival(random, letter.connection, letter.goes_up(), faulty, now) else { return };
        let again = faulty && matches!(letter.word, Word::Table(_)) && random.percent(15);
        if again {
            let later = at + random.between(1, 20_000);
            self.queue.push(later, Happening::Posted(letter.clone()));
        }
        self.queue.push(at, Happening::Posted(letter));
    }

    /// A letter arrives.
    pub(crate) fn posted(&mut self, letter: Letter) {
        if letter.goes_up() {
            return self.coordinator_hears_gateway(letter);
        }
        let (now, mutation) = (self.now, self.options.mutation);
        let Letter { gateway: name, connection, word, .. } = letter;
        let Some(gateway) = self.gateways.get_mut(&name).filter(|gateway| gateway.up) else { return };
        match word {
            Word::BeatBack => {
                if gateway.connection.is_some_and(|(current, _)| current == connection) {
                    gateway.heard_at = now;
                }
            }
            Word::Table(table) => {
                let older = table.revision < gateway.table.revision;
                if older && mutation != Some(Mutation::OldTableTaken) {
                    return;
                }
                self.trace.line(now, &format!("gateway {name} takes table {}", table.revision));
                gateway.table = *table;
                let life = gateway.life;
                let late = self.faults_on && gateway.random.percent(5);
                let wait = gateway.random.between(0, if late { 4000 } else { 20 });
                self.queue.push(now + wait, Happening::GatewayAcknowledges { gateway: name, life });
            }
            Word::State { .. } | Word::Beat | Word::Counted(_) => {}
        }
    }

    pub(crate) fn gateway_acknowledges(&mut self, name: &GatewayName, life: u64) {
        if self.has_gateway(name, life).is_some() {
            self.end_requests(name);
            self.gateway_tells(name);
        }
    }
}
