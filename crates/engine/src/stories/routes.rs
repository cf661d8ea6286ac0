//! Gateways in the loop: nothing counts before they know it, nothing stops before they let go of it.

use crate::fleet::{Fleet, fleet, route_spec, service_name, spec};
use baton_model::id::{PortName, ReleaseNumber, RouteRevision};
use baton_model::report::Health;
use baton_model::rollout::RolloutOutcome;
use baton_model::route::{UpstreamId, Weight};
use baton_model::spec::{Count, Port, PortKind, ServiceSpec};
use baton_model::time::Millis;

const SOON: Millis = Millis::secs(90);

/// `web` behind gateways, on ports that are picked for each run, or on a fixed one.
fn routed(replicas: u32, kind: PortKind) -> ServiceSpec {
    let mut spec = spec("web", replicas);
    spec.ports.insert(PortName::new("main").unwrap(), Port { kind });
    spec.route = Some(route_spec());
    spec
}

/// Three nodes, the gateways g1 and g2, and a first release that stands.
fn behind(kind: PortKind) -> Fleet {
    let mut fleet = fleet(3, 3);
    fleet.join_gateway("g1").join_gateway("g2");
    fleet.deploy(routed(3, kind)).until(RolloutOutcome::Succeeded, SOON).run(Millis::secs(5));
    assert_eq!(fleet.routed(), "web.1/1=1 web.2/1=1 web.3/1=1");
    fleet.events.clear();
    fleet
}

fn reasons(fleet: &Fleet) -> String {
    let waiting = &fleet.web().unwrap().waiting;
    waiting
        .iter()
        .map(|waiting| format!("{}: {}", waiting.gate, waiting.reason))
        .collect::<Vec<_>>()
        .join("\n")
}

fn revision(fleet: &Fleet) -> RouteRevision {
    fleet.route_of_web().unwrap().revision
}

#[test]
fn a_rollout_follows_what_gateways_have_acknowledged() {
    let mut fleet = behind(PortKind::Dynamic);
    fleet.gateway("g2", |gateway| gateway.deaf = true);
    fleet.deploy(routed(3, PortKind::Dynamic)).run(Millis::secs(20));
    assert_eq!(fleet.running(), "n1=2 n2=1 n3=1", "{}", fleet.journal());
    assert_eq!(fleet.routed(), "web.1/2=2 web.2/1=1 web.3/1=1");
    assert!(reasons(&fleet).contains("gateway g2 must acknowledge route revision"), "{}", reasons(&fleet));
    assert_eq!(fleet.web().unwrap().ready, 2, "what g2 does not know is not available");
    fleet.gateway("g2", |gateway| gateway.deaf = false).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.routed(), "web.1/2=2 web.2/2=2 web.3/2=2");
    let journal = fleet.journal();
    assert_eq!(fleet.run(Millis::secs(5)).web().unwrap().health, Health::Healthy, "{journal}");
    assert!(fleet.web().unwrap().waiting.is_empty(), "{}", reasons(&fleet));
}

#[test]
fn a_gateway_that_never_acknowledges_fails_a_rollout_in_its_time_and_it_goes_back() {
    let mut fleet = behind(PortKind::Dynamic);
    fleet.gateway("g2", |gateway| gateway.deaf = true);
    fleet.deploy(routed(3, PortKind::Dynamic)).run(Millis::secs(90));
    assert_eq!(fleet.outcome(), Some(RolloutOutcome::RollingBack));
    assert!(fleet.journal().contains("gateway g2 must acknowledge"), "{}", fleet.journal());
    fleet.gateway("g2", |gateway| gateway.deaf = false).until(RolloutOutcome::RolledBack, SOON);
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=1");
}

#[test]
fn a_silent_gateway_is_waited_out_by_its_lease() {
    let mut fleet = behind(PortKind::Dynamic);
    fleet.gateway("g2", |gateway| gateway.silent = true);
    fleet.deploy(routed(3, PortKind::Dynamic)).run(Millis::secs(9));
    assert_eq!(fleet.running(), "n1=2 n2=1 n3=1");
    fleet.until(RolloutOutcome::Succeeded, Millis::secs(30));
    fleet.gateway("g2", |gateway| gateway.silent = false).run(Millis::secs(2));
    assert_eq!(fleet.web().unwrap().health, Health::Healthy);
}

