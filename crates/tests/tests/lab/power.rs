//! Power is lost, a host is shut down: at the next boot everything comes back as planned, without a person.

use crate::fleet::{COORDINATOR, Fleet, PORT, ROOM, measured, web};
use crate::hosts::script;
use baton_tests::harness::{ServiceFile, wait};
use std::time::Duration;

/// Instances beside the web server, all on the one node.
const FILL: u32 = 20;

/// The time of the machine, which is also that of its hosts.
pub(crate) fn monotonic() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Duration::new(now.tv_sec.unsigned_abs(), u32::try_from(now.tv_nsec).unwrap_or(0))
}

fn fill() -> ServiceFile {
    ServiceFile::web("fill", 1)
        .with_program(
            crate::hosts::repository().join("crates/tests/fixtures/web"),
            r#"["/usr/bin/baton", "sample-web", "--listen", "0.0.0.0:${PORT_HTTP}"]"#,
        )
        .with_ports("[ports.http]\nkind = \"dynamic\"\n")
        .with_section("placement", &format!("replicas = {FILL}\n"))
        .with_section("rollout", "batch = 10\nmin_healthy = \"500ms\"\n")
}

/// When the last instance became ready, as its node measured it, on the clock of [`monotonic`].
fn last_ready(fleet: &Fleet) -> Duration {
    let wall = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let ago = |at: u64| wall.saturating_sub(Duration::from_millis(at));
    let instances = ["web", "fill"].map(|service| fleet.instances(service)).concat();
    let since = instances.iter().map(|it| ago(it["observed"]["ready_since"].as_u64().expect("it is ready")));
    monotonic().saturating_sub(since.min().expect("instances"))
}

/// Boots the host and tells how long it took from the agent's start until the web server answers, and all are ready.
fn boot(fleet: &Fleet, what: &str, hosts: &[&str]) {
    let url = format!("http://{}:{PORT}/healthz", fleet.hosts.address("n1"));
    let begun = monotonic();
    let served = std::thread::scope(|scope| {
        scope.spawn(|| fleet.hosts.verb("start", hosts));
        wait::until("answer", ROOM, || match script(&["client", "curl", "-sf", "-m", "1", &url]).code {
            0 => Ok(monotonic()),
            code => Err(format!("curl ended with {code}")),
        })
    });
    // What a node reported before is shown until it reports again.
    fleet.await_boot("n1");
    fleet.ready("web", 1);
    fleet.ready("fill", FILL as usize);
    let shown = monotonic();
    let started = fleet.hosts.property("n1", "baton-agent", "ExecMainStartTimestampMonotonic");
    let started = Duration::from_micros(started.parse().expect("microseconds"));
    let after = |at: Duration| at.saturating_sub(started).as_secs_f64();
    measured(
        what,
        format!(
            "agent started {:.2} s after power on; from then, the web server answered after {:.2} s, the last of {} instances was ready after {:.2} s, all were shown so after {:.2} s",
            started.saturating_sub(begun).as_secs_f64(),
            after(served),
            FILL + 1,
            after(last_ready(fleet)),
            after(shown),
        ),
    );
    assert_eq!(fleet.processes("n1").len(), FILL as usize + 1, "what really runs");
}

#[test]
fn after_a_power_loss_and_after_a_shutdown_everything_comes_back() {
    let fleet = Fleet::start_with(1, true);
    fleet.deploy(&web(1), "1.0").ok();
    fleet.deploy(&fill(), "1.0").ok();

    fleet.hosts.verb("powerloss", &["n1"]);
    boot(&fleet, "power loss of the node", &["n1"]);

    fleet.hosts.verb("powerloss", &["n1", COORDINATOR]);
    boot(&fleet, "power loss of node and coordinator", &["n1", COORDINATOR]);

    let begun = monotonic();
    fleet.hosts.verb("stop", &["n1"]);
    let took = monotonic() - begun;
    boot(&fleet, "shutdown of the node", &["n1"]);
    // Each workload was asked to end, and had the time to: none was among what systemd kills at the very end.
    let said = fleet.hosts.ask("n1", "journalctl -q --no-pager -b -1 -u baton-workloads");
    let ended = said.lines().filter(|line| line.ends_with("has ended")).count();
    measured(
        "orderly shutdown of the node",
        format!("{:.2} s, {ended} workloads ended in order", took.as_secs_f64()),
    );
    assert_eq!(ended, FILL as usize + 1, "{said}");
}
