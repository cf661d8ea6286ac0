//! Random stories: operators and faults do anything in any order; every decision is audited and quiet on the way, and
//! once the faults stop the fleet comes to rest as it should be (invariants `ends`, `exact-rollback`, `quiet`).

use crate::fleet::{Fleet, fleet, service_name, spec};
use baton_model::id::PortName;
use baton_model::rollout::OnFailure;
use baton_model::spec::{Amount, Count, Port, PortKind, ServiceSpec};
use baton_model::time::Millis;
use proptest::prelude::*;

/// Nodes of the fleet.
const NODES: u32 = 5;
/// What is done between two looks.
const STEPS: std::ops::Range<usize> = 1..14;
/// Stories per run of the test: each lets half an hour of fleet time pass, which takes about a second.
const CASES: u32 = 12;

#[derive(Clone, Debug)]
enum Deed {
    Deploy { bad: bool, replicas: u32, fixed: bool, batch: u32, tolerance: u32, pause: bool, zones: bool },
    Undo,
    Pause(bool),
    Abort,
    Retry,
    Promote,
    Silence(u32),
    Hear(u32),
    Drain(u32, bool),
    Cordon(u32, bool),
    Crash(u32),
    Restart,
    Wait(u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    let node = 1..=NODES;
    prop_oneof![
        3 => (any::<bool>(), 0u32..7, any::<bool>(), 1u32..4, 0u32..2, any::<bool>(), any::<bool>()).prop_map(
            |(bad, replicas, fixed, batch, tolerance, pause, zones)| Deed::Deploy { bad, replicas, fixed, batch, tolerance, pause, zones }
        ),
        1 => Just(Deed::Undo),
        1 => any::<bool>().prop_map(Deed::Pause),
        1 => Just(Deed::Abort),
        1 => Just(Deed::Retry),
        1 => Just(Deed::Promote),
        2 => node.clone().prop_map(Deed::Silence),
        2 => node.clone().prop_map(Deed::Hear),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, on)| Deed::Drain(node, on)),
        1 => (node.clone(), any::<bool>()).prop_map(|(node, on)| Deed::Cordon(node, on)),
        1 => node.prop_map(Deed::Crash),
        1 => Just(Deed::Restart),
        4 => (1u64..60).prop_map(Deed::Wait),
    ]
}

fn policy(deed: &Deed) -> Option<(ServiceSpec, bool)> {
    let Deed::Deploy { bad, replicas, fixed, batch, tolerance, pause, zones } = deed else { return None };
    let mut spec = spec("web", *replicas);
    if *replicas == 0 {
        spec.placement.count = Count::PerNode;
    }
    if *fixed {
        spec.ports.insert(PortName::new("http").unwrap(), Port { kind: PortKind::Fixed { port: 8080 } });
    }
    spec.rollout.batch = Amount::Number(*batch);
    spec.rollout.failure_tolerance = Amount::Number(*tolerance);
    spec.rollout.zone_at_a_time = *zones;
    spec.rollout.first_zone_bake = Millis::secs(5);
    spec.rollout.on_failure = if *pause { OnFailure::Pause } else { OnFailure::RollBack };
    spec.rollout.approve_before = if *zones { vec![2] } else { Vec::new() };
    Some((spec, *bad))
}

fn act(fleet: &mut Fleet, deed: &Deed) {
    let name = |node: &u32| format!("n{node}");
    match deed {
        Deed::Deploy { .. } => {
            let Some((spec, bad)) = policy(deed) else { return };
            fleet.deploy(spec);
            let last = fleet.desired.services[&service_name("web")].releases.keys().next_back().unwrap().0;
            if bad {
                fleet.bad(last);
            }
        }
        Deed::Undo => {
            fleet.undo(1);
        }
        Deed::Pause(on) => drop(fleet.control(|control| control.paused = *on)),
        Deed::Abort => drop(fleet.control(|control| control.abort = true)),
        Deed::Retry => drop(fleet.control(|control| control.retry += 1)),
        Deed::Promote => drop(fleet.control(|control| control.approved_through = 99)),
        Deed::Silence(node) => drop(fleet.agent(&name(node), |agent| agent.silent = true)),
        Deed::Hear(node) => drop(fleet.agent(&name(node), |agent| agent.silent = false)),
        Deed::Drain(node, on) => drop(fleet.node(&name(node), |node| node.draining = *on)),
        Deed::Cordon(node, on) => drop(fleet.node(&name(node), |node| node.cordoned = *on)),
        Deed::Crash(node) => {
            let now = fleet.now;
            fleet.agent(&name(node), |agent| agent.instances.values_mut().for_each(|i| i.crash(now)));
        }
        Deed::Restart => drop(fleet.restart_coordinator()),
        Deed::Wait(seconds) => drop(fleet.run(Millis::secs(*seconds))),
    }
    fleet.tick();
}

/// Every fault ends, and operators let things go on; releases that are bad stay bad.
fn heal(fleet: &mut Fleet) {
    for node in 1..=NODES {
        fleet.agent(&format!("n{node}"), |agent| agent.silent = false);
        fleet.node(&format!("n{node}"), |node| (node.cordoned, node.draining) = (false, false));
    }
    fleet.control(|control| (control.paused, control.approved_through) = (false, u32::MAX));
    fleet.run(Millis::secs(1800));
}

/// What must hold of a fleet at rest.
fn at_rest(fleet: &mut Fleet) {
    let web = service_name("web");
    let journal = fleet.journal();
    let memory = fleet.progress[&web].value.clone();
    if let Some(rollout) = &memory.rollout {
        let held = rollout.failure.as_ref().is_some_and(|reason| !reason.is_empty());
        assert!(
            rollout.outcome.is_final() || held,
            "it does not end: {rollout:#?}\n{journal}\n{:?}",
            fleet.web()
        );
    }
    assert!(memory.slots.values().all(|slot| !slot.retiring), "{memory:#?}\n{journal}");
    for (number, slot) in &memory.slots {
        let goal = memory.stable.filter(|_| memory.rollout.as_ref().is_some_and(|r| r.outcome.is_final()));
        assert!(goal.is_none_or(|goal| goal == slot.release), "slot {number}: {memory:#?}\n{journal}");
    }
    let before = (fleet.memory(), fleet.events.len());
    fleet.run(Millis::secs(60));
    assert_eq!(before, (fleet.memory(), fleet.events.len()), "not quiet\n{journal}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_it_ends(deeds in prop::collection::vec(deed(), STEPS)) {
        let mut fleet = fleet(NODES, 2);
        fleet.faulty = true;
        fleet.deploy(spec("web", 3)).run(Millis::secs(8));
        for deed in &deeds {
            act(&mut fleet, deed);
        }
        heal(&mut fleet);
        at_rest(&mut fleet);
    }
}