#[test]
fn a_joined_gateway_is_waited_for_when_the_coordinator_starts_anew() {
    let mut fleet = behind(PortKind::Dynamic);
    fleet.gateway("g2", |gateway| gateway.silent = true).restart_coordinator();
    fleet.deploy(routed(2, PortKind::Dynamic)).run(Millis::secs(8));
    assert_eq!(fleet.running(), "n1=2 n2=1 n3=1", "g2 may still send to all of them");
    assert!(
        reasons(&fleet).contains("has not been heard since the coordinator started"),
        "{}",
        reasons(&fleet)
    );
    fleet.until(RolloutOutcome::Succeeded, SOON);
}

#[test]
fn a_run_on_a_fixed_port_leaves_the_gateways_before_it_is_stopped() {
    let mut fleet = behind(PortKind::Fixed { port: 8080 });
    let busy: UpstreamId = "web.1/1".parse().unwrap();
    fleet.gateway("g1", |gateway| gateway.in_flight = [(busy.clone(), 2)].into());
    fleet.deploy(routed(3, PortKind::Fixed { port: 8080 })).run(Millis::secs(5));
    assert_eq!((fleet.running(), fleet.routed()), ("n1=1 n2=1 n3=1".into(), "web.2/1=1 web.3/1=1".into()));
    assert!(
        reasons(&fleet).contains("run 1 leaves the gateways: 2 requests are in flight"),
        "{}",
        reasons(&fleet)
    );
    fleet.gateway("g1", |gateway| gateway.in_flight.clear()).run(Millis::secs(1));
    assert_eq!(fleet.running(), "n1=1? n2=1 n3=1", "it is stopped, and the other release comes");
    fleet.until(RolloutOutcome::Succeeded, SOON).run(Millis::secs(2));
    assert_eq!(fleet.routed(), "web.1/2=2 web.2/2=2 web.3/2=2");
    assert_eq!(fleet.count("requests-cut"), 0);
}

#[test]
fn a_rollout_that_is_taken_back_while_a_run_leaves_brings_it_back_into_the_route() {
    let mut fleet = behind(PortKind::Fixed { port: 8080 });
    fleet.gateway("g1", |gateway| gateway.deaf = true);
    fleet.deploy(routed(3, PortKind::Fixed { port: 8080 })).run(Millis::secs(2));
    assert_eq!(fleet.routed(), "web.2/1=1 web.3/1=1");
    fleet.control(|control| control.abort = true).run(Millis::secs(1));
    assert_eq!(fleet.routed(), "web.1/1=1 web.2/1=1 web.3/1=1");
    fleet.gateway("g1", |gateway| gateway.deaf = false).until(RolloutOutcome::RolledBack, SOON);
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=1");
}

#[test]
fn what_retires_stays_until_its_requests_are_done_or_its_time_is_over() {
    let mut fleet = behind(PortKind::Dynamic);
    let in_flight = ["web.1/1", "web.2/1", "web.3/1"].map(|id| (id.parse().unwrap(), 7));
    fleet.gateway("g1", |gateway| gateway.in_flight = in_flight.into());
    fleet.deploy(routed(1, PortKind::Dynamic)).run(Millis::secs(30));
    let journal = fleet.journal();
    assert_eq!(fleet.running().matches('=').count(), 1, "{journal}");
    assert!(fleet.count("requests-cut") >= 2, "{journal}");
    assert!(
        journal.contains("was drained for 10s and is let go: 7 requests are still in flight to it at g1"),
        "{journal}"
    );
}

#[test]
fn a_removed_service_leaves_the_gateways_first() {
    let mut fleet = behind(PortKind::Dynamic);
    fleet.gateway("g1", |gateway| gateway.deaf = true).remove().run(Millis::secs(5));
    assert_eq!((fleet.running(), fleet.routed()), ("n1=1 n2=1 n3=1".into(), String::new()));
    fleet.gateway("g1", |gateway| gateway.deaf = false).run(Millis::secs(2));
    assert_eq!((fleet.running(), fleet.web()), (String::new(), None));
}

