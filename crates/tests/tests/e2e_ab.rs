//! A/B tests on a real cluster: who gets which release, who is counted, what is shown, and who decides.

use baton_gateway::hash::{Salt, point};
use baton_tests::harness::users::get;
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, fixture, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(90);

/// Two gateways in front of two instances of 1.0.
fn shop() -> Cluster {
    let extra = vec!["--gateways".to_owned(), "2".to_owned()];
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 2, extra, ..ClusterOptions::default() });
    let _ = cluster.deploy(&file(), "1.0").expect(0);
    cluster
}

fn file() -> ServiceFile {
    ServiceFile::web("shop", 1)
        .with_program(fixture("shop"), "[\"./shop.py\"]")
        .with_ports("[ports.http]\nkind = \"dynamic\"\n")
        .with_env("NODE_ADDRESS", "${NODE_ADDRESS}")
        .with_section("placement", "replicas = 2\n")
        .with_section("route", "path = \"/\"\n")
        // Each release has one instance: on a machine that is busy, it must not be left out for being slow.
        .with_section("route.check", "interval = \"30s\"\ntimeout = \"30s\"\nfall = 10\n")
        .with_section("route.ejection", "failures = 0\n")
}

/// Begins a test of 2.0 with half of the users, and waits until both gateways split them.
fn begin(cluster: &Cluster, duration: &str) {
    let test = file()
        .with_section("rollout", "strategy = \"ab\"\nbatch = 2\nmin_healthy = \"200ms\"\n")
        .with_section(
            "rollout.ab",
            &format!("key = \"header:x-user\"\nshare = \"50%\"\nduration = \"{duration}\"\n"),
        );
    let path = cluster.write("service-2.0.toml", &test.text());
    let _ = cluster.baton(&["deploy", &path, "--version", "2.0"]).expect(0);
    let _ = cluster.routed_as("shop", "both gateways to split", |route| route["trial"].is_object());
}

/// The versions that these users get at a gateway.
fn versions(cluster: &Cluster, index: usize, users: &[String]) -> BTreeMap<String, String> {
    let target = cluster.gateways()[index];
    let version = |user: &String| {
        let answer = get(target, Some(user), "/");
        assert_eq!(answer.status, 200, "{answer:?}");
        (user.clone(), answer.version)
    };
    users.iter().map(version).collect()
}

fn users(numbers: std::ops::Range<u32>) -> Vec<String> {
    numbers.map(|number| format!("user-{number}")).collect()
}

fn rollout(cluster: &Cluster) -> Value {
    cluster.json(&["rollout", "status", "shop"])
}

/// The comparison that a rollout's first stage holds.
fn comparison(rollout: &Value) -> Value {
    rollout["stages"][0]["comparison"].clone()
}

fn requests(comparison: &Value) -> u64 {
    let of = |arm: &str| comparison[arm]["requests"].as_u64().unwrap_or_default();
    of("control") + of("treatment")
}

/// Waits until all of so many requests are counted.
fn counted(cluster: &Cluster, expected: u64) -> Value {
    wait::until("every request to be counted", ROOM, || {
        let comparison = comparison(&rollout(cluster));
        let found = requests(&comparison);
        assert!(found <= expected, "{found} of {expected}: {comparison}");
        if found == expected { Ok(comparison) } else { Err(comparison.to_string()) }
    })
}

/// Within four standard errors of the sketch, and one for rounding.
#[track_caller]
fn about(found: &Value, known: usize) {
    #[allow(clippy::cast_precision_loss, reason = "a few hundred")]
    let (found, known) = (found.as_u64().expect("a number") as f64, known as f64);
    assert!((found - known).abs() <= 1.0 + known * 0.033, "{found} clients are counted, {known} there were");
}

