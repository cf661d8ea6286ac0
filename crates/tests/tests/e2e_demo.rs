//! The main job, as the README promises it.

use baton_tests::harness::baton_program;
use std::process::{Command, Stdio};

#[test]
fn the_demo_keeps_every_promise_and_prints_its_receipt() {
    let output = Command::new(baton_program())
        .args(["demo", "--json", "--rate", "200"])
        .stdin(Stdio::null())
        .output()
        .expect("baton runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let receipt: serde_json::Value =
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("no receipt: {error}\n{said}"));
    assert_eq!(output.status.code(), Some(0), "{receipt:#}\n{said}");
    let phases = receipt["phases"].as_array().expect("phases");
    assert!(receipt["requests"].as_u64().expect("a count") > 1000, "{receipt:#}");
    assert_eq!(
        receipt["requests"],
        phases.iter().filter_map(|phase| phase["requests"].as_u64()).sum::<u64>(),
        "{receipt:#}"
    );
    for phase in phases {
        assert_eq!(phase["ok"], true, "{phase:#}");
        let killed = phase["name"] == "kill-instance";
        assert!(killed || phase["failed"] == 0, "{phase:#}");
    }
    let names: Vec<&str> = phases.iter().filter_map(|phase| phase["name"].as_str()).collect();
    assert_eq!(names, ["deploy", "steady", "roll", "kill-instance", "kill-agent", "bad-release"]);
}
