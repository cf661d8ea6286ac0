//! Canaries on a real cluster, behind two gateways and under load: the steps in their order, who is moved and who is not, a
//! bad release that is found and given up, what operators do in between, and processes that die in the middle of a step.

use baton_tests::harness::users::{Answered, Crowd, everyone, version};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use serde_json::Value;
use std::time::Duration;

/// Users who come back; enough that a share of 5 % can be told from its neighbours.
const USERS: usize = 1000;
/// Of these, those who ask all the time, and how often in a second.
const CROWD: (usize, f64) = (150, 150.0);
const ROOM: Duration = Duration::from_secs(60);

fn cluster() -> Cluster {
    let extra = vec!["--gateways".to_owned(), "2".to_owned()];
    Cluster::start_with(&ClusterOptions { nodes: 2, extra, ..ClusterOptions::default() })
}

/// Four instances behind the gateways, which tell users apart by their name.
fn shop(rollout: &str) -> ServiceFile {
    ServiceFile::web("shop", 1)
        .with_ports("[ports.http]\nkind = \"dynamic\"\n")
        .with_env("NODE_ADDRESS", "${NODE_ADDRESS}")
        .with_section("placement", "replicas = 4\n")
        .with_section("route", "split_by = \"header:x-user\"\n")
        .with_section(
            "rollout",
            &format!("strategy = \"canary\"\nbatch = 2\nmin_healthy = \"100ms\"\n{rollout}"),
        )
}

fn canary(steps: &str, bake: &str) -> ServiceFile {
    shop("").with_section("rollout.canary", &format!("steps = {steps}\nbake = \"{bake}\"\n"))
}

/// A machine that is slow for a moment must not have an instance left out: its users would be moved.
fn patient(file: ServiceFile) -> ServiceFile {
    file.with_section("route.check", "interval = \"30s\"\ntimeout = \"30s\"\nfall = 10\n")
        .with_section("route.ejection", "failures = 0\n")
}

fn watching(file: ServiceFile, action: &str) -> ServiceFile {
    let errors =
        format!("metric = \"error-share\"\nmax = \"1%\"\nmin_requests = 20\naction = \"{action}\"\n");
    file.with_section("rollout.analysis.errors", &errors)
}

/// Asks for a release and does not follow it.
fn begin(cluster: &Cluster, file: &ServiceFile, version: &str) {
    let path = cluster.write(&format!("{version}.toml"), &file.text());
    let asked = cluster.baton(&["deploy", &path, "--version", version]).expect(0);
    assert!(!asked.stderr.contains("warning"), "its gateways count: {}", asked.stderr);
}

/// The present weight of the release, in hundredths of a percent.
fn weight(route: &Value, release: &str) -> u64 {
    route["split"]["weights"][release].as_u64().unwrap_or(0)
}

/// Waits until this step is in force everywhere, and the next one waits for an operator.
fn held_after(cluster: &Cluster, step: u64) -> Value {
    let rollout =
        cluster.rollout("shop", &format!("step {step} to be done and the next one to wait"), |it| {
            let stages = it["stages"].as_array().cloned().unwrap_or_default();
            let done = |stage: &Value| stage["state"] == "done";
            it["outcome"] == "paused"
                && stages.iter().all(|stage| done(stage) == (stage["step"].as_u64() <= Some(step)))
        });
    assert!(rollout["reason"].as_str().is_some_and(|it| it.contains("baton rollout promote")), "{rollout:#}");
    cluster.routed("shop")
}

fn nothing_failed(answered: &Answered) {
    assert_eq!((answered.cut, answered.bad.len()), (0, 0), "{answered:#?}");
}

