//! Nodes and instances that fail, and operators who empty nodes.

use super::three;
use crate::fleet::{Fleet, fleet, service_name, spec};
use baton_model::report::Health;
use baton_model::rollout::RolloutOutcome;
use baton_model::spec::{Amount, Count, Port, PortKind, ServiceSpec};
use baton_model::time::Millis;

const SOON: Millis = Millis::secs(90);

fn up(nodes: u32, zones: u32, spec: ServiceSpec) -> Fleet {
    let mut fleet = fleet(nodes, zones);
    fleet.deploy(spec).until(RolloutOutcome::Succeeded, SOON).run(Millis::secs(5));
    fleet.events.clear();
    fleet
}

fn fixed(name: &str, replicas: u32) -> ServiceSpec {
    let mut spec = spec(name, replicas);
    let port = baton_model::id::PortName::new("http").unwrap();
    spec.ports.insert(port, Port { kind: PortKind::Fixed { port: 8080 } });
    spec
}

#[test]
fn a_lost_node_is_replaced_after_its_grace_and_stops_its_instance_when_it_is_back() {
    let mut fleet = up(4, 1, spec("web", 3));
    fleet.faulty = true;
    fleet.agent("n2", |agent| agent.silent = true).run(Millis::secs(25));
    assert_eq!(fleet.gates(), ["node-silent"]);
    assert_eq!(fleet.web().unwrap().health, Health::Degraded);
    fleet.run(Millis::secs(15));
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=1 n4=1");
    assert_eq!(fleet.web().unwrap().ready, 3);
    fleet.agent("n2", |agent| agent.silent = false).run(Millis::secs(5));
    assert_eq!(fleet.running(), "n1=1 n3=1 n4=1");
    assert_eq!(fleet.progress[&service_name("web")].value.slots.len(), 3);
    assert_eq!(
        (fleet.count("node-silent"), fleet.count("node-back"), fleet.count("instance-moved")),
        (1, 1, 1)
    );
}

#[test]
fn without_an_eligible_node_an_instance_stays_and_the_report_says_so() {
    let mut fleet = up(3, 3, fixed("web", 3));
    fleet.faulty = true;
    fleet.agent("n2", |agent| agent.silent = true).run(SOON);
    assert!(fleet.gates().contains(&"no-node"), "{:?}", fleet.gates());
    fleet.agent("n2", |agent| agent.silent = false).run(Millis::secs(5));
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=1");
    assert!(fleet.gates().is_empty(), "{:?}", fleet.web());
}

#[test]
fn many_nodes_silent_at_once_move_nothing() {
    let mut fleet = up(6, 1, spec("web", 6));
    fleet.faulty = true;
    for node in ["n1", "n2", "n3"] {
        fleet.agent(node, |agent| agent.silent = true);
    }
    fleet.run(SOON);
    assert_eq!((fleet.count("instance-moved"), fleet.gates()), (0, vec!["mass-failure"]));
    fleet.node("n1", |node| node.draining = true).run(SOON);
    assert_eq!(fleet.count("instance-moved"), 1, "{}", fleet.journal());
}

#[test]
fn a_rollout_passes_a_node_that_is_lost() {
    let mut fleet = three();
    fleet.faulty = true;
    fleet.agent("n2", |agent| agent.silent = true).run(Millis::secs(5));
    fleet.deploy(spec("web", 3)).until(RolloutOutcome::Succeeded, SOON);
    fleet.agent("n2", |agent| agent.silent = false).run(SOON);
    let running = fleet.running();
    assert_eq!(running.matches("=2").count(), 3, "{running}");
    assert!(!running.contains("=1"), "{running}");
}

#[test]
fn a_coordinator_that_starts_anew_waits_until_it_has_heard() {
    let mut fleet = three();
    fleet.deploy(spec("web", 3)).run(Millis::secs(4));
    fleet.restart_coordinator().until(RolloutOutcome::Succeeded, SOON);
    assert_eq!((fleet.running().as_str(), fleet.count("instance-moved")), ("n1=2 n2=2 n3=2", 0));
}

