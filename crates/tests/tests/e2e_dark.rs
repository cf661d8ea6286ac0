//! Dark launches on a real cluster: every request that was to be copied is accounted for, nobody notices, answers are
//! compared, and the new release serves when a person or the rule says so.

use baton_tests::harness::users::{get, post};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, fixture, wait};
use serde_json::Value;
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
        // On a machine that is slow for a moment nobody must be left out: its copies would not be sent.
        .with_section("route.check", "interval = \"30s\"\ntimeout = \"30s\"\nfall = 10\n")
        .with_section("rollout", "strategy = \"dark\"\nmin_healthy = \"200ms\"\n")
}

/// Begins a launch of `version`, and waits until both gateways copy.
fn begin(cluster: &Cluster, file: &ServiceFile, version: &str) {
    let path = cluster.write(&format!("service-{version}.toml"), &file.text());
    let _ = cluster.baton(&["deploy", &path, "--version", version]).expect(0);
    let _ = cluster.routed_as("shop", "both gateways to copy", |route| route["mirror"].is_object());
}

/// As many requests, in turn at both gateways; each must be answered by this version.
fn live(cluster: &Cluster, path: &str, count: usize, version: &str) {
    for number in 0..count {
        let answer = get(cluster.gateways()[number % 2], None, path);
        assert_eq!((answer.status, answer.version.as_str()), (200, version), "{answer:?}");
    }
}

fn rollout(cluster: &Cluster) -> Value {
    cluster.json(&["rollout", "status", "shop"])
}

/// What a rollout's second stage, which copies, says of the copies.
fn copies(rollout: &Value) -> Value {
    rollout["stages"][1]["comparison"]["copies"].clone()
}

fn number(counts: &Value, name: &str) -> u64 {
    counts[name].as_u64().unwrap_or_else(|| panic!("{name} is no number in {counts}"))
}

fn not_sent(counts: &Value) -> u64 {
    ["not_safe", "not_small", "not_free", "not_there"].iter().map(|name| number(counts, name)).sum()
}

fn until_copies(cluster: &Cluster, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    wait::until(what, ROOM, || {
        let counts = copies(&rollout(cluster));
        if counts.is_object() && is(&counts) { Ok(counts) } else { Err(counts.to_string()) }
    })
}

#[test]
fn answers_are_compared_noise_is_none_and_an_operator_promotes() {
    let cluster = shop();
    let other = file()
        .with_env("BEHAVIOUR", "other")
        .with_section("rollout.dark", "share = \"100%\"\nduration = \"1h\"\ncompare_bodies = true\n");
    begin(&cluster, &other, "2.0");
    live(&cluster, "/same", 40, "1.0");
    live(&cluster, "/odd", 20, "1.0");
    let counts = until_copies(&cluster, "60 comparisons", |it| number(it, "compared") == 60);
    assert_eq!(
        (number(&counts, "drawn"), number(&counts, "sent"), not_sent(&counts)),
        (60, 60, 0),
        "{counts}"
    );
    assert_eq!((number(&counts, "differs_body"), number(&counts, "noise")), (20, 40), "{counts}");
    assert_eq!(
        (number(&counts, "differs_status"), number(&counts, "differs_unanswered")),
        (0, 0),
        "{counts}"
    );
    let shown = cluster.baton(&["rollout", "status", "shop"]).expect(0).stdout;
    assert!(shown.contains("60 compared, 20 differ"), "{shown}");

    let _ = cluster.baton(&["rollout", "promote", "shop", "--to", "3"]).expect(0);
    let done = cluster.ended("shop", "succeeded");
    assert_eq!(
        number(&copies(&done), "compared"),
        60,
        "the comparison stays in the rollout's record: {done}"
    );
    let history = cluster.json(&["rollout", "history", "shop"]);
    assert_eq!(copies(&history[0]), copies(&done), "{history}");
    for index in [0, 1] {
        wait::until("answers of 2.0", ROOM, || match get(cluster.gateways()[index], None, "/") {
            answer if answer.version == "2.0" => Ok(()),
            answer => Err(format!("{answer:?}")),
        });
    }
}

#[test]
fn a_shadow_that_hangs_or_resets_costs_no_request_and_every_copy_is_accounted_for() {
    let cluster = shop();
    let hangs = file().with_env("BEHAVIOUR", "hang").with_section(
        "rollout.dark",
        "share = \"100%\"\nduration = \"1h\"\nbody = \"1KiB\"\nin_flight = 4\n",
    );
    begin(&cluster, &hangs, "2.0");
    live(&cluster, "/", 60, "1.0");
    for _ in 0..10 {
        assert_eq!(post(cluster.gateways()[0], "/", 10).version, "1.0");
    }
    let counts = until_copies(&cluster, "70 requests to be drawn, each sent or not", |it| {
        number(it, "drawn") == 70 && number(it, "sent") + not_sent(it) == 70
    });
    assert_eq!(number(&counts, "not_safe"), 10, "{counts}");
    assert!(number(&counts, "not_free") > 0, "four at a time and gateway: {counts}");
    let _ = cluster.baton(&["rollout", "abort", "shop"]).expect(0);
    let back = cluster.ended("shop", "rolled-back");
    assert_eq!(number(&copies(&back), "drawn"), 70, "{back}");

    let resets = file().with_env("BEHAVIOUR", "reset").with_section(
        "rollout.dark",
        "share = \"100%\"\nduration = \"1h\"\nbody = \"1KiB\"\nunsafe_methods = true\n",
    );
    begin(&cluster, &resets, "3.0");
    live(&cluster, "/", 40, "1.0");
    for bytes in [10, 10, 5000] {
        assert_eq!(post(cluster.gateways()[1], "/", bytes).version, "1.0");
    }
    let counts = until_copies(&cluster, "the end of every copy", |it| {
        let accounted = number(it, "sent") + not_sent(it);
        (number(it, "drawn"), accounted) == (43, 43) && number(it, "compared") == number(it, "sent")
    });
    assert_eq!((number(&counts, "not_small"), number(&counts, "not_safe")), (1, 0), "{counts}");
    assert_eq!(number(&counts, "differs_unanswered"), number(&counts, "sent"), "none is answered: {counts}");
    assert!(number(&counts, "sent") > 0, "{counts}");
}

#[test]
fn by_rule_it_is_promoted_when_enough_was_compared_and_not_before() {
    let cluster = shop();
    let same = file()
        .with_section(
            "rollout.dark",
            "share = \"100%\"\nduration = \"1s\"\ncompare_bodies = true\nthen = \"promote\"\n",
        )
        .with_section("rollout.analysis.same", "metric = \"differing\"\nmax = \"0%\"\nmin_requests = 30\n");
    begin(&cluster, &same, "2.0");
    wait::until("the wait for evidence", ROOM, || {
        let status = cluster.json(&["service", "show", "shop"]);
        let waits = status["report"]["waiting"].as_array().cloned().unwrap_or_default();
        let analysis = waits.iter().any(|it| it["gate"] == "analysis");
        let bakes = waits.iter().any(|it| it["gate"] == "bake");
        if analysis && !bakes { Ok(()) } else { Err(status["report"].to_string()) }
    });
    assert_eq!(rollout(&cluster)["outcome"], "running", "nothing compared is no pass");
    // It may be promoted before the last of them.
    for number in 0..40 {
        assert_eq!(get(cluster.gateways()[number % 2], None, "/same").status, 200);
    }
    let done = cluster.ended("shop", "succeeded");
    assert!(number(&copies(&done), "compared") >= 30, "{done}");
    assert_eq!(number(&copies(&done), "differs_body"), 0, "{done}");
}