#[test]
fn a_canary_grows_by_its_weights_and_no_client_moves_back() {
    let cluster = cluster();
    let gateways = cluster.gateways();
    let file = patient(shop("approve_before = [2, 3, 4]\n")).with_section(
        "rollout.canary",
        "cohort = [\"header:x-staff\"]\nsteps = [\"5%\", \"25%\", \"100%\"]\nbake = \"200ms\"\n",
    );
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let _ = cluster.routed("shop");
    let crowd = Crowd::start(&gateways, CROWD.0, CROWD.1);
    crowd.go_round();
    begin(&cluster, &file, "2.0");

    // Those of the cohort alone.
    assert_eq!(weight(&held_after(&cluster, 1), "2"), 0);
    for gateway in &gateways {
        assert_eq!(version(*gateway, &[("x-staff", "yes"), ("x-user", "user-1")]), "2.0");
    }
    assert!(everyone(&gateways, USERS).iter().all(|version| version == "1.0"));
    let shown = cluster.baton(&["rollout", "weights", "shop"]).expect(0).stdout;
    assert!(shown.contains("and header:x-staff"), "{shown}");

    // Everybody, step by step. The bounds are five standard deviations of the binomial distribution.
    let mut before = vec!["1.0".to_owned(); USERS];
    for (step, share, least, most) in [(2, 500, 16, 84), (3, 2_500, 182, 318)] {
        let _ = cluster.baton(&["rollout", "promote", "shop"]).expect(0);
        assert_eq!(weight(&held_after(&cluster, step), "2"), share);
        let now = everyone(&gateways, USERS);
        let new = now.iter().filter(|version| *version == "2.0").count();
        assert!((least..=most).contains(&new), "{new} of {USERS} at {share} hundredths of a percent");
        let back = before.iter().zip(&now).filter(|(before, now)| *before == "2.0" && *now == "1.0");
        assert_eq!(back.count(), 0, "a share that grows takes nobody back");
        before = now;
    }
    let _ = cluster.baton(&["rollout", "promote", "shop"]).expect(0);
    let _ = cluster.ended("shop", "succeeded");
    let _ = cluster.routed("shop");
    assert!(everyone(&gateways, USERS).iter().all(|version| version == "2.0"));

    crowd.go_round();
    let answered = crowd.stop();
    nothing_failed(&answered);
    assert_eq!(answered.passages(), [("1.0", "2.0")], "{:?}", answered.moves);
    let told: Vec<String> =
        cluster.told("shop", "traffic-shifted").iter().map(|it| it.replace("shop: 2.0 gets ", "")).collect();
    let expected =
        ["0% of the requests, those with header:x-staff", "5% of the requests", "25% of the requests"];
    assert!(told.iter().zip(expected).all(|(told, expected)| told.starts_with(expected)), "{told:?}");
    assert_eq!((told.len(), told[3].as_str()), (4, "100% of the requests"), "{told:?}");
}

#[test]
fn a_release_that_answers_errors_or_too_late_is_found_and_given_up() {
    let cluster = cluster();
    let good = canary("[\"25%\", \"100%\"]", "1h");
    let slowness = "metric = \"latency\"\nquantile = \"50%\"\nmax = \"250ms\"\nmin_requests = 20\n";
    let watched = watching(good.clone(), "roll-back");
    let asked = [
        ("faulty", "2.0", "errors", watched.clone()),
        ("slow", "3.0", "slowness", good.clone().with_section("rollout.analysis.slowness", slowness)),
        // Gateways leave these two out after a few requests: the release before answers, and all of it counts.
        ("unavailable", "4.0", "errors", watched.clone()),
        ("refusing", "5.0", "errors", watched.with_section("checks.readiness", "")),
    ];
    let _ = cluster.deploy(&good, "1.0").expect(0);
    let _ = cluster.routed("shop");
    for (behaviour, version, threshold, file) in asked {
        let crowd = Crowd::start(&cluster.gateways(), CROWD.0, CROWD.1);
        crowd.go_round();
        // The bake is of an hour: it is the evidence that ends it.
        let ran = cluster.deploy(&file.with_env("BEHAVIOUR", behaviour), version).expect(3);
        assert!(ran.stdout.contains(&format!("{threshold} (")), "{}", ran.stdout);
        let rollout = cluster.ended("shop", "rolled-back");
        let stage = &rollout["stages"][0];
        let verdicts = stage["verdicts"].as_array().expect("verdicts");
        let verdict = verdicts.iter().find(|it| it["name"] == threshold).expect("the verdict is kept");
        assert_eq!((&verdict["answer"], &stage["state"]), (&"fail".into(), &"failed".into()), "{rollout:#}");
        assert!(verdict["requests"].as_u64() >= Some(20) && !verdict["measured"].is_null(), "{verdict}");
        let shown = cluster.baton(&["rollout", "status", "shop"]).expect(0).stdout;
        assert!(shown.contains(&format!("✗ {threshold} (")), "{shown}");
        assert_eq!(
            cluster.json(&["rollout", "history", "shop"])[0]["stages"][0]["verdicts"],
            stage["verdicts"]
        );

        let _ = cluster.routed_as("shop", "the four of 1.0 to serve and nobody else", |route| {
            let upstreams = route["upstreams"].as_object().expect("upstreams");
            weight(route, "1") == 10_000
                && upstreams.len() == 4
                && upstreams.values().all(|it| it["release"] == 1)
        });
        assert!(everyone(&cluster.gateways(), 50).iter().all(|version| version == "1.0"));
        crowd.go_round();
        let answered = crowd.stop();
        let by_itself: u64 = answered.bad.get(version).copied().unwrap_or_default();
        assert_eq!(answered.cut, 0, "{answered:#?}");
        assert_eq!(
            answered.bad.values().sum::<u64>(),
            by_itself,
            "no answer but its own is bad: {answered:#?}"
        );
        assert_eq!(by_itself > 0, ["faulty", "unavailable"].contains(&behaviour), "{answered:#?}");
    }
    let failed = cluster.told("shop", "analysis-failed");
    assert_eq!(failed.len(), 4, "{failed:?}");
}

