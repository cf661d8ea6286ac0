//! What can be wrong with a strategy and its analysis: no route to act on, steps that do not grow, bounds that cannot
//! be measured.

use super::fleet::WAIT_MAX;
use super::{Findings, cohort, webhook};
use crate::file::value::shorten;
use crate::rollout::{
    AbTest, AnalysisAction, BlueGreen, Canary, CanaryStep, DarkLaunch, Metric, Preview, Strategy, Threshold,
};
use crate::route::{Entry, Key, RouteSpec, Weight, is_host};
use crate::spec::{Amount, Count, PortKind, ServiceSpec};
use crate::time::Millis;

/// Most steps of a canary; each is a bake and a verdict.
const STEPS_MAX: usize = 100;
/// Most thresholds; each is asked every second while a release is watched.
const THRESHOLDS_MAX: usize = 32;
/// Longest name of a threshold.
const NAME_MAX: usize = 63;
const WINDOW_MIN: Millis = Millis::secs(5);
/// The coordinator keeps the evidence of one hour.
const WINDOW_MAX: Millis = Millis::secs(3600);
const LATENCY_MAX: Millis = Millis::secs(3600);
const REQUESTS_MAX: u32 = 10_000_000;
/// As much as 1000 processors give.
const CPU_PERCENT_MAX: u32 = 100_000;
const BODY_BYTES_MIN: u64 = 1024;
/// Bodies that are copied are held in a gateway's memory.
const BODY_BYTES_MAX: u64 = 1 << 20;
const IN_FLIGHT_MAX: u32 = 10_000;

pub(super) fn check(spec: &ServiceSpec, findings: &mut Findings) {
    analysis(spec, findings);
    let strategy = &spec.rollout.strategy;
    if *strategy == Strategy::Rolling {
        return;
    }
    let Some(route) = &spec.route else {
        findings.add(
            &["rollout.strategy"],
            format!(
                "`rollout.strategy` is `{}`, which shares requests out between two releases, and without `[route]` no \
                 gateway carries them",
                strategy.word()
            ),
            "add a `[route]` section, or write `strategy = \"rolling\"`",
        );
        return;
    };
    if spec.rollout.zone_at_a_time {
        findings.add(
            &["rollout.zone_at_a_time", "rollout.strategy"],
            format!("`rollout.zone_at_a_time` contradicts `strategy = \"{}\"`", strategy.word()),
            "take it out, or write `strategy = \"rolling\"`",
        );
    }
    match strategy {
        Strategy::Rolling => {}
        Strategy::Canary(it) => canary(it, spec, route, findings),
        Strategy::BlueGreen(it) => blue_green(it, spec, route, findings),
        Strategy::Ab(it) => ab(it, spec, route, findings),
        Strategy::Dark(it) => dark(it, spec, route, findings),
    }
}

fn is_tcp(route: &RouteSpec) -> bool {
    matches!(route.entry, Entry::Tcp { .. })
}

/// What is changed in place needs an instance of the old release beside one of the new.
fn two_instances(spec: &ServiceSpec, findings: &mut Findings) {
    if spec.placement.count == Count::Replicas(1) {
        findings.add(
            &["placement.replicas", "rollout.strategy"],
            format!(
                "`strategy = \"{}\"` shares requests out between instances of two releases, and there is one instance",
                spec.rollout.strategy.word()
            ),
            "write `replicas = 2` or more, or `strategy = \"blue-green\"`",
        );
    }
}

fn canary(canary: &Canary, spec: &ServiceSpec, route: &RouteSpec, findings: &mut Findings) {
    two_instances(spec, findings);
    growing("rollout.canary.steps", &canary.steps, findings);
    if canary.steps.last().is_none_or(|last| last.weight != Weight::ALL) {
        findings.add(
            &["rollout.canary.steps"],
            "`rollout.canary.steps` does not end with everything, so the rollout would never be done",
            "end it with \"100%\": [\"1%\", \"5%\", \"25%\", \"100%\"]",
        );
    }
    growing("rollout.canary.cohort_steps", &canary.cohort_steps, findings);
    cohort::check(&canary.cohort, route, findings);
    if canary.cohort.is_empty() && !canary.cohort_steps.is_empty() {
        findings.add(
            &["rollout.canary.cohort_steps", "rollout.canary.cohort"],
            "`rollout.canary.cohort_steps` are steps within a cohort, and there is no `cohort`",
            "write `cohort = [\"header:x-beta\"]` with what its requests have, or take the steps out",
        );
    }
    if !canary.cohort.is_empty() && canary.cohort_steps.is_empty() {
        findings.add(
            &["rollout.canary.cohort_steps", "rollout.canary.cohort"],
            "`rollout.canary.cohort` has no step of its own",
            "write `cohort_steps = [\"100%\"]`, or take the cohort out",
        );
    }
}

