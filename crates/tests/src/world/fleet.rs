//! The fleet of one seed: its nodes, its services, and what their releases ask for.

use super::World;
use super::counting;
use super::gateway::Gateway;
use super::node::Node;
use super::random::Random;
use super::strategies;
use super::workload::Behaviour;
use baton_model::artifact::{Artifact, ArtifactFormat};
use baton_model::configuration::{ConfigFile, OnChange};
use baton_model::desired::{self, Release, Service};
use baton_model::id::{Digest, GatewayName, NodeName, PortName, ReleaseNumber, ServiceName, Version};
use baton_model::lifecycle::Near;
use baton_model::rollout::{OnFailure, RolloutControl, RolloutPolicy, Strategy};
use baton_model::route::{
    Balance, Ejection, Entry, HttpProtocol, Key, Retries, RouteSpec, Timeouts, TrafficLimits, Weight,
};
use baton_model::spec::{
    Amount, Check, Checks, Count, LogPolicy, Placement, Port, PortKind, Probe, RestartMode, RestartPolicy,
    ServiceSpec, StopPolicy, StopSignal,
};
use baton_model::time::Millis;
use std::collections::BTreeMap;

impl World {
    /// Makes the nodes and services of this seed. Operators deploy first releases in the first seconds.
    pub(crate) fn populate(&mut self) {
        let mut random = Random::of(self.options.seed, "fleet");
        let zones = random.between(1, 3);
        for number in 1..=random.between(3, 6) {
            let name = NodeName::new(format!("n{number}")).expect("a valid name");
            let labels = BTreeMap::from([("zone".to_owned(), format!("z{}", number % zones + 1))]);
            let node = desired::Node {
                name: name.clone(),
                address: format!("127.0.1.{number}"),
                labels,
                cordoned: false,
                draining: false,
                joined_at: self.unix_now(),
            };
            self.store.desired.nodes.insert(name.clone(), node);
            self.nodes.insert(name.clone(), Node::new(self.options.seed, &name));
            self.links.insert(name, Default::default());
        }
        self.populate_gateways();
        // A stream of its own: a seed draws the same fleet with and without.
        let mut order = Random::of(self.options.seed, "order");
        let mut strategies = Random::of(self.options.seed, "strategies");
        let services = usize::try_from(random.between(1, 2)).unwrap_or(1);
        for (number, name) in (80..).zip(["api", "web"]).take(services) {
            let name = ServiceName::new(name).expect("a valid name");
            let mut spec = draw_spec(&mut random, &name, number, self.nodes.len());
            spec.lifecycle.after = draw_after(&mut order, self.specs.keys());
            let routed = !self.gateways.is_empty() && self.random.gateways.percent(85);
            spec.route = routed.then(|| route_spec(PortName::new("main").expect("a valid name")));
            if routed {
                strategies::draw(&mut strategies, &mut spec);
                counting::draw(self.options.seed, &mut spec, number);
            }
            self.specs.insert(name.clone(), spec);
            let service = Service {
                name: name.clone(),
                releases: BTreeMap::new(),
                request: None,
                control: RolloutControl::default(),
                removed: false,
                reload: 0,
            };
            self.store.desired.services.insert(name, service);
        }
        self.take_ports();
    }

    /// Half of the seeds have gateways. Their chance is of a stream of its own.
    fn populate_gateways(&mut self) {
        let random = &mut self.random.gateways;
        let count = if random.percent(50) { random.between(1, 3) } else { 0 };
        for number in 1..=count {
            let name = GatewayName::new(format!("g{number}")).expect("a valid name");
            self.gateways.insert(name.clone(), Gateway::new(self.options.seed, &name));
            self.store.desired.gateways.insert(name);
        }
    }

    /// Makes a release of a service, and draws how it behaves.
    pub(crate) fn new_release(&mut self, name: &ServiceName, good: bool) -> Option<Release> {
        let mut spec = self.specs.get(name)?.clone();
        let service = self.store.desired.services.get(name)?;
        let number = service.releases.keys().next_back().map_or(ReleaseNumber(1), |last| last.next());
        let mut behaviour = Behaviour::draw(&mut self.random.operator, self.options.calm());
        if good && !behaviour.is_good() {
            behaviour = Behaviour::Good { start_ms: 500 };
        }
        self.trace.line(self.now, &format!("operator makes {name} release {number}: {behaviour:?}"));
        self.behaviours.insert((name.clone(), number), behaviour);
        // Each third release differs from the one before in nothing but a file, told by a signal.
        spec.configuration.files.insert("app.conf".to_owned(), file_of(number));
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&(number.0 - u64::from(number.0.is_multiple_of(3))).to_le_bytes());
        digest[8..11].copy_from_slice(&name.as_str().as_bytes()[..3]);
        Some(Release {
            number,
            version: Version::new(format!("{number}.0")).expect("a valid version"),
            artifact: Artifact {
                digest: Digest(digest),
                size_bytes: 1,
                format: ArtifactFormat::Tar,
                unpacked_bytes: 1,
            },
            spec,
            created_at: self.unix_now(),
            created_by: "sim".to_owned(),
        })
    }
}