#[test]
fn a_threshold_holds_rates_and_restarts_count_and_a_person_may_end_the_last_step() {
    let cluster = cluster();
    let good = canary("[\"25%\", \"100%\"]", "1s");
    let _ = cluster.deploy(&good, "1.0").expect(0);
    let _ = cluster.routed("shop");
    let crowd = Crowd::start(&cluster.gateways(), CROWD.0, CROWD.1);
    let waits = || {
        let explained = cluster.json(&["explain", "shop"]);
        explained["waiting"].to_string()
    };
    let held = |what: &str| {
        wait::until(what, ROOM, || match waits() {
            text if text.contains("errors (error share at most 1%) is broken") => Ok(()),
            text => Err(text),
        });
    };

    // It holds while the bound is broken, and goes on by itself.
    let trouble = cluster.write("trouble", "");
    let bad = |file: ServiceFile| file.with_env("BEHAVIOUR", "faulty").with_env("FAULTY_WHILE", &trouble);
    let holding = |file: ServiceFile| {
        let errors =
            "metric = \"error-share\"\nmax = \"1%\"\nmin_requests = 20\nwindow = \"5s\"\naction = \"hold\"\n";
        bad(file.with_section("rollout.analysis.errors", errors))
    };
    begin(&cluster, &holding(good.clone()), "2.0");
    held("the step to be held");
    let rollout = cluster.json(&["rollout", "status", "shop"]);
    assert_eq!((&rollout["outcome"], weight(&cluster.routed("shop"), "2")), (&"running".into(), 2_500));
    std::fs::remove_file(&trouble).expect("it is there");
    let _ = cluster.ended("shop", "succeeded");

    // Fewer requests than it must have.
    let broken = |name: &str| {
        let rollout = cluster.ended("shop", "rolled-back");
        let verdict = &rollout["stages"][0]["verdicts"][0];
        assert_eq!((&verdict["name"], &verdict["answer"]), (&name.into(), &"fail".into()), "{rollout:#}");
    };
    let rate = "metric = \"request-rate\"\nmin = 1000\nwindow = \"5s\"\n";
    begin(&cluster, &canary("[\"25%\", \"100%\"]", "1h").with_section("rollout.analysis.rate", rate), "3.0");
    broken("rate");

    // More restarts than it may have: it dies once and comes back.
    let crash = cluster.folder().join("crash");
    let fragile = canary("[\"25%\", \"100%\"]", "1h")
        .with_env("BEHAVIOUR", "fragile")
        .with_env("CRASH_WHERE", &crash.display().to_string())
        .with_section("rollout.analysis.restarts", "metric = \"restarts\"\nmax = 0\n");
    begin(&cluster, &fragile, "4.0");
    let _ = cluster.rollout("shop", "no restarts to be well", |rollout| {
        rollout["stages"][0]["verdicts"][0]["answer"] == "pass"
    });
    std::fs::write(&crash, "").expect("a file");
    broken("restarts");

    // The last step is held for good, and an operator ends it all the same.
    let _ = cluster.write("trouble", "");
    begin(&cluster, &holding(canary("[\"100%\"]", "0s")), "5.0");
    held("the last step to be held");
    let _ = cluster.baton(&["rollout", "promote", "shop"]).expect(0);
    let _ = cluster.ended("shop", "succeeded");
    assert_eq!(cluster.told("shop", "analysis-overruled").len(), 1);
    let answered = crowd.stop();
    assert_eq!(answered.cut, 0, "{answered:#?}");
}

