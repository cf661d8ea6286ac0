//! How a fleet is built and what operators do to it.

use super::{Agent, Fleet};
use crate::cycle::Cycle;
use baton_model::artifact::{Artifact, ArtifactFormat};
use baton_model::desired::{Node, Release, Service};
use baton_model::id::{Digest, NodeName, ReleaseNumber, RolloutId, ServiceName, Version};
use baton_model::rollout::{OnFailure, RolloutControl, RolloutKind, RolloutPolicy, RolloutRequest, Strategy};
use baton_model::spec::{
    Amount, Checks, Count, LogPolicy, Placement, RestartMode, RestartPolicy, ServiceSpec, StopPolicy,
    StopSignal,
};
use baton_model::time::{Millis, UnixMs};
use std::collections::BTreeMap;

/// A fleet of so many nodes `n1`, `n2`, ... in so many zones `a`, `b`, ..., at a time that is not zero.
#[must_use]
pub fn fleet(nodes: u32, zones: u32) -> Fleet {
    let now = UnixMs(10_000);
    let mut fleet = Fleet { now, listening_since: now, cycle: Cycle::default(), ..Fleet::default() };
    for number in 1..=nodes {
        let zone = char::from(b'a' + u8::try_from((number - 1) % zones).unwrap_or(0));
        fleet.join(&format!("n{number}"), &zone.to_string());
    }
    fleet
}

/// A service's name.
///
/// # Panics
/// When it is not one.
#[must_use]
pub fn service_name(name: &str) -> ServiceName {
    ServiceName::new(name).expect("a test's own name")
}

fn node_name(name: &str) -> NodeName {
    NodeName::new(name).expect("a test's own name")
}

/// A specification without ports: changes overlap, one batch at a time of one instance, healthy after 2 s.
#[must_use]
pub fn spec(name: &str, replicas: u32) -> ServiceSpec {
    ServiceSpec {
        name: service_name(name),
        exec: vec!["server".to_owned()],
        env: BTreeMap::new(),
        ports: BTreeMap::new(),
        checks: Checks::default(),
        stop: StopPolicy { signal: StopSignal::Sigterm, timeout: Millis::secs(10), drain: Millis::secs(10) },
        restart: RestartPolicy {
            mode: RestartMode::Always,
            base: Millis(100),
            max: Millis::secs(30),
            reset_after: Millis::secs(60),
            crash_loop_after: 5,
        },
        placement: Placement {
            count: Count::Replicas(replicas),
            require: BTreeMap::new(),
            spread: None,
            lost_after: Millis::secs(30),
        },
        min_available: Amount::Percent(60),
        rollout: RolloutPolicy {
            strategy: Strategy::Rolling,
            batch: Amount::Number(1),
            max_unavailable: Amount::Number(1),
            zone_at_a_time: false,
            first_zone_bake: Millis::ZERO,
            min_healthy: Millis::secs(2),
            healthy_deadline: Millis::secs(60),
            progress_deadline: Millis::secs(120),
            failure_tolerance: Amount::Number(0),
            on_failure: OnFailure::RollBack,
            approve_before: Vec::new(),
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

/// A release: version `<number>.0`.
///
/// # Panics
/// Never: the version is well formed.
#[must_use]
pub fn release(number: u64, spec: ServiceSpec) -> Release {
    Release {
        number: ReleaseNumber(number),
        version: Version::new(format!("{number}.0")).expect("a version"),
        artifact: Artifact {
            digest: Digest([u8::try_from(number % 256).unwrap_or(0); 32]),
            size_bytes: 1,
            format: ArtifactFormat::Tar,
            unpacked_bytes: 1,
        },
        spec,
        created_at: UnixMs(0),
        created_by: "test".to_owned(),
    }
}

impl Fleet {
    /// A node joins.
    pub fn join(&mut self, name: &str, zone: &str) -> &mut Self {
        let name = node_name(name);
        let labels = BTreeMap::from([("zone".to_owned(), zone.to_owned())]);
        let node = Node {
            name: name.clone(),
            address: "127.0.0.1".to_owned(),
            labels,
            cordoned: false,
            draining: false,
            joined_at: self.now,
        };
        self.desired.nodes.insert(name.clone(), node);
        self.agents.insert(name, Agent::default());
        self
    }

    /// Deploys the next release of the service the specification names.
    pub fn deploy(&mut self, spec: ServiceSpec) -> &mut Self {
        let name = spec.name.clone();
        let service = self.desired.services.entry(name.clone()).or_insert_with(|| Service {
            name: name.clone(),
            releases: BTreeMap::new(),
            request: None,
            control: RolloutControl::default(),
            removed: false,
            reload: 0,
        });
        let number = service.releases.keys().next_back().map_or(1, |last| last.0 + 1);
        service.releases.insert(ReleaseNumber(number), release(number, spec));
        self.ask(&name, number, RolloutKind::Deploy)
    }

    /// Asks for an earlier release.
    pub fn undo(&mut self, to: u64) -> &mut Self {
        self.ask(&service_name("web"), to, RolloutKind::Undo)
    }

    fn ask(&mut self, name: &ServiceName, to: u64, kind: RolloutKind) -> &mut Self {
        let now = self.now;
        if let Some(service) = self.desired.services.get_mut(name) {
            let id = service.request.as_ref().map_or(RolloutId(1), |request| request.id.next());
            let requested_by = "test".to_owned();
            service.request =
                Some(RolloutRequest { id, to: ReleaseNumber(to), kind, requested_at: now, requested_by });
            service.control = RolloutControl { rollout: id, ..RolloutControl::default() };
        }
        self
    }

    /// Changes the control of the rollout of `web`.
    pub fn control(&mut self, change: impl FnOnce(&mut RolloutControl)) -> &mut Self {
        if let Some(service) = self.desired.services.get_mut(&service_name("web")) {
            change(&mut service.control);
        }
        self
    }

    /// Changes a node as its operators do.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn node(&mut self, name: &str, change: impl FnOnce(&mut Node)) -> &mut Self {
        change(self.desired.nodes.get_mut(&node_name(name)).expect("a node of this fleet"));
        self
    }

    /// Changes an agent, or what happens to it.
    ///
    /// # Panics
    /// When there is no such node.
    pub fn agent(&mut self, name: &str, change: impl FnOnce(&mut Agent)) -> &mut Self {
        change(self.agents.get_mut(&node_name(name)).expect("a node of this fleet"));
        self
    }

    /// A release of `web` never becomes ready, anywhere.
    pub fn bad(&mut self, release: u64) -> &mut Self {
        for agent in self.agents.values_mut() {
            agent.bad.insert((service_name("web"), ReleaseNumber(release)));
        }
        self
    }

    /// The bad releases are bad no longer.
    pub fn mend(&mut self) -> &mut Self {
        for agent in self.agents.values_mut() {
            agent.bad.clear();
        }
        self
    }

    /// The service `web` is removed.
    pub fn remove(&mut self) -> &mut Self {
        if let Some(service) = self.desired.services.get_mut(&service_name("web")) {
            service.removed = true;
        }
        self
    }
}
