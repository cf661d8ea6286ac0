//! Every noun goes over and comes back; every field that the model cannot hold is refused by its path; and no bytes
//! whatever make a conversion panic.

mod observed;
mod refusals;
mod reports;
mod routes;
mod samples;
mod specs;
mod statuses;
mod strategies;
mod trials;

use super::WireError;
use super::event::{agent_event, agent_event_to_wire};
use super::observed::{instance_to_wire, instances_observed};
use crate::v1;
use baton_model::desired::{Node, Release};
use baton_model::event::Event;
use baton_model::evidence::Evidence;
use baton_model::id::{EventSeq, NodeName};
use baton_model::metrics::NodeMetrics;
use baton_model::observed::{Exit, GatewayFacts, GatewayState};
use baton_model::plan::NodePlan;
use baton_model::report::{RolloutReport, ServiceReport};
use baton_model::route::RouteTable;
use baton_model::spec::ServiceSpec;
use baton_model::status::{DeployPlan, GatewayStatus, NodeStatus, RouteStatus, ServiceStatus, Traffic};
use baton_model::time::{Millis, UnixMs};
use baton_model::upgrade::AgentUpgrade;
use proptest::prelude::*;
use prost::Message;
use std::fmt::Debug;

/// Sends each over as bytes and compares what comes back.
fn check<M, W>(models: impl IntoIterator<Item = M>)
where
    M: Clone + PartialEq + Debug + TryFrom<W, Error = WireError>,
    W: Message + Default + From<M>,
{
    for model in models {
        let bytes = W::from(model.clone()).encode_to_vec();
        let wire = W::decode(bytes.as_slice()).expect("our own bytes");
        assert_eq!(M::try_from(wire), Ok(model));
    }
}

#[test]
fn everything_goes_over_and_comes_back() {
    check::<ServiceSpec, v1::ServiceSpec>(specs::specs());
    check::<Release, v1::Release>(samples::releases());
    check::<NodePlan, v1::NodePlan>(samples::plans());
    check::<Node, v1::Node>(samples::nodes());
    check::<NodeMetrics, v1::NodeMetrics>(observed::metrics());
    check::<Event, v1::Event>(samples::events());
    check::<ServiceReport, v1::ServiceReport>(reports::reports());
    check::<RolloutReport, v1::RolloutReport>(reports::rollouts());
    check::<ServiceStatus, v1::ServiceStatus>(statuses::services());
    check::<NodeStatus, v1::NodeStatus>(statuses::node_statuses());
    check::<DeployPlan, v1::DeployPlan>(statuses::deploy_plans());
    check::<Exit, v1::Exit>(observed::exits());
    check::<AgentUpgrade, v1::AgentUpgrade>(samples::upgrades());
    check::<RouteTable, v1::RouteTable>(routes::tables());
    check::<GatewayState, v1::GatewayState>(routes::states());
    check::<GatewayFacts, v1::GatewayFacts>(routes::facts());
    check::<Evidence, v1::Evidence>(routes::evidence());
    check::<GatewayStatus, v1::GatewayStatus>(routes::gateway_statuses());
    check::<RouteStatus, v1::RouteStatus>(routes::statuses());
    check::<Traffic, v1::Traffic>(routes::traffics());
}

#[test]
fn a_plan_sends_each_release_once() {
    for plan in samples::plans() {
        let mut releases: Vec<_> =
            plan.instances.iter().map(|(id, instance)| (id.service.clone(), instance.release)).collect();
        releases.sort();
        releases.dedup();
        let wire = v1::NodePlan::from(plan);
        assert_eq!(wire.releases.len(), releases.len());
    }
}

#[test]
fn a_release_that_changed_under_its_number_is_not_mixed_up() {
    let mut plan = samples::plans().into_iter().last().unwrap();
    let changed = plan.instances.values_mut().next().unwrap();
    changed.artifact.size_bytes += 1;
    check::<NodePlan, v1::NodePlan>([plan]);
}

