//! What can be wrong with a route: a port that no gateway can reach, names that no request carries, limits that
//! contradict each other.

use super::Findings;
use crate::file::suggest::{closest, one_of};
use crate::file::traffic::takes_tcp;
use crate::file::value::shorten;
use crate::id::PortName;
use crate::lifecycle::RunKind;
use crate::route::{Balance, Entry, Key, RouteSpec, TrafficCheck, is_host, is_path};
use crate::spec::{Port, PortKind, Probe, ServiceSpec};
use crate::time::Millis;
use std::collections::BTreeSet;

/// Most names of hosts of one route; more are a proxy's configuration, not a service's.
const HOSTS_MAX: usize = 64;
/// Longest beginning of a path.
const PATH_MAX: usize = 1024;
/// Longest name of a cookie.
const COOKIE_MAX: usize = 64;
/// A shorter wait than this is no wait on any network.
const TIMEOUT_MIN: Millis = Millis(10);
const CONNECT_MAX: Millis = Millis::secs(60);
const RESPONSE_MAX: Millis = Millis::secs(24 * 3600);
const HOUR: Millis = Millis::secs(3600);
/// More attempts than this turn one client's trouble into everybody's.
const ATTEMPTS_MAX: u32 = 10;
const BODY_BYTES_MIN: u64 = 1024;
const BODY_BYTES_MAX: u64 = 1 << 40;
const IN_FLIGHT_MAX: u32 = 1_000_000;
/// A request that waits costs memory at a gateway, so the queue has an end that a gateway can bear.
const QUEUE_MAX: u32 = 100_000;
const CHECK_INTERVAL_MIN: Millis = Millis(100);
const ANSWERS_MAX: u32 = 1000;
const FAILURES_MAX: u32 = 1000;

pub(super) fn check(spec: &ServiceSpec, findings: &mut Findings) {
    let Some(route) = &spec.route else { return };
    if spec.lifecycle.kind == RunKind::OneShot {
        findings.add(
            &["route", "type"],
            "`[route]` sends requests to a workload that has ended: a one-shot is ready when it has ended",
            "take it out, or write `type = \"service\"`",
        );
        return;
    }
    port(spec, route, findings);
    match &route.entry {
        Entry::Http { hosts, path, .. } => {
            all_hosts(hosts, findings);
            prefix("route.path", path, findings);
        }
        Entry::Tcp { listen } => tcp(*listen, route, findings),
    }
    cookie(route, findings);
    durations(route, findings);
    amounts(route, findings);
    if let Some(check) = &route.check {
        gateway_check(check, spec, findings);
    }
}

/// The port that gateways connect to must be there, and be one that takes TCP connections.
fn port(spec: &ServiceSpec, route: &RouteSpec, findings: &mut Findings) {
    let names = |usable: bool| {
        spec.ports
            .iter()
            .filter(move |(_, port)| !usable || takes_tcp(&port.kind))
            .map(|(name, _)| PortName::as_str(name))
    };
    match spec.ports.get(&route.port) {
        Some(Port { kind }) if takes_tcp(kind) => {}
        Some(Port { kind }) => {
            let what = match kind {
                PortKind::Udp { .. } => "a UDP port",
                PortKind::Unix { .. } => "a Unix socket and reached on its own node alone",
                PortKind::Socket { .. } | PortKind::Dynamic | PortKind::Fixed { .. } => "a TCP port",
            };
            let help = match names(true).next() {
                Some(_) => format!("write {}", one_of(names(true))),
                None => "declare a TCP port: `[ports.http]` with `kind = \"dynamic\"`".to_owned(),
            };
            findings.add(
                &["route.port", &format!("ports.{}", route.port)],
                format!("`route.port` names port `{}`, which is {what}", route.port),
                help,
            );
        }
        None => {
            let help = match (closest(route.port.as_str(), names(false)), names(true).next()) {
                (Some(meant), _) => format!("did you mean `{meant}`?"),
                (None, Some(_)) => {
                    format!("write {}, or declare `[ports.{}]`", one_of(names(true)), route.port)
                }
                (None, None) => format!("declare it: `[ports.{}]` with `kind = \"dynamic\"`", route.port),
            };
            findings.add(
                &["route.port", "ports"],
                format!("`route.port` names port `{}`, which the service does not have", route.port),
                help,
            );
        }
    }
}