fn growing(field: &str, steps: &[CanaryStep], findings: &mut Findings) {
    if steps.len() > STEPS_MAX {
        findings.add(
            &[field],
            format!("`{field}` has {} steps", steps.len()),
            format!("write at most {STEPS_MAX}"),
        );
        return;
    }
    let mut before = Weight::NONE;
    for (index, step) in steps.iter().enumerate() {
        let at = format!("{field}[{index}]");
        if !findings.share(&at, step.weight) {
            return;
        }
        if step.weight <= before {
            findings.add(
                &[&at, field],
                format!("`{at}` is {}, no more than the {before} before it", step.weight),
                "write shares above \"0%\" that grow: [\"1%\", \"5%\", \"25%\", \"100%\"]",
            );
            return;
        }
        findings.duration(&at, step.bake, Millis::ZERO, WAIT_MAX);
        match step.instances {
            None | Some(Amount::Number(1..)) | Some(Amount::Percent(1..=100)) => {}
            Some(wanted @ (Amount::Number(0) | Amount::Percent(_))) => findings.add(
                &[&at, field],
                format!("`{at}` asks for {wanted} instances"),
                "write 1 or more, or a share from \"1%\" to \"100%\"",
            ),
        }
        before = step.weight;
    }
}

/// A second set runs on the same nodes as the first, so it cannot want the same port.
fn second_set(spec: &ServiceSpec, findings: &mut Findings) {
    let claimed = spec.ports.iter().find(|(_, port)| port.kind.claim().is_some());
    let Some((name, port)) = claimed else { return };
    let kind = match port.kind {
        PortKind::Socket { .. } | PortKind::Udp { .. } | PortKind::Unix { .. } => "socket",
        PortKind::Fixed { .. } => "fixed",
        PortKind::Dynamic => "dynamic",
    };
    findings.add(
        &["rollout.strategy", &format!("ports.{name}.kind")],
        format!(
            "`strategy = \"{}\"` runs a second set beside the first, and port `{name}` is {kind}: only one instance on a \
             node can have it",
            spec.rollout.strategy.word()
        ),
        format!("write `[ports.{name}]` `kind = \"dynamic\"`, or `strategy = \"canary\"`, which swaps in place"),
    );
}

fn preview(section: &str, preview: &Preview, route: &RouteSpec, findings: &mut Findings) {
    let (header_field, host_field) = (format!("{section}.preview_header"), format!("{section}.preview_host"));
    let Entry::Http { hosts, .. } = &route.entry else { return };
    if let Some(name) = &preview.header
        && format!("header:{name}").parse::<Key>().is_err()
    {
        findings.add(
            &[&header_field],
            format!("`{header_field}` is `{}`, which is not the name of a header", shorten(name)),
            "write letters, digits and `-`: \"baton-preview\"",
        );
    }
    let Some(host) = &preview.host else { return };
    if !is_host(host) {
        findings.add(
            &[&host_field],
            format!("`{host_field}` is `{}`, which no request can have as its host", shorten(host)),
            "write the name of a host: \"preview.shop.example.com\"",
        );
    } else if !cohort::is_taken(hosts, host) {
        findings.add(
            &[&host_field, "route.hosts"],
            format!(
                "`{host_field}` is `{host}`, which is none of `route.hosts`, so no gateway sends it here"
            ),
            format!("add \"{host}\" to `hosts` in `[route]`"),
        );
    } else if hosts.iter().all(|it| it == host) && !hosts.is_empty() {
        findings.add(
            &[&host_field, "route.hosts"],
            format!("`{host_field}` is the only one of `route.hosts`, so every request would be a preview"),
            "give the preview a host of its own",
        );
    }
}

fn blue_green(it: &BlueGreen, spec: &ServiceSpec, route: &RouteSpec, findings: &mut Findings) {
    second_set(spec, findings);
    preview("rollout.blue_green", &it.preview, route, findings);
    findings.duration("rollout.blue_green.bake", it.bake, Millis::ZERO, WAIT_MAX);
    findings.duration("rollout.blue_green.keep_warm", it.keep_warm, Millis::ZERO, WAIT_MAX);
}

fn ab(it: &AbTest, spec: &ServiceSpec, route: &RouteSpec, findings: &mut Findings) {
    two_instances(spec, findings);
    findings.duration("rollout.ab.duration", it.duration, Millis::secs(1), Millis(WAIT_MAX.0 * 12));
    if findings.share("rollout.ab.share", it.share) && (it.share == Weight::NONE || it.share == Weight::ALL) {
        findings.add(
            &["rollout.ab.share"],
            format!("`rollout.ab.share` is {}, so there is nothing to compare with", it.share),
            "write a share between, such as \"50%\"",
        );
    }
    if is_tcp(route) && it.key != Key::Address {
        findings.add(
            &["rollout.ab.key", "route.protocol"],
            "`rollout.ab.key` looks at requests, and `protocol = \"tcp\"` understands none",
            "write `key = \"address\"`",
        );
    }
    if let (Key::Cookie(name), Some(sticky)) = (&it.key, &route.sticky_cookie)
        && name == sticky
    {
        findings.add(
            &["rollout.ab.key", "route.sticky_cookie"],
            format!(
                "`rollout.ab.key` is the cookie `{}`, which gateways set themselves (`route.sticky_cookie`) to hold what they \
                 decided: nobody has it with the first request, and many clients have the same value, so it tells no two \
                 clients apart",
                shorten(name)
            ),
            "write what the service itself knows its users by: `key = \"cookie:user\"` or `\"header:x-user\"`",
        );
    }
}

