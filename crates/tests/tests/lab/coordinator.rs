//! The coordinator ends in the middle of a rollout, in order and at once: the rollout goes on.

use crate::fleet::{COORDINATOR, Fleet, ROOM, measured, web};
use baton_tests::harness::wait;

const SLOW_ROLLOUT: &str = "batch = 1\nmax_unavailable = 1\nmin_healthy = \"3s\"\nhealthy_deadline = \"60s\"\nprogress_deadline = \"120s\"\n";

/// Instances of the sample service that run its release of this number.
fn at(fleet: &Fleet, release: u64) -> usize {
    fleet.instances("web").iter().filter(|it| it["observed"]["release"] == release).count()
}

#[test]
fn a_rollout_goes_on_when_the_coordinator_is_restarted_and_killed() {
    let fleet = Fleet::start(3);
    let web = web(3).with_section("rollout", SLOW_ROLLOUT);
    fleet.deploy(&web, "1.0").ok();
    let nodes: Vec<&str> = fleet.nodes.iter().map(String::as_str).collect();
    let load = fleet.load(&nodes);
    let path = fleet.write("service.toml", &web);
    let begun = std::time::Instant::now();
    fleet.baton(&["deploy", &path, "--version", "2.0"]).ok();

    let main_pid = || fleet.hosts.property(COORDINATOR, "baton-coordinator", "MainPID");
    let first = main_pid();
    wait::until(
        "first instance at 2.0",
        ROOM,
        || {
            if at(&fleet, 2) >= 1 { Ok(()) } else { Err("none".into()) }
        },
    );
    fleet.hosts.ask(COORDINATOR, "systemctl restart baton-coordinator");
    let second = main_pid();
    wait::until(
        "second instance at 2.0",
        ROOM,
        || {
            if at(&fleet, 2) >= 2 { Ok(()) } else { Err("one".into()) }
        },
    );
    fleet.hosts.ask(COORDINATOR, &format!("kill -9 {second}"));

    let outcome = wait::until("coordinator", ROOM, || {
        let ran = fleet.baton(&["rollout", "watch", "web", "--timeout", "90s"]);
        if ran.code == 1 { Err(ran.stderr) } else { Ok(ran.code) }
    });
    let took = begun.elapsed();
    let counted = load.stop();
    let pids = [first, second, main_pid()];
    measured(
        "rollout over a restart and a kill -9 of the coordinator",
        format!(
            "coordinator {}; {:.1} s; {} requests, {} failed",
            pids.join(" -> "),
            took.as_secs_f64(),
            counted.sent,
            counted.failed
        ),
    );
    assert_eq!(outcome, 0);
    // What nodes report is not in its store: a coordinator that has just come may not have heard them all.
    wait::until("all instances at 2.0", ROOM, || match at(&fleet, 2) {
        3 => Ok(()),
        few => Err(format!("{few} of 3")),
    });
    assert_eq!(counted.failed, 0, "{:?}", counted.failures);
    let distinct: std::collections::BTreeSet<&String> = pids.iter().collect();
    assert_eq!(distinct.len(), 3, "{pids:?}");
}

#[test]
fn a_frozen_coordinator_is_replaced_by_the_watchdog() {
    let fleet = Fleet::start(1);
    fleet.hosts.ask(COORDINATOR, "mkdir -p /run/systemd/system/baton-coordinator.service.d && printf '[Service]\\nWatchdogSec=4\\n' >/run/systemd/system/baton-coordinator.service.d/lab.conf && systemctl daemon-reload && systemctl restart baton-coordinator");
    let frozen = fleet.hosts.property(COORDINATOR, "baton-coordinator", "MainPID");
    let begun = std::time::Instant::now();
    fleet.hosts.ask(COORDINATOR, &format!("kill -STOP {frozen}"));
    let new = wait::until("new coordinator", ROOM, || {
        match fleet.hosts.property(COORDINATOR, "baton-coordinator", "MainPID") {
            pid if pid != frozen && pid != "0" => Ok(pid),
            pid => Err(pid),
        }
    });
    fleet.await_connected();
    measured(
        "kill -STOP of the coordinator (WatchdogSec=4)",
        format!("{frozen} -> {new}, all nodes connected after {:.1} s", begun.elapsed().as_secs_f64()),
    );
}