fn all_hosts(hosts: &[String], findings: &mut Findings) {
    if hosts.len() > HOSTS_MAX {
        findings.add(
            &["route.hosts"],
            format!("`route.hosts` has {} names", hosts.len()),
            format!("write at most {HOSTS_MAX}, or `*.example.com` for every name below"),
        );
        return;
    }
    let mut seen = BTreeSet::new();
    for (index, host) in hosts.iter().enumerate() {
        let field = format!("route.hosts[{index}]");
        if !is_host(host.strip_prefix("*.").unwrap_or(host)) {
            findings.add(
                &[&field],
                format!("`{field}` is `{}`, which no request can have as its host", shorten(host)),
                host_help(host),
            );
        } else if !seen.insert(host) {
            findings.add(&[&field], format!("`route.hosts` names `{host}` twice"), "keep one of the two");
        }
    }
}

/// The host that was most likely meant: of a URL its host, without a port, in lower case.
fn host_help(written: &str) -> String {
    const FORMS: &str = "write a name, or `*.` and a name for every name below";
    let after_scheme = written.split_once("://").map_or(written, |(_, rest)| rest);
    let host =
        after_scheme.split(['/', ':']).next().unwrap_or_default().trim_end_matches('.').to_ascii_lowercase();
    if host != written && is_host(host.strip_prefix("*.").unwrap_or(&host)) {
        return format!("write \"{host}\"");
    }
    match written {
        "*" => "leave `hosts` out to take every host that no other route names".to_owned(),
        _ => format!("{FORMS}: \"shop.example.com\", \"*.example.com\""),
    }
}

pub(super) fn prefix(field: &str, path: &str, findings: &mut Findings) {
    if !is_path(path) || path.len() > PATH_MAX {
        findings.add(
            &[field],
            format!("`{field}` is `{}`, which cannot be the beginning of a request's path", shorten(path)),
            format!(
                "write at most {PATH_MAX} characters from `/`, without `?`, `#`, `//`, `.` and `..`: \"/api\""
            ),
        );
    }
}

fn tcp(listen: u16, route: &RouteSpec, findings: &mut Findings) {
    if listen == 0 {
        findings.add(
            &["route.listen"],
            "`route.listen` is 0, which is not a TCP port",
            "write a number from 1 to 65535",
        );
    }
    let by_address = match &route.balance {
        Balance::Hash(key) => *key == Key::Address,
        Balance::LeastLoaded | Balance::RoundRobin => true,
    };
    if !by_address {
        findings.add(
            &["route.hash_by", "route.protocol"],
            "`route.hash_by` looks at a request, and `protocol = \"tcp\"` understands none",
            "write `hash_by = \"address\"`",
        );
    }
    // What a file cannot say here, a spec that came by wire can.
    let has_http = route.split_by != Key::Address || route.sticky_cookie.is_some() || route.check.is_some();
    if has_http || route.retries.hedge_after > Millis::ZERO {
        findings.add(
            &["route.protocol"],
            "`[route]` looks at requests, and `protocol = \"tcp\"` understands none",
            "leave out `split_by`, `sticky_cookie`, `check` and `hedge_after`, or write `protocol = \"http\"`",
        );
    }
}

fn cookie(route: &RouteSpec, findings: &mut Findings) {
    let Some(name) = &route.sticky_cookie else { return };
    let valid = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
    if name.is_empty() || name.len() > COOKIE_MAX || !name.bytes().all(valid) {
        findings.add(
            &["route.sticky_cookie"],
            format!("`route.sticky_cookie` is `{}`, which is not the name of a cookie", shorten(name)),
            format!("use 1 to {COOKIE_MAX} letters, digits, `-`, `_` and `.`: \"shop-release\""),
        );
    }
}

