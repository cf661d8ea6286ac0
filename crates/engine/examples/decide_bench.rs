//! How long one decision takes, in every state that a fleet is in for longer than a moment, and in those in which most
//! is done at once; and that its cost is at most linear in what exists.
//!
//! `cargo run --release -p baton-engine --example decide_bench` prints a line per state and size, each size twice the
//! one before. Measured is one call of [`decide_audited`], a decision with the audit of its outcome, as the coordinator runs it on every
//! change; the shortest of [`SAMPLES`] counts, since what else the machine does only ever adds.
//!
//! - `placing`: the one decision that places everything: the first deploy of services of 100 instances each.
//! - `converged`: all as wanted; nothing changes.
//! - `deploying`: the one decision in which a new release of every service is taken up and its first batch begins.
//! - `rolling`: two seconds later, every service in its first batch of ten.
//! - `moving`: one node in ten is lost, and every instance of theirs is placed elsewhere in one decision.
//! - `routed`: all as wanted, every service behind three gateways that have acknowledged its route.
//! - `one service`: a single service has all instances, and is in its first batch, a tenth of them.
//!
//! `growth` is what an instance costs here against the line above: 1.00 is linear. A larger fleet fits the processor's
//! caches less well, which shows here and is no work of ours: instructions tell them apart. One state and size alone, in
//! a program that counts them, gives two figures to divide, and no other load on the machine moves them:
//!
//! ```text
//! cargo build --release -p baton-engine --example decide_bench --config profile.release.strip=false
//! valgrind --tool=callgrind --toggle-collect='*one_decision*' target/release/examples/decide_bench rolling 1000
//! ```

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a bench is no part of the engine: it reads a clock and its arguments"
)]

use baton_engine::cycle::decide_audited;
use baton_engine::fleet::{Fleet, fleet, route_spec, spec};
use baton_engine::input::{ALL_CONFIRMED, Input};
use baton_model::spec::{Amount, Port, PortKind, ServiceSpec};
use baton_model::time::Millis;
use std::time::Instant;

/// Decisions measured per line.
const SAMPLES: usize = 51;
/// Nodes of each fleet, with [`INSTANCES_PER_NODE`] on each.
const SIZES: [u32; 4] = [250, 500, 1_000, 2_000];
const INSTANCES_PER_NODE: u32 = 10;
/// Where there are many services, each has so many instances.
const INSTANCES_PER_SERVICE: u32 = 100;
const ZONES: u32 = 4;

/// What is measured: its name, and how a fleet of so many nodes is brought there.
type State = (&'static str, fn(u32) -> Fleet);

const STATES: [State; 7] = [
    ("placing", placing),
    ("converged", converged),
    ("deploying", deploying),
    ("rolling", rolling),
    ("moving", moving),
    ("routed", routed),
    ("one service", one_service),
];

fn main() {
    let mut arguments = std::env::args().skip(1);
    if let (Some(name), Some(nodes)) = (arguments.next(), arguments.next()) {
        let state = STATES.iter().find(|(state, _)| *state == name).expect("the name of a state");
        let fleet = state.1(nodes.parse().expect("a number of nodes"));
        println!("{name}: {:.2} ms", milliseconds(&fleet, 1));
        return;
    }
    println!(
        "{:<12} {:>6} {:>10} {:>8} {:>12} {:>7}",
        "state", "nodes", "instances", "ms", "ns/instance", "growth"
    );
    for (name, build) in STATES {
        let mut before: Option<f64> = None;
        for nodes in SIZES {
            let instances = nodes * INSTANCES_PER_NODE;
            let ms = milliseconds(&build(nodes), SAMPLES);
            let each = ms * 1e6 / f64::from(instances);
            let growth = before.map_or_else(String::new, |before| format!("{:.2}", each / before));
            println!("{name:<12} {nodes:>6} {instances:>10} {ms:>8.2} {each:>12.0} {growth:>7}");
            before = Some(each);
        }
    }
}

/// All nodes are heard, and every service is asked for.
fn placing(nodes: u32) -> Fleet {
    let mut fleet = fleet(nodes, ZONES);
    fleet.tick();
    deploy(&mut fleet);
    fleet
}

fn converged(nodes: u32) -> Fleet {
    let mut fleet = placing(nodes);
    fleet.run(Millis::secs(8));
    fleet
}

fn routed(nodes: u32) -> Fleet {
    let mut fleet = fleet(nodes, ZONES);
    ["g1", "g2", "g3"].into_iter().for_each(|name| {
        fleet.join_gateway(name);
    });
    fleet.tick();
    for number in 0..services_of(&fleet) {
        let mut spec = large(&format!("s{number}"), INSTANCES_PER_SERVICE);
        let route = route_spec();
        spec.ports.insert(route.port.clone(), Port { kind: PortKind::Dynamic });
        spec.route = Some(route);
        fleet.deploy(spec);
    }
    fleet.run(Millis::secs(8));
    fleet
}

fn deploying(nodes: u32) -> Fleet {
    let mut fleet = converged(nodes);
    deploy(&mut fleet);
    fleet
}

fn rolling(nodes: u32) -> Fleet {
    let mut fleet = deploying(nodes);
    fleet.run(Millis::secs(2));
    fleet
}

/// Nodes fall silent far enough from one another that it is no mass failure, and are lost together at the end.
fn moving(nodes: u32) -> Fleet {
    let mut fleet = converged(nodes);
    fleet.faulty = true;
    for number in (1..=nodes).step_by(10) {
        fleet.agent(&format!("n{number}"), |agent| agent.silent = true);
    }
    fleet.run(Millis::secs(29));
    fleet.now = fleet.now.plus(Millis::secs(2));
    fleet
}

fn one_service(nodes: u32) -> Fleet {
    let mut fleet = fleet(nodes, ZONES);
    for seconds in [6, 2] {
        fleet.deploy(large("web", nodes * INSTANCES_PER_NODE)).run(Millis::secs(seconds));
    }
    fleet
}

fn deploy(fleet: &mut Fleet) {
    for number in 0..services_of(fleet) {
        fleet.deploy(large(&format!("s{number}"), INSTANCES_PER_SERVICE));
    }
}

fn services_of(fleet: &Fleet) -> u32 {
    let nodes = u32::try_from(fleet.desired.nodes.len()).expect("a number of nodes");
    nodes * INSTANCES_PER_NODE / INSTANCES_PER_SERVICE
}

fn large(name: &str, replicas: u32) -> ServiceSpec {
    let mut spec = spec(name, replicas);
    spec.rollout.batch = Amount::Percent(10);
    spec.placement.spread = Some("zone".to_owned());
    spec
}

/// The shortest of so many decisions.
fn milliseconds(fleet: &Fleet, samples: usize) -> f64 {
    let (observed, progress) = (fleet.observed(), fleet.memory());
    let input = Input {
        desired: &fleet.desired,
        observed: &observed,
        progress: &progress,
        unconfirmed: &ALL_CONFIRMED,
        now: fleet.now,
    };
    (0..samples).map(|_| one_decision(&input)).fold(f64::INFINITY, f64::min)
}

/// Not inlined, so that what counts instructions finds it by its name.
#[inline(never)]
fn one_decision(input: &Input<'_>) -> f64 {
    let begin = Instant::now();
    let (outcome, refused) = decide_audited(input);
    let took = begin.elapsed();
    assert!(refused.is_empty() && !outcome.assignments.is_empty(), "{refused:?}");
    took.as_secs_f64() * 1000.0
}
