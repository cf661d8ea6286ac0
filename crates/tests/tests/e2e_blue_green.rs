//! Blue-green on a real cluster, behind two gateways and under load: a second set that only a preview reaches, the switch,
//! the return to the set that is kept warm, and the end of its time.

use baton_tests::harness::users::{Crowd, everyone, version};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use std::collections::BTreeSet;
use std::time::Duration;

const USERS: usize = 200;
const ROOM: Duration = Duration::from_secs(60);

fn cluster() -> Cluster {
    let extra = vec!["--gateways".to_owned(), "2".to_owned()];
    Cluster::start_with(&ClusterOptions { nodes: 2, extra, ..ClusterOptions::default() })
}

fn shop(rollout: &str, blue_green: &str) -> ServiceFile {
    let rollout = format!("strategy = \"blue-green\"\nmin_healthy = \"100ms\"\n{rollout}");
    ServiceFile::web("shop", 1)
        .with_ports("[ports.http]\nkind = \"dynamic\"\n")
        .with_env("NODE_ADDRESS", "${NODE_ADDRESS}")
        .with_section("placement", "replicas = 3\n")
        .with_section("route", "split_by = \"header:x-user\"\n")
        // On a machine that is slow for a moment no instance must be left out: its users would be moved.
        .with_section("route.check", "interval = \"30s\"\ntimeout = \"30s\"\nfall = 10\n")
        .with_section("route.ejection", "failures = 0\n")
        .with_section("rollout", &rollout)
        .with_section("rollout.blue_green", blue_green)
}

fn all(cluster: &Cluster, version: &str) {
    let _ = cluster.routed("shop");
    let versions = everyone(&cluster.gateways(), USERS);
    assert!(versions.iter().all(|it| it == version), "{version} and nothing else: {versions:?}");
}

/// The processes of a release's instances.
fn pids(cluster: &Cluster, release: u64) -> BTreeSet<u64> {
    let instances = cluster.instances("shop");
    let of_release = instances.iter().filter(|it| it["observed"]["release"] == release);
    of_release.filter_map(|it| it["observed"]["pid"].as_u64()).collect()
}

fn wait_for_the_end_of(pids: &BTreeSet<u64>) {
    wait::until("the end of the set", ROOM, || {
        let left: Vec<_> = pids.iter().filter(|pid| wait::is_alive(**pid)).collect();
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    });
}

#[test]
fn a_second_set_is_previewed_switched_to_and_left_again_without_a_start() {
    let cluster = cluster();
    let gateways = cluster.gateways();
    let file = shop(
        "approve_before = [2]\n",
        "preview_host = \"preview.test\"\nbake = \"1s\"\nkeep_warm = \"1h\"\n",
    )
    .with_section("route", "hosts = [\"test\", \"preview.test\"]\nsplit_by = \"header:x-user\"\n");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let _ = cluster.routed("shop");
    let crowd = Crowd::start(&gateways, USERS, 150.0);
    crowd.go_round();
    let paused = cluster.deploy(&file, "2.0").expect(5);
    assert!(paused.stdout.contains("baton rollout promote"), "{}", paused.stdout);
    let _ = cluster.routed("shop");
    for gateway in &gateways {
        assert_eq!(version(*gateway, &[("baton-preview", "1")]), "2.0");
        assert_eq!(version(*gateway, &[("host", "preview.test")]), "2.0");
    }
    let shown = cluster.baton(&["service", "preview", "shop"]).expect(0).stdout;
    let at = gateways[0].to_string();
    assert!(shown.contains("baton-preview: 1") && shown.contains("Host: preview.test"), "{shown}");
    assert!(shown.contains(&at), "{shown}");
    all(&cluster, "1.0");
    let (blue, green) = (pids(&cluster, 1), pids(&cluster, 2));
    assert_eq!((blue.len(), green.len()), (3, 3));

    let _ = cluster.baton(&["rollout", "promote", "shop"]).expect(0);
    let _ = cluster.ended("shop", "succeeded");
    all(&cluster, "2.0");
    let status = cluster.baton(&["rollout", "status", "shop"]).expect(0).stdout;
    assert!(status.contains("1.0 is kept warm: `baton rollout undo shop` returns"), "{status}");
    crowd.go_round();
    let answered = crowd.stop();
    assert_eq!((answered.cut, answered.bad.len()), (0, 0), "{answered:#?}");
    assert_eq!(answered.passages(), [("1.0", "2.0")], "{:?}", answered.moves);

    let crowd = Crowd::start(&gateways, USERS, 150.0);
    crowd.go_round();
    let _ = cluster.baton(&["rollout", "undo", "shop", "--watch"]).expect(0);
    all(&cluster, "1.0");
    assert_eq!(pids(&cluster, 1), blue, "the same processes serve again");
    wait_for_the_end_of(&green);
    crowd.go_round();
    let answered = crowd.stop();
    assert_eq!((answered.cut, answered.bad.len()), (0, 0), "{answered:#?}");
    assert_eq!(answered.passages(), [("2.0", "1.0")], "{:?}", answered.moves);
    assert!(blue.iter().all(|pid| wait::is_alive(*pid)));
}

