//! Where a first deploy goes.

use crate::fleet::{fleet, spec};
use baton_model::id::PortName;
use baton_model::spec::{Count, Port, PortKind, ServiceSpec};
use baton_model::time::Millis;

/// Six nodes: `n1` `n3` `n5` in zone a, `n2` `n4` `n6` in zone b. `expect`: nodes and how many instances each has.
fn check(change: impl FnOnce(&mut crate::fleet::Fleet, &mut ServiceSpec), expect: &str) {
    let mut fleet = fleet(6, 2);
    let mut web = spec("web", 1);
    fleet.tick();
    change(&mut fleet, &mut web);
    fleet.deploy(web).run(Millis::secs(1));
    let count = |(name, plan): (_, &crate::cycle::Versioned<crate::cycle::PlanRecord>)| {
        let mine = plan.value.assignments.keys().filter(|id| id.service.as_str() == "web").count();
        (mine > 0).then(|| format!("{name}:{mine}"))
    };
    let placed: Vec<String> = fleet.plans.iter().filter_map(count).collect();
    assert_eq!(placed.join(" "), expect);
}

fn socket(spec: &mut ServiceSpec) {
    spec.ports.insert(PortName::new("http").unwrap(), Port { kind: PortKind::Socket { port: 80 } });
}

#[test]
fn spreads_evenly_over_nodes_by_default() {
    check(|_, web| web.placement.count = Count::Replicas(4), "n1:1 n2:1 n3:1 n4:1");
    check(|_, web| web.placement.count = Count::Replicas(8), "n1:2 n2:2 n3:1 n4:1 n5:1 n6:1");
}

#[test]
fn spreads_evenly_over_a_label() {
    let zones = |web: &mut ServiceSpec| web.placement.spread = Some("zone".to_owned());
    let two = |web: &mut ServiceSpec| web.placement.count = Count::Replicas(2);
    check(|_, web| (zones(web), two(web)).0, "n1:1 n2:1");
    check(
        |fleet, web| {
            zones(web);
            web.placement.count = Count::Replicas(4);
            for node in ["n1", "n3"] {
                fleet.node(node, |node| node.cordoned = true);
            }
        },
        "n2:1 n4:1 n5:2",
    );
}

#[test]
fn prefers_the_node_with_the_fewest_of_all_services() {
    check(
        |fleet, web| {
            fleet.deploy(spec("other", 5)).run(Millis::secs(1));
            web.placement.count = Count::Replicas(1);
        },
        "n6:1",
    );
}

#[test]
fn takes_only_nodes_that_fit_and_can_be_reached() {
    check(
        |fleet, web| {
            web.placement.require.insert("zone".to_owned(), "a".to_owned());
            web.placement.count = Count::Replicas(3);
            fleet.node("n1", |node| node.draining = true);
        },
        "n3:2 n5:1",
    );
    check(
        |fleet, web| {
            web.placement.count = Count::PerNode;
            fleet.agent("n2", |agent| agent.silent = true).run(Millis::secs(5));
            fleet.node("n4", |node| node.cordoned = true);
        },
        "n1:1 n3:1 n5:1 n6:1",
    );
}

#[test]
fn a_port_is_taken_once_per_node() {
    check(
        |_, web| {
            socket(web);
            web.placement.count = Count::Replicas(9);
        },
        "n1:1 n2:1 n3:1 n4:1 n5:1 n6:1",
    );
    check(
        |fleet, web| {
            let mut other = spec("other", 4);
            socket(&mut other);
            socket(web);
            web.placement.count = Count::Replicas(4);
            fleet.deploy(other).run(Millis::secs(1));
        },
        "n5:1 n6:1",
    );
}
