//! A node's disk is full: a deploy is refused with a reason, what runs is not touched, and with room it works.

use crate::fleet::{Fleet, measured, web};
use baton_tests::harness::ServiceFile;

/// Larger than what is left on the full disk.
const ARTIFACT_BYTES: usize = 40 * 1024 * 1024;

/// The sample service with an artifact that needs room.
fn large(fleet: &Fleet) -> ServiceFile {
    let folder = fleet.folder().join("large");
    std::fs::create_dir_all(&folder).expect("the test's folder can be written");
    // Not compressible, so that it needs room on its way, too.
    let mut state = 1_u64;
    let bytes: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    })
    .take(ARTIFACT_BYTES)
    .collect();
    std::fs::write(folder.join("data"), bytes).expect("the test's folder can be written");
    web(1).with_program(&folder, r#"["/usr/bin/baton", "sample-web"]"#)
}

#[test]
fn a_full_disk_refuses_a_deploy_and_touches_nothing() {
    let fleet = Fleet::start_with(1, true);
    fleet.deploy(&web(1), "1.0").ok();
    let before = fleet.processes("n1");
    let load = fleet.load(&["n1"]);
    fleet
        .hosts
        .ask("n1", "fallocate -l $(($(df --output=avail -B1 /var/lib | tail -1) - 8388608)) /var/lib/filler");

    let large = large(&fleet);
    let refused = fleet.deploy(&large, "2.0");
    let report = fleet.baton(&["events", "--service", "web", "--last", "50"]).ok();
    let reason =
        report.lines().find(|line| line.contains("disk") || line.contains("space") || line.contains("free"));
    measured("the reason told", reason.unwrap_or("none"));
    assert_ne!(refused.code, 0, "{}", refused.stdout);
    assert!(reason.is_some(), "no reason in:\n{report}");
    assert_eq!(fleet.processes("n1"), before, "the running version was touched");

    fleet.hosts.ask("n1", "rm /var/lib/filler");
    fleet.deploy(&large, "2.1").ok();
    let counted = load.stop();
    measured(
        "a deploy onto a full disk, then with room",
        format!("exit code {}, then 0; {} requests, {} failed", refused.code, counted.sent, counted.failed),
    );
    assert_eq!(counted.failed, 0, "{:?}", counted.failures);
}