fn durations(route: &RouteSpec, findings: &mut Findings) {
    let timeouts = &route.timeouts;
    findings.duration("route.timeouts.connect", timeouts.connect, TIMEOUT_MIN, CONNECT_MAX);
    let in_range = findings.duration("route.timeouts.response", timeouts.response, TIMEOUT_MIN, RESPONSE_MAX);
    findings.duration("route.timeouts.idle", timeouts.idle, Millis::secs(1), RESPONSE_MAX);
    findings.duration("route.limits.queue_timeout", route.limits.queue_timeout, Millis::ZERO, HOUR);
    findings.duration("route.slow_start", route.slow_start, Millis::ZERO, HOUR);
    let hedge = route.retries.hedge_after;
    if hedge == Millis::ZERO {
        return;
    }
    if findings.duration("route.retries.hedge_after", hedge, TIMEOUT_MIN, RESPONSE_MAX)
        && in_range
        && hedge >= timeouts.response
    {
        findings.add(
            &["route.retries.hedge_after", "route.timeouts.response"],
            format!(
                "`route.retries.hedge_after` of {hedge} is never reached: a request has failed after \
                 `route.timeouts.response` of {}",
                timeouts.response
            ),
            "write less than the timeout, or \"0s\" to hedge nothing",
        );
    }
}

fn amounts(route: &RouteSpec, findings: &mut Findings) {
    let retries = &route.retries;
    findings.range("route.retries.attempts", retries.attempts, 0, ATTEMPTS_MAX);
    findings.range("route.retries.budget", retries.budget_percent, 0, 100);
    if retries.budget_percent == 0 && retries.attempts > 0 {
        findings.add(
            &["route.retries.budget", "route.retries.attempts"],
            format!("`route.retries.budget` of 0% allows none of the {} attempts", retries.attempts),
            "write `attempts = 0` to repeat nothing, or a budget such as \"20%\"",
        );
    }
    let body = route.limits.body_bytes_max;
    if !(BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(&body) {
        let side = if body < BODY_BYTES_MIN { "less" } else { "more" };
        findings.add(
            &["route.limits.body"],
            format!("`route.limits.body` is {body} bytes, {side} than it may be"),
            "write a size from \"1KiB\" to \"1024GiB\"",
        );
    }
    findings.range("route.limits.in_flight", route.limits.in_flight_max, 1, IN_FLIGHT_MAX);
    findings.range("route.limits.queue", route.limits.queue_max, 0, QUEUE_MAX);
    findings.range("route.ejection.failures", route.ejection.failures, 0, FAILURES_MAX);
    findings.duration("route.ejection.base", route.ejection.base, Millis(100), HOUR);
    let shares = [
        ("route.ejection.share", route.ejection.share_max),
        ("route.zone_spill_below", route.zone_spill_below),
    ];
    for (field, share) in shares {
        findings.share(field, share);
    }
}

fn gateway_check(check: &TrafficCheck, spec: &ServiceSpec, findings: &mut Findings) {
    let path = &check.path;
    // What the readiness check asks is told there, once.
    let readiness = spec.checks.readiness.as_ref();
    let of_readiness =
        readiness.is_some_and(|it| matches!(&it.probe, Probe::Http { path: asked, .. } if asked == path));
    let valid = |byte: u8| byte.is_ascii_graphic() && byte != b'#';
    let is_path = path.starts_with('/') && path.len() <= PATH_MAX && path.bytes().all(valid);
    if !is_path && !of_readiness {
        findings.add(
            &["route.check.path"],
            format!("`route.check.path` is `{}`, which is not the path of a URL", shorten(path)),
            "start with `/` and leave out host, spaces and `#`: \"/health\"",
        );
    }
    let timely = findings.duration("route.check.interval", check.interval, CHECK_INTERVAL_MIN, HOUR)
        & findings.duration("route.check.timeout", check.timeout, TIMEOUT_MIN, HOUR);
    if timely && check.timeout > check.interval {
        findings.add(
            &["route.check.timeout", "route.check.interval"],
            format!(
                "`route.check.timeout` of {} is longer than its interval of {}",
                check.timeout, check.interval
            ),
            format!("write at most \"{}\", or a longer `interval`", check.interval),
        );
    }
    findings.range("route.check.rise", check.rise, 1, ANSWERS_MAX);
    findings.range("route.check.fall", check.fall, 1, ANSWERS_MAX);
}
