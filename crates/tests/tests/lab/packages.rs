//! The packages themselves: what they leave behind, how much their units may do, and that dpkg is content.

use crate::fleet::{COORDINATOR, Fleet, ROOM, install, measured, web};
use crate::hosts::{Hosts, repository};
use baton_tests::harness::wait;
use std::collections::BTreeSet;

/// All files of a host that a package may have made. Logs, dpkg's own books and what lives in memory are others'.
fn files(hosts: &Hosts, host: &str) -> BTreeSet<String> {
    let find = "find / -xdev \\( -path /proc -o -path /sys -o -path /run -o -path /dev -o -path /tmp -o -path /var/tmp -o -path /root \
                -o -path /var/log -o -path /var/lib/dpkg -o -path /var/lib/systemd -o -path /var/cache \\) -prune -o -print; find /var/lib /run -name '*baton*'; getent passwd | grep baton";
    hosts.run(host, find).stdout.lines().map(str::to_owned).collect()
}

#[test]
fn a_purge_leaves_nothing_and_a_reinstallation_works() {
    let hosts = Hosts::boot(&["p1"], false);
    let all = ["baton", "baton-agent", "baton-coordinator", "baton-gateway"];
    let before = files(&hosts, "p1");
    install(&hosts, "p1", "old", &all).ok();
    let installed = files(&hosts, "p1");
    // Used, so that there is something to leave behind.
    hosts.ask("p1", "baton coordinator init --dir /var/lib/baton-coordinator --listen 127.0.0.1:7443 >/root/token && systemctl start baton-coordinator");
    hosts.ask("p1", "baton context add lab --coordinator 127.0.0.1:7443 --token $(cat /root/token) && baton gateway token --name edge >/root/edge");
    hosts.ask("p1", "baton gateway join --dir /var/lib/baton-gateway --coordinator 127.0.0.1:7443 --token $(cat /root/edge) --name edge && systemctl start baton-gateway");
    // A removal keeps the identity, and what was changed of the configuration: installed again, it goes on as it was.
    hosts.ask(
        "p1",
        "sed -i 's/0.0.0.0:80/0.0.0.0:8080/' /etc/baton/gateway.toml && dpkg --remove baton-gateway",
    );
    assert_eq!(hosts.run("p1", "pgrep -u baton-gateway").stdout, "", "a removal ends it");
    install(&hosts, "p1", "old", &["baton-gateway"]).ok();
    hosts.ask("p1", "curl -s -o /dev/null http://127.0.0.1:8080/");
    // Also a process that was followed and still waits for its clients does not outlive its package.
    hosts.ask(
        "p1",
        "systemctl reload baton-gateway && dpkg --purge baton-agent baton-coordinator baton-gateway baton",
    );
    let after = files(&hosts, "p1");
    let left: Vec<&String> = after.difference(&before).collect();
    let lost: Vec<&String> = before.difference(&after).collect();
    measured(
        "install, use, purge",
        format!("{} files, {} left, {} lost", installed.len() - before.len(), left.len(), lost.len()),
    );
    assert!(left.is_empty() && lost.is_empty(), "left {left:?}, lost {lost:?}");
    assert_eq!(hosts.run("p1", "systemctl list-units --all --plain --no-legend 'baton*'").stdout, "");

    install(&hosts, "p1", "old", &all).ok();
    let status = hosts.ask(
        "p1",
        "dpkg-query -W -f '${db:Status-Abbrev} ' baton baton-agent baton-coordinator baton-gateway",
    );
    assert_eq!(status, "ii  ii  ii  ii");
}

#[test]
fn a_removal_ends_the_workloads_and_a_reinstallation_brings_them_back() {
    let fleet = Fleet::start(1);
    fleet.deploy(&web(1), "1.0").ok();
    let removed = fleet.hosts.ask("n1", "dpkg --remove baton-agent 2>&1");
    measured("dpkg --remove baton-agent says", removed.lines().last().unwrap_or_default());
    assert!(fleet.processes("n1").is_empty(), "{:?}", fleet.processes("n1"));
    assert_eq!(fleet.hosts.run("n1", "pgrep -f '[b]aton shim'").stdout, "");
    install(&fleet.hosts, "n1", "old", &["baton-agent"]).ok();
    wait::until("its workload again", ROOM, || match fleet.processes("n1").len() {
        1 => Ok(()),
        other => Err(format!("{other} processes")),
    });
    fleet.await_connected();
    assert_eq!(fleet.ready("web", 1).len(), 1);

    // A purge of a node at work ends the same way, and removes what is left of it; also where the package was only
    // unpacked, as after an upgrade that nobody answered the question of: dpkg runs no prerm then.
    fleet.hosts.ask("n1", "dpkg --unpack /root/baton-agent_*.deb && dpkg --purge baton-agent baton");
    assert!(fleet.processes("n1").is_empty(), "{:?}", fleet.processes("n1"));
    // Of cgroup v1, systemd keeps empty groups for a while.
    let left =
        "find /var/lib /run /sys/fs/cgroup/unified /etc /usr -name '*baton*' ! -path '/var/lib/dpkg/*'";
    assert_eq!(fleet.hosts.run("n1", left).stdout, "");
}

/// The figure of `systemd-analyze security` that docs/install.md states for a unit.
fn stated(unit: &str) -> f64 {
    let page = std::fs::read_to_string(repository().join("docs/install.md")).expect("docs/install.md");
    let row = page.lines().find(|line| line.starts_with(&format!("| `{unit}`")));
    let row = row.unwrap_or_else(|| panic!("docs/install.md has no row for {unit}"));
    let figure = row.split('|').nth(2).expect("a second column").trim();
    figure.parse().unwrap_or_else(|_| panic!("{figure} is no figure"))
}

#[test]
fn units_are_sound_and_as_safe_as_the_documentation_says() {
    let fleet = Fleet::start(1);
    install(&fleet.hosts, "n1", "old", &["baton-gateway"]).ok();
    for (host, unit) in [
        ("n1", "baton-agent.service"),
        ("n1", "baton-gateway.service"),
        (COORDINATOR, "baton-coordinator.service"),
    ] {
        let verified = fleet.hosts.run(host, &format!("systemd-analyze verify --man=no {unit}"));
        assert_eq!((verified.code, verified.stderr.trim()), (0, ""), "{unit}");
        let said = fleet.hosts.run(host, &format!("systemd-analyze security --no-pager {unit}")).stdout;
        let last = said.lines().last().unwrap_or_default().to_owned();
        let figure = last.split(": ").nth(1).and_then(|rest| rest.split(' ').next());
        let figure: f64 =
            figure.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no figure in {last:?}"));
        measured(unit, format!("{figure}, stated {}", stated(unit)));
        assert!(
            (figure - stated(unit)).abs() < 0.05,
            "docs/install.md states another figure of {unit}:\n{said}"
        );
    }
    let status = fleet.hosts.property(COORDINATOR, "baton-coordinator", "StatusText");
    measured("the coordinator's status", &status);
    assert!(!status.is_empty());
    let connected = fleet.hosts.property("n1", "baton-agent", "StatusText");
    measured("the agent's status", &connected);
    let identity = fleet
        .hosts
        .ask(COORDINATOR, "stat -c %U /proc/$(systemctl show --value -p MainPID baton-coordinator)");
    assert_eq!(identity, "baton-coordinator");
}
