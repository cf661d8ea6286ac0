//! How long one decision takes, converged and in the middle of a rollout, and that its cost is at most linear.
//!
//! `cargo run --release -p baton-engine --example decide_bench` prints one line per size and state, with the median.
//! Measured is one call of [`decide`] with the audit of its outcome, as the coordinator runs it on every change:
//!
//! - `converged`: services of 100 instances each, all as wanted; nothing changes.
//! - `deploying`: the one decision in which a new release of every service is taken up and its first batch begins.
//! - `rolling`: two seconds later, every service in its first batch of ten.
//! - `one service`: a single service of 10,000 instances in its first batch of a thousand.
//!
//! The last lines compare states of this one run: what an instance costs in the larger fleet against the smaller one.

#![allow(
    clippy::disallowed_types,
    clippy::disallowed_methods,
    reason = "a bench is no part of the engine: it reads a clock"
)]

use baton_engine::fleet::{Fleet, fleet, spec};
use baton_engine::input::{ALL_CONFIRMED, Input};
use baton_engine::{audit, decide};
use baton_model::spec::Amount;
use baton_model::time::Millis;
use std::collections::BTreeMap;
use std::time::Instant;

/// Decisions measured per line; the median is printed.
const SAMPLES: usize = 31;
/// Instances of each service; the number of services follows from the number of instances.
const INSTANCES_PER_SERVICE: u32 = 100;

fn main() {
    println!("{:<12} {:>6} {:>10} {:>12}", "state", "nodes", "instances", "median ms");
    let mut medians: BTreeMap<&str, Vec<f64>> = BTreeMap::new();
    for nodes in [500, 1_000] {
        let mut fleet = build(nodes, nodes * 10 / INSTANCES_PER_SERVICE);
        fleet.run(Millis::secs(8));
        medians.entry("converged").or_default().push(measure("converged", &fleet));
        deploy(&mut fleet, nodes * 10 / INSTANCES_PER_SERVICE);
        medians.entry("deploying").or_default().push(measure("deploying", &fleet));
        fleet.run(Millis::secs(2));
        medians.entry("rolling").or_default().push(measure("rolling", &fleet));
    }
    let mut one = fleet(1_000, 4);
    one.deploy(large("web", 10_000));
    one.run(Millis::secs(6));
    one.deploy(large("web", 10_000));
    one.run(Millis::secs(2));
    measure("one service", &one);
    for (state, medians) in medians {
        println!("per instance 10k vs 5k, {state}: {:.2}", medians[1] / medians[0] / 2.0);
    }
}

fn build(nodes: u32, services: u32) -> Fleet {
    let mut fleet = fleet(nodes, 4);
    deploy(&mut fleet, services);
    fleet
}

fn deploy(fleet: &mut Fleet, services: u32) {
    for number in 0..services {
        fleet.deploy(large(&format!("s{number}"), INSTANCES_PER_SERVICE));
    }
}

fn large(name: &str, replicas: u32) -> baton_model::spec::ServiceSpec {
    let mut spec = spec(name, replicas);
    spec.rollout.batch = Amount::Percent(10);
    spec.placement.spread = Some("zone".to_owned());
    spec
}

/// Prints and returns the median of one decision in milliseconds.
fn measure(state: &str, fleet: &Fleet) -> f64 {
    let (observed, progress) = (fleet.observed(), fleet.memory());
    let input = Input {
        desired: &fleet.desired,
        observed: &observed,
        progress: &progress,
        unconfirmed: &ALL_CONFIRMED,
        now: fleet.now,
    };
    let mut samples: Vec<f64> = (0..SAMPLES).map(|_| once(&input)).collect();
    samples.sort_by(f64::total_cmp);
    let instances: usize = observed.nodes.values().map(|node| node.instances.len()).sum();
    let median = samples[SAMPLES / 2];
    println!("{state:<12} {:>6} {instances:>10} {median:>12.2}", fleet.desired.nodes.len());
    median
}

fn once(input: &Input<'_>) -> f64 {
    let begin = Instant::now();
    let outcome = decide(input);
    let violations = audit(input, &outcome);
    let took = begin.elapsed();
    assert!(violations.is_empty(), "{violations:?}");
    took.as_secs_f64() * 1000.0
}
