//! The agent ends and comes back: restarted, killed, frozen, upgraded. No workload notices, no request is lost.

use crate::fleet::{Fleet, ROOM, install, measured, web};
use crate::hosts::{repository, setting};
use baton_tests::harness::wait;

fn one_node() -> Fleet {
    let fleet = Fleet::start(1);
    fleet.deploy(&web(1), "1.0").ok();
    fleet
}

#[test]
fn a_restart_of_the_agent_touches_no_workload() {
    let fleet = one_node();
    fleet.undisturbed("systemctl restart baton-agent", "n1", || {
        fleet.hosts.ask("n1", "systemctl restart baton-agent");
    });
    // And it is still able to swap what it has adopted.
    let load = fleet.load(&["n1"]);
    fleet.deploy(&web(1), "2.0").ok();
    let counted = load.stop();
    assert_eq!(counted.failed, 0, "{:?}", counted.failures);
}

#[test]
fn a_killed_agent_is_started_again_by_systemd() {
    let fleet = one_node();
    fleet.undisturbed("kill -9 of the agent", "n1", || {
        fleet.hosts.ask("n1", "kill -9 $(systemctl show --value -p MainPID baton-agent)");
    });
}

#[test]
fn a_frozen_agent_is_replaced_by_the_watchdog() {
    let fleet = one_node();
    fleet.undisturbed("kill -STOP of the agent (WatchdogSec)", "n1", || {
        fleet.hosts.ask("n1", "kill -STOP $(systemctl show --value -p MainPID baton-agent)");
    });
    let why = fleet.hosts.ask("n1", "journalctl --sync && journalctl -q --no-pager -u baton-agent");
    assert!(why.contains("Watchdog timeout"), "{why}");
}

#[test]
fn an_upgrade_of_the_package_restarts_the_agent_and_no_workload() {
    let fleet = one_node();
    fleet.undisturbed("dpkg -i of a newer version", "n1", || {
        install(&fleet.hosts, "n1", "new", &["baton", "baton-agent"]).ok();
    });
    let version = fleet.hosts.ask("n1", "dpkg-query -W -f '${Version}' baton-agent");
    assert!(version.ends_with("+lab1"), "{version}");

    fleet.undisturbed("dpkg -i of the version before", "n1", || {
        install(&fleet.hosts, "n1", "old", &["baton", "baton-agent"]).ok();
    });
    // The program alone, as with `apt-get install baton`: the agent follows by a trigger.
    fleet.undisturbed("dpkg -i of the program's package alone", "n1", || {
        install(&fleet.hosts, "n1", "new", &["baton"]).ok();
    });
}

/// The last bytes of the program that the agent runs, which tell the programs here apart.
fn running(fleet: &Fleet) -> String {
    fleet.hosts.ask("n1", "tail -c 5 /proc/$(systemctl show --value -p MainPID baton-agent)/exe")
}

#[test]
fn an_upgrade_by_the_coordinator_outlives_restarts_until_a_newer_package_comes() {
    let fleet = one_node();
    let packaged = std::path::Path::new(&setting("BATON_LAB_PACKAGES")).join("baton");
    let mut bytes = std::fs::read(packaged).expect("the packaged program");
    bytes.extend(b"+lab2");
    let program = fleet.folder().join("second");
    std::fs::write(&program, bytes).expect("a file of the test");
    let (agent, before) = (fleet.agent("n1"), fleet.processes("n1"));
    let load = fleet.load(&["n1"]);
    let program = program.display().to_string();
    let upgrade = ["node", "upgrade", "--version", "2.0", "--program", &program, "--watch"];
    fleet.baton(&[upgrade.as_slice(), &["--timeout", "90s"]].concat()).ok();
    assert_eq!(running(&fleet), "+lab2");
    assert_eq!(fleet.agent("n1"), agent, "systemd's main process is the same");
    for (name, value) in [("ActiveState", "active"), ("NRestarts", "0")] {
        assert_eq!(fleet.hosts.property("n1", "baton-agent", name), value, "{name}");
    }
    let counted = load.stop();
    assert_eq!(fleet.processes("n1"), before, "a workload was touched");
    assert!(counted.sent > 0 && counted.failed == 0, "{:?}", counted.failures);

    fleet.undisturbed("systemctl restart of an upgraded agent", "n1", || {
        fleet.hosts.ask("n1", "systemctl restart baton-agent");
    });
    assert_eq!(running(&fleet), "+lab2");
    fleet.undisturbed("dpkg -i over an upgraded agent", "n1", || {
        install(&fleet.hosts, "n1", "new", &["baton", "baton-agent"]).ok();
    });
    assert_eq!(running(&fleet), "+lab1");
}

