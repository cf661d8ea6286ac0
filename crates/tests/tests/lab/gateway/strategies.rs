//! Every strategy behind two gateways on hosts, with users who must be moved as planned and lose nothing.

use super::{Fleet, HTTP, none_failed, routed};
use crate::fleet::{RATE, beside_the_hosts, measured};
use crate::hosts::repository;
use baton_tests::harness::users::{Crowd, everyone};
use std::net::SocketAddr;
use std::time::Instant;

const USERS: usize = 100;
/// Exit code of a deploy that waits for an operator.
const PAUSED: i32 = 5;
/// Half of the requests first, then all.
const CANARY: &str = "strategy = \"canary\"\nmin_healthy = \"500ms\"\n[rollout.canary]\nsteps = [\"50%\", \"100%\"]\nbake = \"1s\"\n";
const BLUE_GREEN: &str = "strategy = \"blue-green\"\nmin_healthy = \"500ms\"\n[rollout.blue_green]\nbake = \"500ms\"\nkeep_warm = \"1h\"\n";
const AB: &str =
    "strategy = \"ab\"\nmin_healthy = \"500ms\"\n[rollout.ab]\nshare = \"50%\"\nduration = \"1s\"\n";
const DARK: &str = "strategy = \"dark\"\nmin_healthy = \"500ms\"\n[rollout.dark]\nshare = \"100%\"\nduration = \"1s\"\nthen = \"promote\"\n";

/// In place: the process at the service's own port is swapped.
pub(super) fn in_place(fleet: &Fleet) {
    let load = fleet.through(&["g1", "g2"]);
    fleet.deploy(&routed(), "2.0").ok();
    load.await_version("2.0");
    none_failed("a rolling deploy behind two gateways", &fleet.after_more(load));

    let load = fleet.through(&["g1", "g2"]);
    fleet.deploy(&routed().with_section("rollout", CANARY), "3.0").ok();
    load.await_version("3.0");
    none_failed("a canary behind two gateways", &fleet.after_more(load));
}

/// With a second set, or a split by user; the instances have dynamic ports.
pub(super) fn side_by_side(fleet: &Fleet) {
    let file = routed()
        .with_program(
            repository().join("crates/tests/fixtures/web"),
            r#"["/usr/bin/baton", "sample-web", "--listen", "${NODE_ADDRESS}:${PORT_HTTP}"]"#,
        )
        .with_ports("[ports.http]\nkind = \"dynamic\"\n")
        .with_section("route", "path = \"/\"\nsplit_by = \"header:x-user\"\n");
    let by = |rollout: &str| file.clone().with_section("rollout", rollout);
    fleet.deploy(&file, "6.1").ok();
    fleet.await_tables();
    let targets: Vec<SocketAddr> = ["g1", "g2"]
        .map(|host| format!("{}:{HTTP}", fleet.hosts.address(host)).parse().expect("an address"))
        .into();
    let ask = || {
        let targets = targets.clone();
        beside_the_hosts(move || everyone(&targets, USERS))
    };
    let all = |version: &str| {
        fleet.await_tables();
        let versions = ask();
        assert!(versions.iter().all(|it| it == version), "{version} and nothing else: {versions:?}");
    };
    all("6.1");
    let crowd = {
        let targets = targets.clone();
        beside_the_hosts(move || Crowd::start(&targets, USERS, RATE))
    };
    crowd.go_round();
    fleet.deploy(&by(BLUE_GREEN), "6.2").ok();
    all("6.2");
    crowd.go_round();
    let begun = Instant::now();
    fleet.baton(&["rollout", "undo", "web", "--watch"]).ok();
    let returned = begun.elapsed();
    all("6.1");
    crowd.go_round();
    let paused = fleet.deploy(&by(AB), "6.3");
    assert_eq!(paused.code, PAUSED, "{}{}", paused.stdout, paused.stderr);
    let versions = ask();
    let new = versions.iter().filter(|version| *version == "6.3").count();
    // Five standard deviations of the binomial distribution.
    assert!((25..=75).contains(&new), "half of the users: {versions:?}");
    fleet.baton(&["rollout", "promote", "web", "--watch"]).ok();
    all("6.3");
    crowd.go_round();
    fleet.deploy(&by(DARK), "6.4").ok();
    all("6.4");
    crowd.go_round();
    let answered = crowd.stop();
    measured(
        "blue-green and back, A/B, dark launch behind two gateways",
        format!(
            "{} requests, {} failed; the return's command {:.2} s",
            answered.good.values().sum::<u64>(),
            answered.cut + answered.bad.values().sum::<u64>(),
            returned.as_secs_f64()
        ),
    );
    assert_eq!((answered.cut, answered.bad.len()), (0, 0), "{answered:#?}");
    assert_eq!(
        answered.passages(),
        [("6.1", "6.2"), ("6.1", "6.3"), ("6.2", "6.1"), ("6.3", "6.4")],
        "{:?}",
        answered.moves
    );
}
