//! What happens behind a gateway and to it: rollouts, a node that is lost, a coordinator out of reach, a loss of power.

use super::{Fleet, none_failed, routed, strategies};
use crate::fleet::{COORDINATOR, ROOM, measured};
use crate::hosts::{Said, script};
use crate::power::monotonic;
use baton_tests::harness::wait;
use std::time::{Duration, Instant};

#[test]
fn rollouts_and_faults_behind_two_gateways_fail_no_request() {
    let fleet = Fleet::start_behind(2, 2, true);
    fleet.deploy(&routed(), "1.0").ok();
    fleet.await_tables();
    strategies::in_place(&fleet);
    a_node_is_cut_off_and_loses_its_power(&fleet);
    a_gateway_is_cut_off_in_a_rollout(&fleet);
    a_gateway_loses_its_power_while_the_coordinator_is_away(&fleet);
    // Last, since a second set has other slots than those that are named here.
    strategies::side_by_side(&fleet);
}

fn a_node_is_cut_off_and_loses_its_power(fleet: &Fleet) {
    let load = fleet.through(&["g1", "g2"]);
    fleet.hosts.verb("cut", &["n2"]);
    // Some seconds of it: noticed by the gateways at once, by the coordinator after three.
    fleet.await_sent(&load, load.sent() + 800);
    fleet.hosts.verb("heal", &["n2"]);
    let begun = Instant::now();
    both_answer(fleet);
    let healed = begun.elapsed();
    none_failed(
        &format!(
            "one of two nodes cut off for 4 s; healed, it answers by both after {:.0} s",
            healed.as_secs_f64()
        ),
        &fleet.after_more(load),
    );

    let load = fleet.through(&["g1", "g2"]);
    fleet.hosts.verb("powerloss", &["n2"]);
    fleet.await_sent(&load, load.sent() + 400);
    fleet.hosts.verb("start", &["n2"]);
    fleet.await_connected();
    fleet.ready("web", 2);
    both_answer(fleet);
    none_failed("one of two nodes loses its power and boots", &fleet.after_more(load));
}

fn page(fleet: &Fleet, gateway: &str) -> Said {
    let url = format!("http://{}/", fleet.hosts.address(gateway));
    script(&["client", "curl", "-sS", "-m", "2", &url])
}

/// Waits until each gateway sends requests to both instances.
#[track_caller]
fn both_answer(fleet: &Fleet) {
    for gateway in ["g1", "g2"] {
        for instance in ["web.1", "web.2"] {
            wait::until("an answer of the instance", ROOM, || match page(fleet, gateway).stdout {
                answer if answer.contains(instance) => Ok(()),
                answer => Err(answer),
            });
        }
    }
}

/// The gateway goes on by its table, and the rollout after its lease; healed, it follows the newest table.
fn a_gateway_is_cut_off_in_a_rollout(fleet: &Fleet) {
    fleet.hosts.verb("cut", &["g2", COORDINATOR]);
    let (load, cut) = (fleet.through(&["g1"]), fleet.through(&["g2"]));
    let begun = Instant::now();
    fleet.deploy(&routed(), "4.0").ok();
    let took = begun.elapsed();
    let (counted, by_the_cut_one) = (fleet.after_more(load), fleet.after_more(cut));
    let events = fleet.baton(&["events", "--last", "0"]).ok();
    assert!(events.contains("gateway-silent"), "{events}");
    let what =
        format!("a rollout of {:.1} s with a gateway cut off from the coordinator", took.as_secs_f64());
    none_failed(&format!("{what}, through the other"), &counted);
    none_failed(&format!("{what}, through it"), &by_the_cut_one);
    let begun = Instant::now();
    fleet.hosts.verb("heal", &["g2"]);
    fleet.await_tables();
    measured(
        "healed, the gateway has the newest table after",
        format!("{:.1} s", begun.elapsed().as_secs_f64()),
    );
    both_answer(fleet);
}

fn a_gateway_loses_its_power_while_the_coordinator_is_away(fleet: &Fleet) {
    let load = fleet.through(&["g1"]);
    fleet.hosts.ask(COORDINATOR, "systemctl stop baton-coordinator");
    fleet.hosts.verb("powerloss", &["g2"]);
    let begun = monotonic();
    let served = std::thread::scope(|scope| {
        scope.spawn(|| fleet.hosts.verb("start", &["g2"]));
        wait::until("an answer by the table on disk", ROOM, || match page(fleet, "g2") {
            said if said.stdout.starts_with("4.0 ") => Ok(monotonic()),
            said => Err(said.stderr),
        })
    });
    let started = fleet.hosts.property("g2", "baton-gateway", "ExecMainStartTimestampMonotonic");
    let started = Duration::from_micros(started.parse().expect("microseconds"));
    measured(
        "a gateway that lost its power serves without a coordinator",
        format!(
            "its process starts {:.2} s after power on, and answers after {:.2} s more",
            started.saturating_sub(begun).as_secs_f64(),
            served.saturating_sub(started).as_secs_f64()
        ),
    );
    none_failed("a gateway loses its power, through the other", &fleet.after_more(load));
    let load = fleet.through(&["g1", "g2"]);
    fleet.hosts.ask(COORDINATOR, "systemctl start baton-coordinator");
    fleet.await_tables();
    fleet.deploy(&routed(), "5.0").ok();
    load.await_version("5.0");
    let counted = fleet.after_more(load);
    none_failed("the coordinator is back, and a rolling deploy", &counted);
}
