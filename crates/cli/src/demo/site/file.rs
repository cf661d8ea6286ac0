//! The service file of each version. Deadlines, bakes and evidence are short, so that the demo is; the defaults are for
//! real services. Nothing is hedged: whoever is asked answers, so that a slow version is as slow to clients as it is, and is
//! seen to be.

use super::{Fault, SLOW_BY, Site, Strategy, Version};

/// How long a release is given: fetching and unpacking it included, and an unoptimized build is large and slow.
const HEALTHY_DEADLINE: &str = if cfg!(debug_assertions) { "45s" } else { "15s" };
/// What will not be healthy need not be waited for as long: its artifact is there already.
const UNHEALTHY_DEADLINE: &str = "4s";
/// The port of `web` on each node's address.
const WEB_PORT: u16 = 8080;

/// The whole file.
pub(super) fn text(version: Version, replicas: u8) -> String {
    let Version { site, name, artifact, fault, strategy } = version;
    let service = site.name();
    let host = site.asked().host;
    let healthy_deadline = if fault == Fault::Unhealthy { UNHEALTHY_DEADLINE } else { HEALTHY_DEADLINE };
    format!(
        r#"# {service} {name}, as `baton demo` deploys it
name = "{service}"
artifact = "{artifact}"
exec = [{exec}]

{port}
[checks.readiness]
kind = "http"
port = "http"
path = "/healthz"
interval = "200ms"
timeout = "200ms"

[stop]
timeout = "5s"
drain = "10s"

[placement]
replicas = {replicas}

[route]
hosts = ["{host}"]
split_by = "cookie:user"
slow_start = "1s"

[route.retries]
hedge_after = "0s"

[rollout]
min_healthy = "500ms"
healthy_deadline = "{healthy_deadline}"
progress_deadline = "60s"
{rollout}"#,
        exec = exec(site, fault),
        port = port(site),
        rollout = rollout(strategy),
    )
}

fn exec(site: Site, fault: Fault) -> String {
    let mut words = vec!["baton", "sample-web", "--release", "${VERSION}", "--instance", "${INSTANCE}"];
    words.extend(match site {
        Site::Web => &[][..],
        Site::Shop => &["--listen", "${NODE_ADDRESS}:${PORT_HTTP}"],
    });
    let slow_by = format!("{}ms", SLOW_BY.as_millis());
    words.extend(match fault {
        Fault::None => vec![],
        Fault::Unhealthy => vec!["--unhealthy"],
        Fault::Errors => vec!["--fail-one-in", "3"],
        Fault::Slow => vec!["--slow-by", &slow_by],
        Fault::Miscounts => vec!["--miscount-one-in", "10"],
    });
    words.iter().map(|word| format!("{word:?}")).collect::<Vec<_>>().join(", ")
}

fn port(site: Site) -> String {
    match site {
        Site::Web => format!("[ports.http]\nkind = \"socket\"\nport = {WEB_PORT}\n"),
        Site::Shop => "[ports.http]\nkind = \"dynamic\"\n".to_owned(),
    }
}

fn rollout(strategy: Strategy) -> String {
    match strategy {
        Strategy::Rolling => "batch = 1\nmax_unavailable = 1\nfirst_zone_bake = \"0s\"\n".to_owned(),
        Strategy::Canary => format!(
            r#"strategy = "canary"
batch = 2

[rollout.canary]
steps = ["10%", "50%", "100%"]
bake = "2s"

[rollout.analysis.errors]
metric = "error-share"
max = "5%"
min_requests = 30

[rollout.analysis.slowness]
metric = "latency"
quantile = "50%"
max = "{}ms"
min_requests = 30
"#,
            SLOW_BY.as_millis() / 2
        ),
        Strategy::BlueGreen => {
            let text = r#"strategy = "blue-green"
approve_before = [2]

[rollout.blue_green]
bake = "2s"
keep_warm = "5m"
"#;
            text.to_owned()
        }
        Strategy::Dark => {
            let text = r#"strategy = "dark"

[rollout.dark]
share = "50%"
duration = "5s"
compare_bodies = true

[rollout.analysis.same]
metric = "differing"
max = "1%"
"#;
            text.to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{SHOP_1, SHOP_2, SHOP_3, SHOP_4, SHOP_5, SHOP_6, WEB_1, WEB_2, WEB_3};
    use super::*;
    use baton_model::file;

    #[test]
    fn every_version_is_a_right_service_file() {
        for version in [WEB_1, WEB_2, WEB_3, SHOP_1, SHOP_2, SHOP_3, SHOP_4, SHOP_5, SHOP_6] {
            let text = text(version, 3);
            let parsed = file::parse(&text).unwrap_or_else(|problems| panic!("{problems:#?}\n{text}"));
            let word = match version.strategy {
                Strategy::Rolling => "rolling",
                Strategy::Canary => "canary",
                Strategy::BlueGreen => "blue-green",
                Strategy::Dark => "dark",
            };
            assert_eq!(parsed.spec.rollout.strategy.word(), word);
            assert_eq!(
                parsed.spec.exec.last().is_some_and(|word| word.contains("${")),
                version.fault == Fault::None
            );
        }
    }
}
