//! Faults: drawn from the seed while they are on, and all of them ended when the world heals.

use super::World;
use super::queue::Happening;
use baton_model::id::{GatewayName, InstanceId, NodeName, RunNumber, ServiceName};
use baton_model::observed::Exit;

/// What may strike.
#[derive(Clone, Copy, Debug)]
enum Fault {
    AgentDies,
    AgentFreezes,
    HostDies,
    CoordinatorDies,
    CoordinatorFreezes,
    CutBothWays,
    CutUp,
    CutDown,
    SlowLink,
    WorkloadDies,
    ShimDies,
    BytesRot,
    AnotherWriter,
}

const FAULTS: [Fault; 16] = [
    Fault::AgentDies,
    Fault::AgentDies,
    Fault::AgentFreezes,
    Fault::HostDies,
    Fault::CoordinatorDies,
    Fault::CoordinatorDies,
    Fault::CoordinatorFreezes,
    Fault::CutBothWays,
    Fault::CutUp,
    Fault::CutDown,
    Fault::SlowLink,
    Fault::WorkloadDies,
    Fault::WorkloadDies,
    Fault::ShimDies,
    Fault::BytesRot,
    Fault::AnotherWriter,
];

/// What may strike a gateway.
#[derive(Clone, Copy, Debug)]
enum GatewayFault {
    Dies,
    Freezes,
    Slow,
    CutBothWays,
    CutUp,
    CutDown,
}

const GATEWAY_FAULTS: [GatewayFault; 7] = [
    GatewayFault::Dies,
    GatewayFault::Dies,
    GatewayFault::Freezes,
    GatewayFault::Slow,
    GatewayFault::CutBothWays,
    GatewayFault::CutUp,
    GatewayFault::CutDown,
];

impl World {
    /// One fault, and the time of the next.
    pub(crate) fn fault_strikes(&mut self) {
        if !self.faults_on {
            return;
        }
        let next = self.now + self.random.faults.between(500, self.options.fault_interval_ms());
        self.queue.push(next, Happening::FaultStrikes);
        let nodes: Vec<NodeName> = self.nodes.keys().cloned().collect();
        let node = self.random.faults.pick(&nodes).clone();
        let fault = *self.random.faults.pick(&FAULTS);
        let long = self.random.faults.percent(20);
        let length = self.random.faults.between(500, if long { 120_000 } else { 12_000 });
        self.trace.line(self.now, &format!("fault: {fault:?} {node} {length} ms"));
        self.strike(fault, &node, length);
    }

    fn strike(&mut self, fault: Fault, node: &NodeName, length: u64) {
        let until = self.now + length;
        match fault {
            Fault::AgentDies => self.agent_dies(node),
            Fault::AgentFreezes => {
                if let Some(host) = self.nodes.get_mut(node) {
                    host.frozen_until = host.frozen_until.max(until);
                }
            }
            Fault::HostDies => self.host_dies(node, length),
            Fault::CoordinatorDies => self.coordinator_dies(),
            Fault::CoordinatorFreezes => {
                if let Some(coordinator) = &mut self.coordinator {
                    coordinator.frozen_until = coordinator.frozen_until.max(until);
                }
            }
            Fault::CutBothWays => self.cut(node, true, true, until),
            Fault::CutUp => self.cut(node, true, false, until),
            Fault::CutDown => self.cut(node, false, true, until),
            Fault::SlowLink => {
                let slow_ms = self.random.faults.between(50, 2500);
                if let Some(link) = self.links.get_mut(node) {
                    link.slow_ms = slow_ms;
                }
                self.queue.push(until, Happening::LinkMends { node: node.clone() });
            }
            Fault::WorkloadDies => {
                if let Some((id, run)) = self.some_run(node) {
                    self.workload_exits(node, &id, run, Exit::Signal(9));
                }
            }
            Fault::ShimDies => {
                if let Some((id, run)) = self.some_run(node) {
                    self.shim_dies(node, &id, run);
                }
            }
            Fault::BytesRot => {
                let artifacts = self.nodes.get_mut(node).map(|host| &mut host.disk.artifacts);
                if let Some(intact) = artifacts.and_then(|artifacts| artifacts.values_mut().next_back()) {
                    *intact = false;
                }
            }
            Fault::AnotherWriter => {
                let names: Vec<ServiceName> = self.store.desired.services.keys().cloned().collect();
                let name = self.random.faults.pick(&names).clone();
                self.store.touch(&name, node);
            }
        }
    }

