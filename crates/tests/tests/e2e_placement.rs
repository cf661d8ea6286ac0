//! Where instances go and in which order they change, on a real cluster of three zones.

use baton_tests::harness::load::{Load, Plan};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(60);

/// Zone by node name.
fn zones(cluster: &Cluster) -> BTreeMap<String, String> {
    let nodes = cluster.ready["nodes"].as_array().expect("nodes");
    nodes
        .iter()
        .map(|node| {
            (node["name"].as_str().unwrap_or("").to_owned(), node["zone"].as_str().unwrap_or("").to_owned())
        })
        .collect()
}

fn rollout(body: &str) -> String {
    format!("min_healthy = \"300ms\"\nhealthy_deadline = \"60s\"\nprogress_deadline = \"120s\"\n{body}")
}

/// Sequence numbers and instances of the swaps that ended, in order.
fn swaps(cluster: &Cluster) -> Vec<(u64, String)> {
    let events = cluster.baton(&["events", "--json", "--last", "1000"]).expect(0).stdout;
    events
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON"))
        .filter(|event| event["kind"] == "swap-done")
        .map(|event| {
            (event["seq"].as_u64().unwrap_or(0), event["instance"].as_str().unwrap_or("").to_owned())
        })
        .collect()
}

#[test]
fn replicas_spread_over_zones_and_change_one_zone_at_a_time() {
    let extra = vec!["--gateways".to_owned(), "2".to_owned()];
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 6, extra, ..ClusterOptions::default() });
    let web = ServiceFile::web("web", 8080)
        .with_section("placement", "replicas = 6\nspread = \"zone\"\n")
        .with_section("route", "path = \"/\"\n")
        .with_section("rollout", &rollout("batch = 4\nmax_unavailable = 4\nzone_at_a_time = true\n"));
    let _ = cluster.deploy(&web, "1.0").expect(0);
    let zones = zones(&cluster);
    let zone_of: BTreeMap<String, String> = cluster
        .instances("web")
        .iter()
        .map(|it| {
            (it["id"].as_str().unwrap_or("").to_owned(), zones[it["node"].as_str().unwrap_or("")].clone())
        })
        .collect();
    let mut count: BTreeMap<&str, u32> = BTreeMap::new();
    zone_of.values().for_each(|zone| *count.entry(zone).or_default() += 1);
    assert_eq!(count, BTreeMap::from([("a", 2), ("b", 2), ("c", 2)]), "{zone_of:?}");

    // Gateways prefer their own zone, and send its requests elsewhere while it changes.
    let _ = cluster.routed("web");
    let targets = cluster.gateways();
    let load = Load::start(&Plan { targets, connections: 4, rate: Some(100.0), requests_per_connection: 50 });
    let _ = cluster.deploy(&web, "2.0").expect(0);
    let counted = load.stop();
    assert_eq!(counted.failed, 0, "of {}: {:#?}", counted.sent, counted.failures);
    let _ = cluster.routed_as("web", "the six of 2.0 to serve and nobody else", |route| {
        let served = route["upstreams"].as_object().expect("upstreams");
        served.len() == 6 && served.values().all(|it| it["release"] == 2)
    });
    let order: Vec<String> = wait::until("six swaps in the journal", ROOM, || {
        let done = swaps(&cluster);
        if done.len() == 6 { Ok(done) } else { Err(format!("{done:?}")) }
    })
    .into_iter()
    .map(|(_, instance)| zone_of[&instance].clone())
    .collect();
    let mut runs = order.clone();
    runs.dedup();
    assert_eq!(runs.len(), 3, "a zone is finished before the next begins: {order:?}");
}

#[test]
fn one_per_node_where_the_labels_fit_and_a_batch_is_a_share() {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 4, ..ClusterOptions::default() });
    let names: Vec<String> = zones(&cluster).into_keys().collect();
    for name in &names[..3] {
        let _ = cluster.baton(&["node", "label", name, "disk=nvme"]).expect(0);
    }
    let web = ServiceFile::web("web", 8080)
        .with_section("placement", "per_node = true\nrequire = { disk = \"nvme\" }\n")
        .with_section("rollout", &rollout("batch = \"34%\"\nmax_unavailable = \"34%\"\n"));
    let _ = cluster.deploy(&web, "1.0").expect(0);
    let placed: Vec<String> =
        cluster.instances("web").iter().map(|it| it["node"].as_str().unwrap_or("").to_owned()).collect();
    assert_eq!(placed.len(), 3);
    assert!(names[..3].iter().all(|name| placed.contains(name)), "{placed:?}");

    // A node that begins to fit gets its instance, one that no longer fits loses it.
    let _ = cluster.baton(&["node", "label", &names[3], "disk=nvme"]).expect(0);
    let _ = cluster.baton(&["node", "label", &names[0], "disk-"]).expect(0);
    wait::until("the set to follow the labels", ROOM, || {
        let now = cluster.instances("web");
        let fits = now.len() == 3
            && now.iter().all(|it| it["observed"]["state"] == "ready" && it["node"] != names[0].as_str());
        if fits { Ok(()) } else { Err(format!("{now:?}")) }
    });
    let _ = cluster.deploy(&web, "2.0").expect(0);
    assert!(cluster.instances("web").iter().all(|it| it["wanted_version"] == "2.0"));
}