#[test]
fn users_keep_their_release_and_are_counted_once_over_gateways_and_restarts() {
    let cluster = shop();
    begin(&cluster, "1h");
    let users = users(0..400);
    let first = versions(&cluster, 0, &users);
    assert_eq!(versions(&cluster, 1, &users), first, "both gateways send a user to the same release");
    let new = first.values().filter(|version| *version == "2.0").count();
    // Half of 400, six standard deviations of the binomial.
    assert!((140..=260).contains(&new), "{new} of 400 got 2.0");
    // Without a key there is no part in it.
    for _ in 0..20 {
        assert_eq!(get(cluster.gateways()[0], None, "/").version, "1.0");
    }
    let weights = cluster.json(&["rollout", "weights", "shop"]);
    let shares: Vec<u64> =
        weights.as_array().expect("releases").iter().filter_map(|it| it["weight"].as_u64()).collect();
    assert_eq!(shares, [5_000, 5_000], "each its true share: {weights}");
    let before = counted(&cluster, 800);
    about(&before["treatment"]["clients"], new);
    about(&before["control"]["clients"], 400 - new);
    assert_eq!(before["sample_ratio"]["answer"], "pass", "{before}");
    assert_eq!(before["treatment"]["errors"], 0, "{before}");

    // A coordinator that is killed is told again what it had heard.
    let killed = cluster.role_pid("coordinator");
    cluster.kill(killed);
    another_coordinator(&cluster, killed);
    assert_eq!(versions(&cluster, 0, &users), first, "a restart moves nobody");
    let after = counted(&cluster, 1200);
    assert_eq!(after["treatment"]["clients"], before["treatment"]["clients"], "and nobody is counted twice");

    // A gateway that is followed by another process tells what it has counted to the end, also of the last moment.
    assert_eq!(versions(&cluster, 0, &users), first);
    followed(&cluster, "gateway-1");
    assert_eq!(versions(&cluster, 0, &users), first, "nor does another process");
    let after = counted(&cluster, 2000);
    assert_eq!(after["treatment"]["clients"], before["treatment"]["clients"]);

    // When it ends in order, what it heard outlives the gateways too.
    let stopped = cluster.role_pid("coordinator");
    let pid = i32::try_from(stopped).expect("a pid");
    kill(Pid::from_raw(pid), Signal::SIGTERM).expect("it is there");
    wait::until("its end", ROOM, || if wait::is_alive(stopped) { Err("it runs".to_owned()) } else { Ok(()) });
    ["gateway-1", "gateway-2"].iter().for_each(|name| cluster.kill(cluster.role_pid(name)));
    another_coordinator(&cluster, stopped);
    let kept = counted(&cluster, 2000);
    assert_eq!(kept["treatment"]["clients"], before["treatment"]["clients"]);
}

/// Has a gateway be followed by another process, as a reload does.
fn followed(cluster: &Cluster, gateway: &str) {
    let before = cluster.role_pid(gateway);
    kill(Pid::from_raw(i32::try_from(before).expect("a pid")), Signal::SIGHUP).expect("it is there");
    wait::until("the next process", ROOM, || match cluster.role_pid_now(gateway) {
        Some(pid) if pid != before && !wait::is_alive(before) => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

fn another_coordinator(cluster: &Cluster, than: u64) {
    wait::until("another coordinator", ROOM, || match cluster.role_pid_now("coordinator") {
        Some(pid) if pid != than && cluster.baton(&["gateway", "ls"]).code == 0 => Ok(()),
        other => Err(format!("{other:?}")),
    });
}

#[test]
fn nothing_is_promoted_but_by_an_operator_who_is_shown_the_evidence() {
    let cluster = shop();
    begin(&cluster, "2s");
    let paused = cluster.ended("shop", "paused");
    assert!(
        paused["reason"].as_str().is_some_and(|it| it.contains("baton rollout promote shop")),
        "{paused}"
    );
    assert!(comparison(&paused).is_object(), "the outcome is kept with its evidence: {paused}");
    let shown = cluster.baton(&["rollout", "status", "shop"]).expect(0).stdout;
    assert!(shown.contains("sample ratio") && shown.contains("⇒"), "{shown}");
    // The time is over, and both are there: nobody has decided.
    let split = versions(&cluster, 0, &users(0..40));
    let both: std::collections::BTreeSet<&String> = split.values().collect();
    assert_eq!(both.len(), 2, "{split:?}");

    let _ = cluster.baton(&["rollout", "promote", "shop"]).expect(0);
    let done = cluster.ended("shop", "succeeded");
    assert_eq!(comparison(&done), comparison(&paused), "what was decided by stays as it was");
    for index in [0, 1] {
        wait::until("2.0 for everybody", ROOM, || {
            let split = versions(&cluster, index, &users(0..20));
            if split.values().all(|version| version == "2.0") { Ok(()) } else { Err(format!("{split:?}")) }
        });
    }
}

#[test]
fn clients_of_one_release_that_stay_away_are_a_mismatch_and_the_evidence_is_not_trusted() {
    let cluster = shop();
    begin(&cluster, "1h");
    // As if every other user of 2.0 never came as far as the gateway.
    // The test is that of the second rollout.
    let salt = Salt::new("shop", "share 2");
    let is_new = |user: &String| point(salt.hash(user.as_bytes())) < 5_000;
    let (new, old): (Vec<String>, Vec<String>) = users(0..600).into_iter().partition(is_new);
    let came: Vec<String> = old.iter().cloned().chain(new.iter().step_by(2).cloned()).collect();
    let split = versions(&cluster, 1, &came);
    assert!(split.iter().all(|(user, version)| (version == "2.0") == is_new(user)), "{split:?}");

    let found = counted(&cluster, came.len() as u64);
    about(&found["control"]["clients"], old.len());
    about(&found["treatment"]["clients"], new.len().div_ceil(2));
    assert_eq!(found["sample_ratio"]["answer"], "fail", "{found}");
    let _ = cluster.baton(&["rollout", "promote", "shop", "--to", "2"]).expect(0);
    let done = cluster.ended("shop", "succeeded");
    let conclusion = comparison(&done)["conclusion"].as_str().unwrap_or_default().to_owned();
    assert!(
        conclusion.contains("sample ratio mismatch") && conclusion.contains("not to be trusted"),
        "{done}"
    );
    let events = cluster.baton(&["events"]).expect(0).stdout;
    assert!(events.contains("sample ratio mismatch"), "{events}");
}