    /// One fault of a gateway, and the time of the next. Their chance is of a stream of its own.
    pub(crate) fn gateway_fault_strikes(&mut self) {
        if !self.faults_on {
            return;
        }
        let interval = self.options.fault_interval_ms();
        let random = &mut self.random.gateways;
        let next = self.now + random.between(500, interval);
        let names: Vec<GatewayName> = self.gateways.keys().cloned().collect();
        let name = random.pick(&names).clone();
        let fault = *random.pick(&GATEWAY_FAULTS);
        let long = random.percent(20);
        let until = self.now + random.between(500, if long { 60_000 } else { 8000 });
        let slow_ms = random.between(50, 2500);
        self.queue.push(next, Happening::GatewayFaultStrikes);
        self.trace.line(self.now, &format!("fault: {fault:?} {name} until {until}"));
        let Some(gateway) = self.gateways.get_mut(&name) else { return };
        let (up, down) = match fault {
            GatewayFault::Dies => return self.gateway_dies(&name),
            GatewayFault::Freezes => {
                gateway.frozen_until = gateway.frozen_until.max(until);
                return;
            }
            GatewayFault::Slow => {
                gateway.link.slow_ms = slow_ms;
                (false, false)
            }
            GatewayFault::CutBothWays => (true, true),
            GatewayFault::CutUp => (true, false),
            GatewayFault::CutDown => (false, true),
        };
        gateway.link.up_cut |= up;
        gateway.link.down_cut |= down;
        self.queue.push(until, Happening::GatewayLinkMends { gateway: name });
    }

    pub(crate) fn gateway_link_mends(&mut self, name: &GatewayName) {
        if let Some(gateway) = self.gateways.get_mut(name) {
            gateway.link.up_cut = false;
            gateway.link.down_cut = false;
            gateway.link.slow_ms = 0;
        }
    }

    fn cut(&mut self, node: &NodeName, up: bool, down: bool, until: u64) {
        if let Some(link) = self.links.get_mut(node) {
            link.up_cut |= up;
            link.down_cut |= down;
        }
        self.queue.push(until, Happening::LinkMends { node: node.clone() });
    }

    pub(crate) fn link_mends(&mut self, node: &NodeName) {
        if let Some(link) = self.links.get_mut(node) {
            link.up_cut = false;
            link.down_cut = false;
            link.slow_ms = 0;
        }
    }

    fn some_run(&mut self, node: &NodeName) -> Option<(InstanceId, RunNumber)> {
        let runs: Vec<(InstanceId, RunNumber)> = self.nodes.get(node)?.runs.keys().cloned().collect();
        (!runs.is_empty()).then(|| self.random.faults.pick(&runs).clone())
    }

    /// Everything that is broken outside of Baton is mended; what Baton makes of it is its own. What is frozen thaws at
    /// its time: what came meanwhile waits until then, and nothing that comes later may overtake it.
    pub(crate) fn heals(&mut self) {
        self.trace.line(self.now, "the world heals");
        self.healed = true;
        self.faults_on = false;
        let nodes: Vec<NodeName> = self.nodes.keys().cloned().collect();
        for node in nodes {
            self.link_mends(&node);
            self.host_boots(&node);
        }
        let gateways: Vec<GatewayName> = self.gateways.keys().cloned().collect();
        gateways.iter().for_each(|gateway| self.gateway_link_mends(gateway));
        self.gateways.values_mut().for_each(|gateway| gateway.taken.clear());
        self.restore_nodes();
        self.wake_coordinator();
        self.healed_at = self.now;
        self.queue.push(self.now + 1000, Happening::Looks);
    }
}