#[test]
fn the_first_zone_bakes_before_the_others_begin() {
    let cluster = Cluster::start();
    let web = ServiceFile::web("web", 8080)
        .with_section("placement", "replicas = 3\nspread = \"zone\"\n")
        .with_section(
            "rollout",
            &rollout("batch = 1\nmax_unavailable = 1\nfirst_zone_bake = \"1h\"\nzone_at_a_time = true\n"),
        );
    let _ = cluster.deploy(&web, "1.0").expect(0);
    let path = cluster.write("two.toml", &web.text());
    let _ = cluster.baton(&["deploy", &path, "--version", "2.0"]).expect(0);
    wait::until("the bake to be told as the reason", ROOM, || {
        let told = cluster.baton(&["explain", "web"]).expect(0).stdout;
        if told.contains("bake") { Ok(()) } else { Err(told) }
    });
    let new = |cluster: &Cluster| {
        cluster.instances("web").iter().filter(|it| it["wanted_version"] == "2.0").count()
    };
    assert_eq!(new(&cluster), 1, "only the first zone has changed");
    let _ = cluster.baton(&["rollout", "abort", "web"]).expect(0);
    wait::until("1.0 again", ROOM, || match new(&cluster) {
        0 => Ok(()),
        left => Err(left.to_string()),
    });
}

#[test]
fn a_node_goes_on_alone_while_the_coordinator_is_dead() {
    let cluster = Cluster::start();
    let _ = cluster.deploy(&ServiceFile::web("web", 8080), "1.0").expect(0);
    let target = format!("{}:8080", cluster.address(0)).parse().expect("an address");
    let pids = cluster.pids("web");
    // `baton dev` starts a dead coordinator again; a stopped one stays away.
    let coordinator = i32::try_from(cluster.role_pid("coordinator")).expect("a pid");
    let coordinator = nix::unistd::Pid::from_raw(coordinator);
    nix::sys::signal::kill(coordinator, nix::sys::signal::Signal::SIGSTOP).expect("it runs");
    pids.iter().for_each(|(_, pid)| cluster.kill(*pid));
    let node = cluster.ready["nodes"][0]["name"].as_str().expect("a name").to_owned();
    cluster.kill(cluster.role_pid(&node));
    let plan = Plan { targets: vec![target], connections: 2, rate: Some(50.0), requests_per_connection: 1 };
    let served =
        wait::until("an answer without a coordinator", ROOM, || {
            let load = Load::start(&plan);
            wait::until("requests", ROOM, || {
                if load.sent() >= 10 { Ok(()) } else { Err(load.sent().to_string()) }
            });
            let counted = load.stop();
            if counted.failed == 0 { Ok(counted) } else { Err(format!("{:?}", counted.failures)) }
        });
    assert!(served.versions.contains_key("1.0"));
    nix::sys::signal::kill(coordinator, nix::sys::signal::Signal::SIGCONT).expect("it is there");
    wait::until("what happened meanwhile in the journal", ROOM, || {
        let told = cluster.baton(&["events", "--json", "--last", "1000"]).stdout;
        let ends = told.lines().filter(|line| line.contains("instance-exited")).count();
        if ends >= pids.len() { Ok(()) } else { Err(told) }
    });
}

#[test]
fn a_fleet_too_small_says_so_and_goes_on_when_it_has_grown() {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 2, ..ClusterOptions::default() });
    let file = ServiceFile::web("web", 8080)
        .with_section("placement", "replicas = 2\nrequire = { gpu = \"yes\" }\n");
    let path = cluster.write("web.toml", &file.text());
    let ran = cluster.baton(&["plan", &path, "--version", "1.0"]).expect(0);
    assert!(ran.stdout.contains("gpu"), "the plan says what would wait: {}", ran.stdout);
    let _ = cluster.baton(&["deploy", &path, "--version", "1.0"]).expect(0);
    wait::until("the reason", ROOM, || {
        let told = cluster.baton(&["explain", "web"]).expect(0).stdout;
        if told.contains("gpu") { Ok(()) } else { Err(told) }
    });
    for node in zones(&cluster).keys() {
        let _ = cluster.baton(&["node", "label", node, "gpu=yes"]).expect(0);
    }
    let _ = cluster.baton(&["rollout", "watch", "web", "--timeout", "60s"]).expect(0);
}