#[test]
fn a_drained_node_is_left_once_the_replacement_is_ready() {
    let mut fleet = up(4, 1, spec("web", 3));
    fleet.node("n1", |node| node.draining = true).tick();
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=1 n4=1?");
    fleet.run(Millis::secs(5));
    assert_eq!(fleet.running(), "n2=1 n3=1 n4=1");
    fleet.node("n1", |node| node.draining = false).run(SOON);
    assert_eq!(fleet.running(), "n2=1 n3=1 n4=1", "what fits is never moved");
}

#[test]
fn a_drain_in_a_rollout_still_ends_both() {
    let mut fleet = up(4, 1, spec("web", 3));
    fleet.deploy(spec("web", 3)).run(Millis::secs(3));
    fleet.node("n3", |node| node.draining = true).until(RolloutOutcome::Succeeded, SOON).run(SOON);
    assert_eq!(fleet.running(), "n1=2 n2=2 n4=2");
}

#[test]
fn a_cordoned_node_keeps_what_it_has_and_gets_nothing_new() {
    let mut fleet = up(3, 1, spec("web", 2));
    fleet.node("n1", |node| node.cordoned = true).node("n3", |node| node.cordoned = true);
    fleet.deploy(spec("web", 4)).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.running(), "n1=2 n2=2 n2=2 n2=2");
}

#[test]
fn more_and_fewer_replicas() {
    let mut fleet = up(4, 2, spec("web", 2));
    fleet.deploy(spec("web", 4)).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.running(), "n1=2 n2=2 n3=2 n4=2");
    fleet.deploy(spec("web", 1)).until(RolloutOutcome::Succeeded, SOON).run(SOON);
    assert_eq!(fleet.running(), "n1=3");
}

#[test]
fn one_per_node_follows_the_nodes() {
    let mut daemon = spec("web", 0);
    daemon.placement.count = Count::PerNode;
    let mut fleet = up(3, 1, daemon.clone());
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=1");
    fleet.join("n4", "a").run(Millis::secs(10));
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=1 n4=1");
    fleet.node("n2", |node| node.draining = true).run(Millis::secs(10));
    assert_eq!(fleet.running(), "n1=1 n3=1 n4=1");
    fleet.faulty = true;
    fleet.agent("n3", |agent| agent.silent = true).run(Millis::secs(5));
    fleet.deploy(daemon).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.running(), "n1=2 n3=1 n4=2");
    fleet.agent("n3", |agent| agent.silent = false).run(SOON);
    assert_eq!(fleet.running(), "n1=2 n3=2 n4=2");
}

#[test]
fn a_removed_service_stops_everywhere_and_is_forgotten() {
    let mut fleet = three();
    fleet.faulty = true;
    fleet.remove().run(Millis::secs(3));
    assert_eq!((fleet.running().as_str(), remembered(&fleet)), ("", 0));
}

/// Services of which more is remembered than their last slot.
fn remembered(fleet: &Fleet) -> usize {
    fleet.memory().values().filter(|memory| !memory.is_forgotten()).count()
}

/// A node that was away through all of it has no slot of the new service, whatever it still runs of the old one.
#[test]
fn a_service_of_an_old_name_begins_above_its_old_slots() {
    let mut fleet = three();
    let numbers = |fleet: &Fleet| -> Vec<u64> {
        fleet.memory().values().flat_map(|memory| memory.slots.keys().copied()).collect()
    };
    assert_eq!(numbers(&fleet), [1, 2, 3]);
    fleet.remove().run(SOON);
    assert_eq!(remembered(&fleet), 0);
    // What the coordinator does then: the service itself is forgotten.
    fleet.desired.services.clear();
    fleet.restart_coordinator().run(SOON);
    fleet.deploy(spec("web", 3)).until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(numbers(&fleet), [4, 5, 6]);
}

