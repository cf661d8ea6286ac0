//! Service specifications that between them hold every variant and every field both set and unset.

use baton_model::configuration::{ConfigFile, Configuration, OnChange, SecretUse};
use baton_model::confinement::{Limits, Sandbox};
use baton_model::id::ServiceName;
use baton_model::lifecycle::{Hook, Hooks, Lifecycle, Near, Notify, Reload, RunKind};
use baton_model::rollout::{OnFailure, RolloutPolicy};
use baton_model::spec::{
    Amount, Check, Checks, Count, LogPolicy, Placement, Port, PortKind, Probe, RestartMode, RestartPolicy,
    ServiceSpec, StopPolicy, StopSignal,
};
use baton_model::time::Millis;
use std::collections::BTreeMap;

pub(super) fn service(text: &str) -> ServiceName {
    text.parse().unwrap()
}
pub(super) fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// One spec for each way to choose among variants; the longest list of them decides how many.
pub(super) fn specs() -> Vec<ServiceSpec> {
    StopSignal::ALL.into_iter().enumerate().map(|(n, signal)| spec("web", n, signal)).collect()
}

pub(super) fn spec(name: &str, n: usize, signal: StopSignal) -> ServiceSpec {
    let port = || "http".parse().unwrap();
    let probes = [
        Probe::Exec { command: vec!["bin/check".to_owned(), "-x".to_owned()] },
        Probe::Http { port: port(), path: "/up?x=ä".to_owned(), status: None },
        Probe::Http { port: port(), path: "/".to_owned(), status: Some(204) },
        Probe::Tcp { port: port() },
        Probe::Grpc { port: port(), service: String::new() },
    ];
    let check = |at: usize| {
        let probe = probes.get(at % 6)?.clone();
        Some(Check { probe, interval: Millis(2000), timeout: Millis(1 + at as u64), rise: 2, fall: 3 })
    };
    let modes = [RestartMode::Always, RestartMode::OnFailure, RestartMode::Never];
    ServiceSpec {
        name: service(name),
        exec: vec!["bin/serve".to_owned(), "--port=${PORT_HTTP}".to_owned(), String::new()],
        env: map(&[("A", "1"), ("B", "")]),
        ports: BTreeMap::from([
            (port(), Port { kind: PortKind::Socket { port: 8080 } }),
            ("admin".parse().unwrap(), Port { kind: PortKind::Dynamic }),
            ("beacon".parse().unwrap(), Port { kind: PortKind::Udp { port: 5353 } }),
            (
                "local".parse().unwrap(),
                Port { kind: PortKind::Unix { path: "/run/web/web.sock".to_owned(), mode: 0o660 } },
            ),
            ("old".parse().unwrap(), Port { kind: PortKind::Fixed { port: u16::MAX } }),
        ]),
        checks: Checks { startup: check(n), readiness: check(n + 1), liveness: check(n + 2) },
        stop: StopPolicy { signal, timeout: Millis(30_000), drain: Millis(0) },
        restart: RestartPolicy {
            mode: modes[n % 3],
            base: Millis(100),
            max: Millis(30_000),
            reset_after: Millis(60_000),
            crash_loop_after: 5,
        },
        placement: Placement {
            count: if n.is_multiple_of(2) { Count::Replicas(3) } else { Count::PerNode },
            require: map(&[("disk", "ssd")]),
            spread: n.is_multiple_of(2).then(|| "zone".to_owned()),
            lost_after: Millis(30_000),
        },
        min_available: if n.is_multiple_of(2) { Amount::Number(0) } else { Amount::Percent(100) },
        rollout: RolloutPolicy {
            strategy: super::strategies::strategy(n),
            batch: Amount::Percent(25),
            max_unavailable: Amount::Number(1),
            zone_at_a_time: n.is_multiple_of(2),
            first_zone_bake: Millis(n as u64),
            min_healthy: Millis(10_000),
            healthy_deadline: Millis(300_000),
            progress_deadline: Millis(600_000),
            failure_tolerance: Amount::Number(0),
            on_failure: if n.is_multiple_of(2) { OnFailure::RollBack } else { OnFailure::Pause },
            approve_before: (0..n as u32).collect(),
            analysis: super::strategies::thresholds(n),
        },
        logs: LogPolicy { max_bytes: u64::MAX, keep: 1, journald: true },
        lifecycle: lifecycle(n),
        limits: limits(n),
        sandbox: sandbox(n),
        configuration: if n.is_multiple_of(2) { configuration(signal) } else { Default::default() },
        route: n.is_multiple_of(2).then(|| super::routes::route_spec(n)),
    }
}