#[test]
fn a_green_set_that_answers_errors_is_left_by_itself_and_the_blue_one_serves_on() {
    let cluster = cluster();
    let good = shop("", "bake = \"1h\"\nkeep_warm = \"1h\"\n").with_section(
        "rollout.analysis.errors",
        "metric = \"error-share\"\nmax = \"1%\"\nmin_requests = 20\n",
    );
    let _ = cluster.deploy(&good, "1.0").expect(0);
    let _ = cluster.routed("shop");
    let blue = pids(&cluster, 1);
    let crowd = Crowd::start(&cluster.gateways(), USERS, 150.0);
    crowd.go_round();
    let _ = cluster.deploy(&good.clone().with_env("BEHAVIOUR", "faulty"), "2.0").expect(3);
    all(&cluster, "1.0");
    assert_eq!(pids(&cluster, 1), blue, "nothing was started for the return");
    crowd.go_round();
    let answered = crowd.stop();
    assert_eq!(answered.cut, 0, "{answered:#?}");
    assert_eq!(answered.bad.keys().collect::<Vec<_>>(), ["2.0"], "{answered:#?}");
    let rollout = cluster.ended("shop", "rolled-back");
    let titles: Vec<&str> =
        rollout["stages"].as_array().expect("stages").iter().filter_map(|it| it["title"].as_str()).collect();
    assert_eq!(titles, ["a second set", "switch", "switch back to 1.0"]);
    assert_eq!(rollout["stages"][1]["verdicts"][0]["answer"], "fail", "{rollout:#}");
}

#[test]
fn a_warm_set_cools_down_and_then_an_undo_starts_what_it_needs() {
    let cluster = cluster();
    let file = shop("", "bake = \"0s\"\nkeep_warm = \"3s\"\n");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let blue = pids(&cluster, 1);
    let crowd = Crowd::start(&cluster.gateways(), USERS, 150.0);
    crowd.go_round();
    let _ = cluster.deploy(&file, "2.0").expect(0);
    wait_for_the_end_of(&blue);
    assert_eq!(cluster.told("shop", "set-retired").len(), 1);
    let _ = cluster.baton(&["rollout", "undo", "shop", "--watch"]).expect(0);
    all(&cluster, "1.0");
    assert!(pids(&cluster, 1).is_disjoint(&blue));
    crowd.go_round();
    let answered = crowd.stop();
    assert_eq!((answered.cut, answered.bad.len()), (0, 0), "{answered:#?}");
}

#[test]
fn a_coordinator_and_a_gateway_that_die_in_the_bake_take_no_switch_back() {
    let cluster = cluster();
    // So long that nobody misses it, however slow the machine.
    let file = shop("", "bake = \"12s\"\nkeep_warm = \"1h\"\n");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let _ = cluster.routed("shop");
    let blue = pids(&cluster, 1);
    let crowd = Crowd::start(&cluster.gateways()[..1], USERS, 150.0);
    crowd.go_round();
    let path = cluster.write("2.toml", &file.text());
    let _ = cluster.baton(&["deploy", &path, "--version", "2.0"]).expect(0);
    let baking = |rollout: &serde_json::Value| rollout["stages"][1]["state"] == "baking";
    let _ = cluster.rollout("shop", "the switch to bake", baking);
    ["coordinator", "gateway-2"].into_iter().for_each(|role| cluster.replace(role));
    let _ = cluster.ended("shop", "succeeded");
    all(&cluster, "2.0");
    let _ = cluster.baton(&["rollout", "undo", "shop", "--watch"]).expect(0);
    all(&cluster, "1.0");
    assert_eq!(pids(&cluster, 1), blue, "the warm set outlived them");
    crowd.go_round();
    let answered = crowd.stop();
    assert_eq!((answered.cut, answered.bad.len()), (0, 0), "{answered:#?}");
    assert_eq!(answered.passages(), [("1.0", "2.0"), ("2.0", "1.0")], "{:?}", answered.moves);
}