#[test]
fn an_operator_goes_on_to_a_step_at_once_and_tries_again_after_a_look() {
    let cluster = cluster();
    let gateways = cluster.gateways();
    let steps = "[\"25%\", \"50%\", { weight = \"100%\", bake = \"0s\" }]";
    let file = watching(patient(canary(steps, "1h")), "pause");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let _ = cluster.routed("shop");
    let crowd = Crowd::start(&gateways, CROWD.0, CROWD.1);
    crowd.go_round();
    let in_step = |number: usize| {
        move |rollout: &Value| {
            rollout["stages"][number - 1]["state"] == "baking" && rollout["outcome"] == "running"
        }
    };

    begin(&cluster, &file, "2.0");
    let _ = cluster.rollout("shop", "the first step to bake", in_step(1));
    assert_eq!(weight(&cluster.routed("shop"), "2"), 2_500);
    let unknown = cluster.baton(&["rollout", "promote", "shop", "--to", "30%"]);
    assert!(unknown.code != 0 && unknown.stderr.contains("baton rollout status"), "{}", unknown.stderr);
    let _ = cluster.baton(&["rollout", "promote", "shop", "--to", "50%"]).expect(0);
    let _ = cluster.rollout("shop", "the second step to bake", in_step(2));
    assert_eq!(weight(&cluster.routed("shop"), "2"), 5_000);
    let passed = cluster.baton(&["rollout", "promote", "shop", "--to", "1"]);
    assert!(passed.code != 0 && passed.stderr.contains("begun already"), "{}", passed.stderr);
    let _ = cluster.baton(&["rollout", "promote", "shop", "--to", "3"]).expect(0);
    let _ = cluster.ended("shop", "succeeded");
    // Each has met 2.0 before some are moved on.
    crowd.go_round();

    // A release that is bad for a while: it is held for a look, and goes on when it is good and an operator says so.
    let trouble = cluster.write("trouble", "");
    let bad = watching(patient(canary("[\"25%\", \"100%\"]", "1s")), "pause")
        .with_env("BEHAVIOUR", "faulty")
        .with_env("FAULTY_WHILE", &trouble);
    let held = cluster.deploy(&bad, "3.0").expect(5);
    assert!(held.stdout.contains("baton rollout retry"), "{}", held.stdout);
    assert_eq!(weight(&cluster.routed("shop"), "3"), 2_500, "what it was given stays as it is");
    let resumed = cluster.baton(&["rollout", "resume", "shop"]);
    assert!(resumed.code != 0 && resumed.stderr.contains("retry"), "{}", resumed.stderr);
    std::fs::remove_file(&trouble).expect("it is there");
    wait::until("ten seconds without an error", ROOM, || {
        let traffic = cluster.json(&["rollout", "weights", "shop"]);
        let releases = traffic.as_array().expect("releases");
        let of_new = releases.iter().find(|it| it["release"] == 3).expect("its row");
        if of_new["errors"] == 0 && of_new["requests"] != 0 { Ok(()) } else { Err(traffic.to_string()) }
    });
    let _ = cluster.baton(&["rollout", "retry", "shop"]).expect(0);
    let _ = cluster.ended("shop", "succeeded");
    assert_eq!(cluster.told("shop", "rollout-paused").len(), 1);

    crowd.go_round();
    let answered = crowd.stop();
    assert_eq!(answered.cut, 0, "{answered:#?}");
    assert_eq!(answered.bad.keys().collect::<Vec<_>>(), ["3.0"], "{answered:#?}");
    assert_eq!(answered.passages(), [("1.0", "2.0"), ("2.0", "3.0")], "{:?}", answered.moves);
}

#[test]
fn whoever_dies_in_a_step_the_canary_goes_on() {
    let cluster = cluster();
    // So long that nobody misses it, however slow the machine.
    let steps = "[{ weight = \"25%\", bake = \"12s\" }, \"100%\"]";
    let file = watching(canary(steps, "1s"), "roll-back");
    let _ = cluster.deploy(&file, "1.0").expect(0);
    let _ = cluster.routed("shop");
    // Clients of a gateway that is killed are cut off; those of the other one must not notice.
    let crowd = Crowd::start(&cluster.gateways()[..1], CROWD.0, CROWD.1);
    crowd.go_round();
    begin(&cluster, &file, "2.0");
    let baking = |rollout: &Value| rollout["stages"][0]["state"] == "baking";
    let _ = cluster.rollout("shop", "the first step to bake", baking);
    ["coordinator", "gateway-2", "node-1"].into_iter().for_each(|role| cluster.replace(role));
    let rollout = cluster.ended("shop", "succeeded");
    for stage in
        rollout["stages"].as_array().expect("stages").iter().filter(|stage| !stage["weight"].is_null())
    {
        assert_eq!(stage["verdicts"][0]["answer"], "pass", "missing evidence is not a pass: {rollout:#}");
    }
    let _ = cluster.routed("shop");
    crowd.go_round();
    let answered = crowd.stop();
    nothing_failed(&answered);
    assert_eq!(cluster.told("shop", "traffic-shifted").len(), 2, "no step was taken back");
    assert!(everyone(&cluster.gateways(), 100).iter().all(|version| version == "2.0"));
}