#[test]
fn a_removed_service_does_not_wait_for_a_lost_node_for_ever() {
    let mut fleet = three();
    fleet.faulty = true;
    fleet.agent("n3", |agent| agent.silent = true).run(Millis::secs(5));
    fleet.remove().run(Millis::secs(10));
    assert_eq!(remembered(&fleet), 1);
    fleet.run(SOON);
    assert_eq!(remembered(&fleet), 0);
    fleet.agent("n3", |agent| agent.silent = false).run(Millis::secs(3));
    assert_eq!(fleet.running(), "");
}

#[test]
fn fixed_ports_keep_the_floor_and_free_the_port_first() {
    let mut fleet = up(3, 1, fixed("web", 3));
    fleet.deploy(fixed("web", 3)).run(Millis(500));
    assert_eq!(fleet.running(), "n1=1? n2=1 n3=1");
    fleet.until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.running(), "n1=2 n2=2 n3=2");
}

#[test]
fn a_floor_that_leaves_nothing_to_take_holds_and_says_why() {
    let mut all = fixed("web", 3);
    all.min_available = Amount::Percent(100);
    let mut fleet = up(3, 1, all.clone());
    fleet.deploy(all).run(Millis::secs(30));
    assert_eq!((fleet.running().as_str(), fleet.gates()), ("n1=1 n2=1 n3=1", vec!["budget"]));
    fleet.until(RolloutOutcome::RolledBack, Millis::secs(180));
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=1");
}

#[test]
fn an_unhealthy_instance_goes_first_since_it_has_nothing_to_lose() {
    let mut all = fixed("web", 3);
    all.min_available = Amount::Number(2);
    let mut fleet = up(3, 1, all.clone());
    fleet.faulty = true;
    fleet.agent("n3", |agent| {
        agent.bad.insert((service_name("web"), baton_model::id::ReleaseNumber(1)));
    });
    fleet.run(Millis::secs(3));
    assert_eq!((fleet.running().as_str(), fleet.gates()), ("n1=1 n2=1 n3=1?", vec!["crash-loop"]));
    fleet.deploy(all).run(Millis::secs(3));
    assert_eq!(fleet.running(), "n1=1 n2=1 n3=2");
    fleet.until(RolloutOutcome::Succeeded, SOON);
}

#[test]
fn a_zone_at_a_time_with_a_longer_bake_after_the_first() {
    let mut zoned = spec("web", 6);
    zoned.rollout.batch = Amount::Number(2);
    zoned.rollout.zone_at_a_time = true;
    zoned.rollout.first_zone_bake = Millis::secs(20);
    let mut fleet = up(6, 2, zoned.clone());
    fleet.deploy(zoned).run(Millis::secs(20));
    assert_eq!(fleet.running(), "n1=2 n2=1 n3=2 n4=1 n5=2 n6=1");
    assert_eq!(fleet.gates(), ["bake"]);
    let titles: Vec<&str> =
        fleet.web().unwrap().rollout.as_ref().unwrap().stages.iter().map(|s| s.title.as_str()).collect();
    assert_eq!(
        titles,
        ["zone a, batch 1 of 2", "zone a, batch 2 of 2", "zone b, batch 1 of 2", "zone b, batch 2 of 2"]
    );
    fleet.until(RolloutOutcome::Succeeded, SOON);
}

#[test]
fn a_newer_request_waits_for_the_zone_that_is_changing() {
    let mut zoned = spec("web", 4);
    zoned.rollout.batch = Amount::Number(2);
    zoned.rollout.zone_at_a_time = true;
    let mut fleet = up(4, 2, zoned.clone());
    fleet.deploy(zoned.clone()).run(Millis(4500));
    assert_eq!(fleet.running(), "n1=2 n2=1 n3=2 n4=1", "the second zone is changing");
    fleet.deploy(zoned).tick();
    assert_eq!(fleet.gates(), ["zone"]);
    fleet.until(RolloutOutcome::Succeeded, SOON);
    assert_eq!(fleet.running(), "n1=3 n2=3 n3=3 n4=3");
}
