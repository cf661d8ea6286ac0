//! Installed on three nodes and a coordinator, a service is deployed and swapped under load; and what systemd alone does
//! with the same server at the same load.

use crate::fleet::{Fleet, ROOM, measured, web};
use baton_tests::harness::wait;

/// The sample server takes this long to start, as real ones do.
const SLOW_START: &str = r#"["/usr/bin/baton", "sample-web", "--start-after", "300ms"]"#;

#[test]
fn a_swap_under_load_loses_no_request_where_a_restart_by_systemd_does() {
    let fleet = Fleet::start(3);
    let artifact = crate::hosts::repository().join("crates/tests/fixtures/web");
    let web = web(3).with_program(artifact, SLOW_START);
    fleet.deploy(&web, "1.0").ok();
    let nodes: Vec<&str> = fleet.nodes.iter().map(String::as_str).collect();

    let load = fleet.load(&nodes);
    fleet.await_sent(&load, 200);
    fleet.deploy(&web, "2.0").ok();
    let swap = load.stop();

    fleet.hosts.ask("n1", "printf '[Service]\\nExecStart=/usr/bin/baton sample-web --listen 0.0.0.0:8099 --start-after 300ms\\n' >/run/systemd/system/plain.service && systemctl daemon-reload && systemctl start plain");
    wait::until("plain server", ROOM, || {
        match fleet.hosts.run("n1", "curl -sf http://127.0.0.1:8099/healthz").code {
            0 => Ok(()),
            code => Err(code.to_string()),
        }
    });
    let load = fleet.load_at(&["n1"], 8099);
    fleet.await_sent(&load, 200);
    fleet.hosts.ask("n1", "systemctl restart plain");
    fleet.await_sent(&load, load.sent() + 200);
    let restart = load.stop();

    let line = |counted: &baton_tests::harness::load::Counted| {
        format!(
            "{} requests, {} failed, slowest {:.0} ms",
            counted.sent,
            counted.failed,
            counted.quantile_ms(1.0)
        )
    };
    measured("swap by Baton on three nodes at 200 requests/s", line(&swap));
    measured("systemctl restart of the same server at 200 requests/s", line(&restart));
    assert_eq!(swap.failed, 0, "{:?}", swap.failures);
    assert!(restart.failed > 0, "the comparison compares nothing");
}