fn dark(it: &DarkLaunch, spec: &ServiceSpec, route: &RouteSpec, findings: &mut Findings) {
    second_set(spec, findings);
    preview("rollout.dark", &it.preview, route, findings);
    if is_tcp(route) {
        findings.add(
            &["rollout.strategy", "route.protocol"],
            "`strategy = \"dark\"` copies requests, and `protocol = \"tcp\"` understands none",
            "write `strategy = \"blue-green\"` or `\"rolling\"`",
        );
    }
    if findings.share("rollout.dark.share", it.share) && it.share == Weight::NONE {
        findings.add(
            &["rollout.dark.share"],
            "`rollout.dark.share` is 0%, so nothing would be copied",
            "write a share such as \"10%\"",
        );
    }
    findings.duration("rollout.dark.duration", it.duration, Millis::secs(1), WAIT_MAX);
    findings.duration("rollout.dark.keep_warm", it.keep_warm, Millis::ZERO, WAIT_MAX);
    findings.range("rollout.dark.in_flight", it.in_flight_max, 1, IN_FLIGHT_MAX);
    if !(BODY_BYTES_MIN..=BODY_BYTES_MAX).contains(&it.body_bytes_max) {
        let side = if it.body_bytes_max < BODY_BYTES_MIN { "less" } else { "more" };
        findings.add(
            &["rollout.dark.body"],
            format!("`rollout.dark.body` is {} bytes, {side} than it may be", it.body_bytes_max),
            "write a size from \"1KiB\" to \"1MiB\"",
        );
    }
}

fn analysis(spec: &ServiceSpec, findings: &mut Findings) {
    let thresholds = &spec.rollout.analysis;
    if thresholds.len() > THRESHOLDS_MAX {
        let message = format!("`[rollout.analysis]` has {} thresholds", thresholds.len());
        findings.add(&["rollout.analysis"], message, format!("write at most {THRESHOLDS_MAX}"));
        return;
    }
    for threshold in thresholds {
        one_threshold(threshold, spec, findings);
    }
}

fn one_threshold(threshold: &Threshold, spec: &ServiceSpec, findings: &mut Findings) {
    let section = format!("rollout.analysis.{}", threshold.name);
    let field = |name: &str| format!("{section}.{name}");
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    if threshold.name.is_empty() || threshold.name.len() > NAME_MAX || !threshold.name.chars().all(valid) {
        findings.add(
            &[&section],
            format!("`{}` is not a name that a threshold can have", shorten(&threshold.name)),
            format!("use 1 to {NAME_MAX} letters, digits, `-` and `_`: `[rollout.analysis.errors]`"),
        );
    }
    findings.duration(&field("window"), threshold.window, WINDOW_MIN, WINDOW_MAX);
    findings.range(&field("min_requests"), threshold.requests_min, 0, REQUESTS_MAX);
    match threshold.metric {
        Metric::ErrorShare { at_most } => {
            findings.share(&field("max"), at_most);
        }
        Metric::Differing { at_most } => {
            findings.share(&field("max"), at_most);
            if !matches!(spec.rollout.strategy, Strategy::Dark(_)) {
                findings.add(
                    &[&field("metric"), "rollout.strategy"],
                    format!("`{}` is `differing`, and only a dark launch compares answers", field("metric")),
                    "write `strategy = \"dark\"`, or ask for another metric",
                );
            }
        }
        Metric::Latency { quantile, at_most } => {
            findings.duration(&field("max"), at_most, Millis(1), LATENCY_MAX);
            findings.range(&field("quantile"), quantile, Weight(1), Weight::ALL);
        }
        Metric::RequestRate { at_least } => {
            findings.range(&field("min"), at_least, 1, REQUESTS_MAX);
        }
        Metric::Restarts { .. } => {}
        Metric::Cpu { at_most_percent } => {
            findings.range(&field("max"), at_most_percent, 1, CPU_PERCENT_MAX);
        }
        Metric::Memory { at_most } => {
            findings.range(&field("max"), at_most, 1, u64::MAX);
        }
    }
    if threshold.metric.is_from_gateways() && spec.route.is_none() {
        findings.add(
            &[&field("metric"), "route"],
            format!(
                "`{}` is counted by gateways, and without `[route]` no gateway carries requests",
                field("metric")
            ),
            "add a `[route]` section, or ask for `metric = \"restarts\"`, `\"cpu\"` or `\"memory\"`",
        );
    }
    if let AnalysisAction::Webhook { url } = &threshold.action
        && let Err((what, help)) = webhook::check(url)
    {
        findings.add(&[&field("webhook")], format!("`{}` {what}", field("webhook")), help);
    }
}
