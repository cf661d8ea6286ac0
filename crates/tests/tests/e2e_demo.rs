//! The main job, as the README promises it.

use baton_tests::harness::baton_program;
use serde_json::Value;
use std::process::{Command, Stdio};

#[test]
fn the_demo_keeps_every_promise_and_prints_its_receipt() {
    let output = Command::new(baton_program())
        .args(["demo", "--json", "--rate", "100"])
        .stdin(Stdio::null())
        .output()
        .expect("baton runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let receipt: Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("no receipt: {error}\n{said}"));
    assert_eq!(output.status.code(), Some(0), "{receipt:#}\n{said}");
    assert!(!said.contains('\x1b'), "nothing steers a terminal that is not there: {said:?}");
    assert_eq!(receipt["ok"], true, "{receipt:#}");
    assert_eq!(receipt["failed"], 0, "{receipt:#}");
    assert!(count(&receipt, "requests") > 2_000, "{receipt:#}");

    let phases = receipt["phases"].as_array().expect("phases");
    let names: Vec<&str> = phases.iter().filter_map(|phase| phase["name"].as_str()).collect();
    let foundation = ["deploy", "steady", "roll", "kill-instance", "kill-agent", "failed-check"];
    let strategies = ["canary", "canary-errors", "canary-slow", "blue-green", "undo", "dark-launch"];
    assert_eq!(names, [foundation, strategies].concat());
    for field in ["requests", "bad_answers"] {
        let sum: u64 = phases.iter().map(|phase| count(phase, field)).sum();
        assert_eq!(count(&receipt, field), sum, "{field} of {receipt:#}");
    }
    for phase in phases {
        assert_eq!((&phase["ok"], &phase["failed"]), (&Value::from(true), &Value::from(0)), "{phase:#}");
        // Whoever answered, it was counted; and only one version has errors.
        let answers: u64 = releases(phase).iter().map(|release| count(release, "answers")).sum();
        assert_eq!(answers, count(phase, "requests"), "{phase:#}");
        let errors: u64 = releases(phase).iter().map(|release| count(release, "errors")).sum();
        assert_eq!(errors, count(phase, "bad_answers"), "{phase:#}");
        assert_eq!(errors > 0, phase["name"] == "canary-errors", "{phase:#}");
    }
    foundation_holds(phases);
    strategies_hold(phases);
}

fn foundation_holds(phases: &[Value]) {
    let roll = named(phases, "roll");
    assert!(answers(roll, "web", "1.0") > 0 && answers(roll, "web", "2.0") > 0, "{roll:#}");
    assert_eq!(measured(roll, "batches"), 3.0);
    assert!(measured(named(phases, "kill-instance"), "served_again_after_ms") > 0.0);
    assert!(measured(named(phases, "kill-agent"), "agent_down_for_ms") > 0.0);
    let failed = named(phases, "failed-check");
    assert_eq!(answers(failed, "web", "3.0"), 0, "{failed:#}");
}

fn strategies_hold(phases: &[Value]) {
    let canary = named(phases, "canary");
    assert!(answers(canary, "shop", "1.0") > 0 && answers(canary, "shop", "2.0") > 0, "{canary:#}");
    assert_eq!(measured(canary, "steps"), 3.0);

    let errors = named(phases, "canary-errors");
    assert!(answers(errors, "shop", "3.0") > count(errors, "bad_answers"), "{errors:#}");
    assert!(errors["note"].as_str().expect("a note").contains("error share"), "{errors:#}");
    let slow = named(phases, "canary-slow");
    let release = release(slow, "shop", "4.0").expect("it answered somebody");
    assert!(release["latency_ms"]["p50"].as_f64().expect("a time") >= 1_000.0, "{slow:#}");
    assert!(slow["note"].as_str().expect("a note").contains("latency"), "{slow:#}");
    for bad in [errors, slow] {
        assert!(measured(bad, "found_after_ms") > 0.0 && measured(bad, "gone_after_ms") > 0.0);
    }

    let switch = named(phases, "blue-green");
    assert_eq!(measured(switch, "gateways_previewed"), 2.0);
    assert!(answers(switch, "shop", "2.0") > 0 && answers(switch, "shop", "5.0") > 0, "{switch:#}");
    let undo = named(phases, "undo");
    assert!(answers(undo, "shop", "2.0") > 0, "{undo:#}");
    for moved in [switch, undo] {
        assert!(measured(moved, "all_requests_there_after_ms") >= 0.0);
    }

    let dark = named(phases, "dark-launch");
    assert_eq!(answers(dark, "shop", "6.0"), 0, "{dark:#}");
    assert!(measured(dark, "copies") >= measured(dark, "answered_otherwise"), "{dark:#}");
    assert!(measured(dark, "answered_otherwise") > 0.0, "{dark:#}");
}

fn named<'a>(phases: &'a [Value], name: &str) -> &'a Value {
    phases.iter().find(|phase| phase["name"] == name).expect("a phase of that name")
}

fn count(value: &Value, field: &str) -> u64 {
    value[field].as_u64().unwrap_or_else(|| panic!("no count {field} in {value:#}"))
}

fn measured(phase: &Value, name: &str) -> f64 {
    phase["measured"][name].as_f64().unwrap_or_else(|| panic!("no {name} was measured: {phase:#}"))
}

fn releases(phase: &Value) -> &[Value] {
    phase["releases"].as_array().expect("releases")
}

fn release<'a>(phase: &'a Value, service: &str, version: &str) -> Option<&'a Value> {
    releases(phase).iter().find(|it| it["service"] == service && it["version"] == version)
}

fn answers(phase: &Value, service: &str, version: &str) -> u64 {
    release(phase, service, version).map_or(0, |release| count(release, "answers"))
}