/// A file that differs from release to release.
fn file_of(release: ReleaseNumber) -> ConfigFile {
    ConfigFile { template: format!("release {release}"), on_change: OnChange::Signal(StopSignal::Sighup) }
}

/// Some services come after those that were drawn before them.
fn draw_after<'a>(
    random: &mut Random,
    earlier: impl Iterator<Item = &'a ServiceName>,
) -> BTreeMap<ServiceName, Near> {
    earlier.filter(|_| random.percent(30)).map(|name| (name.clone(), Near::Anywhere)).collect()
}

/// What the releases of a service ask for; alike for all of them, so that its floor and batch are one number.
fn draw_spec(random: &mut Random, name: &ServiceName, number: u16, nodes: usize) -> ServiceSpec {
    let port = PortName::new("main").expect("a valid name");
    let kind = match random.between(0, 9) {
        0..=5 => PortKind::Socket { port: number },
        6 => PortKind::Dynamic,
        _ => PortKind::Fixed { port: number },
    };
    // A port of the host is taken once per node, so there are never more instances than nodes for those.
    let most = if kind == PortKind::Dynamic { 6 } else { u64::try_from(nodes).unwrap_or(1) };
    let per_node = random.percent(15);
    let replicas = u32::try_from(if per_node { most.min(3) } else { random.between(1, most) }).unwrap_or(1);
    let spread = random.percent(40).then(|| "zone".to_owned());
    let check = Check {
        probe: Probe::Tcp { port: port.clone() },
        interval: Millis(500),
        timeout: Millis(400),
        rise: 1,
        fall: 2,
    };
    ServiceSpec {
        name: name.clone(),
        exec: vec!["server".to_owned()],
        env: BTreeMap::new(),
        ports: BTreeMap::from([(port, Port { kind })]),
        checks: Checks { startup: None, readiness: Some(check), liveness: None },
        stop: StopPolicy {
            signal: StopSignal::Sigterm,
            timeout: Millis::secs(5),
            drain: Millis::secs(random.between(1, 15)),
        },
        restart: RestartPolicy {
            mode: *random.pick(&[
                RestartMode::Always,
                RestartMode::Always,
                RestartMode::OnFailure,
                RestartMode::Never,
            ]),
            base: Millis(200),
            max: Millis::secs(20),
            reset_after: Millis::secs(60),
            crash_loop_after: 4,
        },
        placement: Placement {
            count: if per_node { Count::PerNode } else { Count::Replicas(replicas) },
            require: BTreeMap::new(),
            spread,
            lost_after: Millis::secs(random.between(10, 60)),
        },
        min_available: Amount::Number(u32::try_from(random.between(0, u64::from(replicas) - 1)).unwrap_or(0)),
        rollout: RolloutPolicy {
            strategy: Strategy::Rolling,
            batch: Amount::Number(u32::try_from(random.between(1, 3)).unwrap_or(1)),
            max_unavailable: Amount::Number(u32::try_from(random.between(1, 3)).unwrap_or(1)),
            zone_at_a_time: random.percent(25),
            first_zone_bake: Millis::secs(random.between(0, 10)),
            min_healthy: Millis::secs(random.between(0, 5)),
            healthy_deadline: Millis::secs(random.between(15, 40)),
            progress_deadline: Millis::secs(random.between(50, 90)),
            failure_tolerance: Amount::Number(u32::from(random.percent(15))),
            on_failure: if random.percent(70) { OnFailure::RollBack } else { OnFailure::Pause },
            approve_before: if random.percent(15) { vec![2] } else { Vec::new() },
            analysis: Vec::new(),
        },
        logs: LogPolicy { max_bytes: 1 << 20, keep: 3, journald: false },
        lifecycle: Default::default(),
        limits: Default::default(),
        sandbox: Default::default(),
        configuration: Default::default(),
        route: None,
    }
}

/// A route to a port; what gateways do beyond sending requests is no part of this world.
fn route_spec(port: PortName) -> RouteSpec {
    RouteSpec {
        entry: Entry::Http { hosts: Vec::new(), path: "/".to_owned(), protocol: HttpProtocol::Http1 },
        port,
        balance: Balance::LeastLoaded,
        split_by: Key::Address,
        sticky_cookie: None,
        timeouts: Timeouts { connect: Millis::secs(1), response: Millis::secs(30), idle: Millis::secs(60) },
        retries: Retries { attempts: 1, budget_percent: 20, hedge_after: Millis::ZERO },
        limits: TrafficLimits {
            body_bytes_max: 1 << 20,
            in_flight_max: 100,
            queue_max: 100,
            queue_timeout: Millis::secs(1),
        },
        check: None,
        ejection: Ejection { failures: 5, base: Millis::secs(10), share_max: Weight(5_000) },
        slow_start: Millis::ZERO,
        zone_spill_below: Weight(7_000),
    }
}