fn lifecycle(n: usize) -> Lifecycle {
    let hook =
        |name: &str| Some(Hook { command: vec![name.to_owned(), "-x".to_owned()], timeout: Millis(1) });
    match n % 3 {
        0 => Lifecycle::default(),
        1 => Lifecycle {
            kind: RunKind::OneShot,
            after: BTreeMap::from([("db".parse().unwrap(), Near::SameNode)]),
            hooks: Hooks { after_stop: hook("bin/tidy"), ..Hooks::default() },
            reload: Some(Reload::Signal { signal: StopSignal::Sighup, timeout: Millis(u64::MAX) }),
            notify: Notify { ready_within: None, watchdog: Some(Millis(1)) },
        },
        _ => Lifecycle {
            kind: RunKind::Service,
            after: BTreeMap::from([
                ("db".parse().unwrap(), Near::Anywhere),
                ("proxy".parse().unwrap(), Near::SameNode),
            ]),
            notify: Notify { ready_within: Some(Millis(90_000)), watchdog: Some(Millis(10_000)) },
            reload: Some(Reload::Command { command: vec!["bin/reload".to_owned()], timeout: Millis(5) }),
            hooks: Hooks {
                before_start: hook("a"),
                after_ready: hook("b"),
                before_stop: hook("c"),
                after_stop: hook("d"),
            },
        },
    }
}

fn limits(n: usize) -> Limits {
    match n % 3 {
        0 => Limits::default(),
        1 => Limits { core_bytes: Some(0), ..Limits::default() },
        _ => Limits {
            memory_high: Some(1 << 40),
            memory_max: Some(u64::MAX),
            cpu_percent: Some(150),
            cpu_weight: Some(1),
            pids_max: Some(256),
            io_weight: Some(10_000),
            open_files: Some(65_536),
            core_bytes: Some(1 << 30),
        },
    }
}

fn sandbox(n: usize) -> Sandbox {
    let paths = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    match n % 3 {
        0 => Sandbox::default(),
        // None kept is not the same as nothing said.
        1 => Sandbox { capabilities: Some(Default::default()), nice: Some(-20), ..Sandbox::default() },
        _ => Sandbox {
            user: Some("www-data".to_owned()),
            group: Some("33".to_owned()),
            capabilities: Some(["CAP_CHOWN", "CAP_BPF"].map(|name| name.parse().unwrap()).into()),
            no_new_privileges: true,
            private_tmp: true,
            read_only: paths(&["/", "/etc"]),
            hidden: paths(&["/root"]),
            umask: Some(0o027),
            working_directory: Some("data".to_owned()),
            nice: Some(19),
        },
    }
}

fn configuration(signal: StopSignal) -> Configuration {
    let file = |on_change| ConfigFile { template: "{{ version }}\n".to_owned(), on_change };
    let key = SecretUse { secret: "db-key".parse().unwrap(), revision: 3, on_change: OnChange::Restart };
    Configuration {
        files: BTreeMap::from([
            ("a.conf".to_owned(), file(OnChange::Restart)),
            ("b.conf".to_owned(), file(OnChange::Signal(signal))),
            ("c.conf".to_owned(), file(OnChange::Nothing)),
        ]),
        secrets: BTreeMap::from([("key".to_owned(), key)]),
    }
}