#[test]
fn ready_for_is_turned_into_ready_since_on_the_receivers_clock() {
    let (id, instance) =
        observed::instances().into_iter().find(|(_, one)| one.ready_since.is_some()).unwrap();
    let since = instance.ready_since.unwrap();
    let wire = instance_to_wire(&id, instance, since.plus(Millis(1500)));
    assert_eq!(wire.ready_for_ms, Some(1500));
    // Another host's clock, at which the message arrives.
    let there = UnixMs(7_000_000);
    let received = instances_observed(vec![wire.clone()], there).unwrap();
    assert_eq!(received[&id].ready_since, Some(UnixMs(6_998_500)));
    // Ready for longer than our clock has run: since its beginning.
    let received = instances_observed(vec![wire], UnixMs(1000)).unwrap();
    assert_eq!(received[&id].ready_since, Some(UnixMs(0)));
}

#[test]
fn an_agents_event_gets_its_place_node_service_and_time() {
    let node = NodeName::new("n1").unwrap();
    let event = samples::events().into_iter().find(|event| event.instance.is_some()).unwrap();
    let wire = agent_event_to_wire(event.clone(), 5, Millis(300));
    assert_eq!((wire.sequence, wire.ago_ms), (5, 300));
    let received = agent_event(wire, &node, UnixMs(10_000), EventSeq(77)).unwrap();
    let service = event.instance.as_ref().map(|instance| instance.service.clone());
    assert_eq!(received, Event { seq: EventSeq(77), at: UnixMs(9_700), node: Some(node), service, ..event });
}

/// Bytes that may have become a message: a model that comes out of them must go over and come back.
fn survive<M, W>(bytes: &[u8])
where
    M: Clone + PartialEq + Debug + TryFrom<W, Error = WireError>,
    W: Message + Default + From<M>,
{
    if let Ok(Ok(model)) = W::decode(bytes).map(M::try_from) {
        check::<M, W>([model]);
    }
}

/// What a coordinator does with evidence: whatever counts it holds, nothing overflows and every figure is one.
fn use_up(evidence: &Evidence) {
    for service in evidence.services.values() {
        let mut sum = service.clone();
        (0..3).for_each(|_| sum.merge(service));
        sum.follow(service);
        for release in sum.releases.values() {
            assert!(release.failed() <= release.asked());
            assert!(release.latency.quantile_ms(0.99).is_finite());
            assert!(release.error_share().is_none_or(|share| (0.0..=1.0).contains(&share)));
            assert_eq!(release.since(release).ended(), 0);
        }
    }
    for trial in evidence.trials.values() {
        let mut clients = trial.control.clone();
        clients.merge(&trial.treatment);
        assert!(clients.count() >= trial.control.count().max(trial.treatment.count()) / 2);
        let arm = &trial.counts.treatment;
        assert!(arm.errors() <= arm.requests() && arm.latency.quantile_ms(0.5).is_finite());
    }
}

fn survive_as_anything(bytes: &[u8]) {
    survive::<ServiceSpec, v1::ServiceSpec>(bytes);
    survive::<NodePlan, v1::NodePlan>(bytes);
    survive::<Node, v1::Node>(bytes);
    survive::<NodeMetrics, v1::NodeMetrics>(bytes);
    survive::<Event, v1::Event>(bytes);
    survive::<ServiceStatus, v1::ServiceStatus>(bytes);
    survive::<NodeStatus, v1::NodeStatus>(bytes);
    survive::<DeployPlan, v1::DeployPlan>(bytes);
    survive::<RouteTable, v1::RouteTable>(bytes);
    survive::<GatewayState, v1::GatewayState>(bytes);
    survive::<Evidence, v1::Evidence>(bytes);
    if let Ok(Ok(evidence)) = v1::Evidence::decode(bytes).map(Evidence::try_from) {
        use_up(&evidence);
    }
    if let Ok(wire) = v1::Observed::decode(bytes) {
        let _ = instances_observed(wire.instances, UnixMs(1));
    }
    if let Ok(wire) = v1::AgentEvent::decode(bytes) {
        let _ = agent_event(wire, &NodeName::new("n1").unwrap(), UnixMs(1), EventSeq(1));
    }
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        survive_as_anything(&bytes);
    }

    /// Random bytes seldom parse; damaged good ones do.
    #[test]
    fn damaged_messages_never_panic(
        which in any::<proptest::sample::Index>(),
        damage in proptest::collection::vec((any::<proptest::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<proptest::sample::Index>(),
    ) {
        let good = samples::encoded();
        let mut bytes = which.get(&good).clone();
        for (at, value) in damage {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        survive_as_anything(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        survive_as_anything(&bytes);
    }
}