#[test]
fn what_a_gateway_cannot_serve_is_not_available_and_the_report_says_why() {
    let mut fleet = behind(PortKind::Dynamic);
    let why = "cannot listen on 0.0.0.0:5432: address in use";
    fleet.gateway("g2", |gateway| drop(gateway.unserved.insert(service_name("web"), why.to_owned())));
    fleet.deploy(routed(3, PortKind::Dynamic)).run(Millis::secs(20));
    assert_eq!(
        fleet.running(),
        "n1=2 n2=1 n3=1",
        "one was not available and cost nothing; no further one begins"
    );
    assert_eq!((fleet.web().unwrap().ready, fleet.count("rolled-back")), (0, 0), "{}", fleet.journal());
    assert!(reasons(&fleet).contains(&format!("gateway g2 {why}")), "{}", reasons(&fleet));
    // What it has acknowledged lets go of what left: such a gateway sends nothing to it.
    fleet.gateway("g2", |gateway| gateway.unserved.clear()).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.run(Millis::secs(5)).web().unwrap().health, Health::Healthy);
}

#[test]
fn a_route_that_is_given_up_names_nobody_until_all_have_let_go_and_its_revision_goes_on() {
    let mut fleet = behind(PortKind::Dynamic);
    fleet.gateway("g1", |gateway| gateway.deaf = true);
    let mut plain = routed(3, PortKind::Dynamic);
    plain.route = None;
    fleet.deploy(plain).run(Millis::secs(2));
    assert_eq!(fleet.routed(), "");
    let left = revision(&fleet);
    fleet.gateway("g1", |gateway| gateway.deaf = false).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.route_of_web(), None);
    fleet.deploy(routed(3, PortKind::Dynamic)).until(RolloutOutcome::Succeeded, SOON);
    assert!(revision(&fleet) > left);
}

#[test]
fn the_revision_grows_with_what_the_route_says_and_passes_what_gateways_have() {
    let mut fleet = behind(PortKind::Dynamic);
    let before = revision(&fleet);
    assert_eq!(revision(fleet.run(Millis::secs(10))), before, "nothing has changed");
    fleet.agent("n2", |agent| {
        let now = baton_model::time::UnixMs(0);
        agent.instances.values_mut().for_each(|instance| instance.crash(now));
        agent.bad.insert((service_name("web"), ReleaseNumber(1)));
    });
    fleet.faulty = true;
    fleet.run(Millis::secs(1));
    assert_eq!((fleet.routed(), revision(&fleet)), ("web.1/1=1 web.3/1=1".into(), before.next()));
    // A store from an older copy: gateways have more than it has given.
    let web = &mut fleet.progress.get_mut(&service_name("web")).unwrap().value;
    web.route.revision = RouteRevision(1);
    web.route.current.as_mut().unwrap().revision = RouteRevision(1);
    web.route.entered.values_mut().for_each(|entered| *entered = RouteRevision(1));
    fleet.run(Millis::secs(1));
    assert_eq!(revision(&fleet), before.next().next());
}

#[test]
fn requests_follow_the_instances_of_each_release_in_a_rollout_and_the_stable_one_after_it() {
    let mut fleet = behind(PortKind::Dynamic);
    let weights = |fleet: &Fleet| {
        let split = &fleet.route_of_web().unwrap().split.weights;
        split.iter().map(|(release, weight)| (release.0, weight.0)).collect::<Vec<_>>()
    };
    assert_eq!(weights(&fleet), [(1, Weight::ALL.0)]);
    let mut second = routed(3, PortKind::Dynamic);
    second.rollout.approve_before = vec![2];
    fleet.deploy(second).until(RolloutOutcome::Paused, SOON);
    assert_eq!(weights(&fleet), [(1, 6_667), (2, 3_333)]);
    fleet.control(|control| control.approved_through = 2).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(weights(&fleet), [(2, Weight::ALL.0)]);
}

#[test]
fn a_service_without_a_live_gateway_works_as_without_a_route() {
    let mut fleet = fleet(3, 3);
    fleet.deploy(routed(3, PortKind::Fixed { port: 8080 })).until(RolloutOutcome::Succeeded, SOON);
    fleet.deploy(routed(3, PortKind::Fixed { port: 8080 })).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.running(), "n1=2 n2=2 n3=2");
    let mut fewer = routed(3, PortKind::Fixed { port: 8080 });
    fewer.placement.count = Count::Replicas(1);
    fleet.deploy(fewer).until(RolloutOutcome::Succeeded, SOON).run(Millis::secs(5));
    assert_eq!(fleet.running().matches('=').count(), 1);
}