#[test]
fn an_agent_that_is_killed_in_the_middle_of_a_swap_finishes_it() {
    let fleet = one_node();
    let artifact = repository().join("crates/tests/fixtures/web");
    let slow = web(1).with_program(artifact, r#"["/usr/bin/baton", "sample-web", "--start-after", "5s"]"#);
    let load = fleet.load(&["n1"]);
    let path = fleet.write("slow.toml", &slow);
    fleet.baton(&["deploy", &path, "--version", "2.0"]).ok();
    wait::until("old and new side by side", ROOM, || match fleet.processes("n1").len() {
        2 => Ok(()),
        count => Err(count.to_string()),
    });
    fleet.hosts.ask("n1", "kill -9 $(systemctl show --value -p MainPID baton-agent)");
    let outcome = fleet.baton(&["rollout", "watch", "web", "--timeout", "90s"]);
    fleet.await_sent(&load, load.sent() + 200);
    let counted = load.stop();
    measured(
        "kill -9 of the agent in the middle of a swap",
        format!(
            "rollout ended with {}; {} requests, {} failed, slowest {:.1} ms",
            outcome.code,
            counted.sent,
            counted.failed,
            counted.quantile_ms(1.0)
        ),
    );
    assert_eq!(outcome.code, 0, "{}", outcome.stdout);
    assert_eq!(fleet.instances("web")[0]["observed"]["release"], 2);
    wait::until("one process", ROOM, || match fleet.processes("n1").len() {
        1 => Ok(()),
        count => Err(count.to_string()),
    });
    assert_eq!(counted.failed, 0, "{:?}", counted.failures);
}

/// More lines than one instance may write at once.
const BURST: u64 = 15_000;

#[test]
fn lines_reach_the_journal_of_the_host_with_their_fields_and_a_burst_whole() {
    let fleet = Fleet::start(1);
    let artifact = repository().join("crates/tests/fixtures/web");
    let script = format!("echo oops >&2; seq {BURST}; exec /usr/bin/baton sample-web");
    let told = web(1)
        .with_program(artifact, &format!("[\"/bin/sh\", \"-c\", \"{script}\"]"))
        .with_section("logs", "journald = true\n");
    fleet.deploy(&told, "1.0").ok();
    let shown = fleet.json(&["node", "show", "n1"]);
    assert_eq!(shown["facts"]["ability"]["journal"], true, "{shown}");

    let entries = |filter: &str| -> Vec<serde_json::Value> {
        let text =
            fleet.hosts.ask("n1", &format!("journalctl -q --no-pager -o json BATON_SERVICE=web {filter}"));
        text.lines().map(|line| serde_json::from_str(line).expect("an entry")).collect()
    };
    let oops = wait::until("the line on stderr", ROOM, || {
        entries("BATON_STREAM=stderr PRIORITY=5").pop().ok_or_else(|| "no entry".to_owned())
    });
    let pid = fleet.processes("n1")[0].to_string();
    for (field, value) in [
        ("MESSAGE", "oops"),
        ("SYSLOG_IDENTIFIER", "web"),
        ("SYSLOG_PID", pid.as_str()),
        ("BATON_INSTANCE", "web.1"),
        ("BATON_NODE", "n1"),
        ("BATON_RELEASE", "1"),
        ("BATON_VERSION", "1.0"),
    ] {
        assert_eq!(oops[field], value, "{field} of {oops}");
    }
    // journald looks a sender's unit up now and then, and the first line may come while the shim is only just in its own.
    let unit = oops["_SYSTEMD_UNIT"].as_str().unwrap_or_default();
    assert!(["baton-workloads.service", "baton-agent.service"].contains(&unit), "_SYSTEMD_UNIT of {oops}");
    // Every line of the burst is there: what journald does not take at once waits in the shim, and journald drops none.
    let (there, counted) = wait::until("all lines, there or counted", ROOM, || {
        let text = "journalctl -q --no-pager -o cat BATON_SERVICE=web BATON_STREAM=stdout | grep -cE '^[0-9]+$' || true";
        let there: u64 = fleet.hosts.ask("n1", text).trim().parse().map_err(|_| "no number".to_owned())?;
        let drops = &fleet.instances("web")[0]["observed"]["log_drops"];
        let counted = drops["journal_lines"].as_u64().unwrap_or(0);
        let all = there + counted >= BURST && there > 0;
        if all { Ok((there, counted)) } else { Err(format!("{there} there, {counted} counted")) }
    });
    measured(
        &format!("a burst of {BURST} lines into journald"),
        format!("{there} there, {counted} counted as dropped by the shim"),
    );
    assert_eq!(counted, 0, "a burst is not thrown away");
}
