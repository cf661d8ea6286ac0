//! A node is cut off for longer than its `lost_after`: its instances run elsewhere; healed, it gives up what is no
//! longer its own.

use crate::fleet::{Fleet, ROOM, measured, web};
use baton_tests::harness::wait;
use std::time::Instant;

#[test]
fn a_cut_node_is_replaced_and_after_the_heal_nothing_runs_twice() {
    let fleet = Fleet::start(3);
    let web = web(2).with_section("placement", "replicas = 2\nlost_after = \"5s\"\n");
    fleet.deploy(&web, "1.0").ok();
    let before = fleet.ready("web", 2);
    let (cut, kept) = (before[0].0.clone(), before[1].0.clone());
    let spare = fleet.nodes.iter().find(|node| **node != cut && **node != kept).expect("three nodes");
    let load = fleet.load(&[&kept]);

    let begun = Instant::now();
    fleet.hosts.verb("cut", &[&cut]);
    let moved = wait::until("instance on the spare node", ROOM, || {
        if fleet.processes(spare).is_empty() { Err("none".to_owned()) } else { Ok(begun.elapsed()) }
    });
    assert_eq!(fleet.processes(&cut).len(), 1, "a node that is alone keeps its instance");

    let begun = Instant::now();
    fleet.hosts.verb("heal", &[]);
    let gone = wait::until("end of the surplus instance", ROOM, || {
        let left = fleet.processes(&cut);
        if left.is_empty() { Ok(begun.elapsed()) } else { Err(format!("{left:?}")) }
    });
    fleet.await_connected();
    let after = fleet.ready("web", 2);
    let counted = load.stop();
    measured(
        "a cut longer than lost_after (5 s)",
        format!(
            "instance elsewhere {:.1} s after the cut, surplus ended {:.1} s after the heal; {before:?} -> {after:?}; other node: {} requests, {} failed",
            moved.as_secs_f64(),
            gone.as_secs_f64(),
            counted.sent,
            counted.failed
        ),
    );
    let running: usize = fleet.nodes.iter().map(|node| fleet.processes(node).len()).sum();
    assert_eq!(running, 2, "instances that really run");
    assert_eq!(after[0].0.clone().min(after[1].0.clone()), kept.clone().min(spare.clone()));
    assert_eq!(counted.failed, 0, "{:?}", counted.failures);
}
