//! `baton service preview`: how to reach a release that serves nobody yet.

use crate::exit::Exit;
use crate::global::Global;
use anyhow::Result;
use baton_model::id::{ServiceName, Version};
use baton_model::route::{Condition, Entry, Key, Route, Weight};
use baton_model::status::{GatewayStatus, RouteStatus};
use serde::Serialize;

/// One way to a release that gets no requests but those that ask for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Way {
    /// Its version, where it is kept.
    version: Option<Version>,
    /// Its number.
    release: u64,
    /// The header that a request must have, whatever its value.
    header: Option<String>,
    /// The host that it must be sent to.
    host: Option<String>,
    /// The path that it begins with.
    path: String,
}

/// Shows the ways there are now.
pub(super) async fn run(global: &Global, service: &ServiceName) -> Result<Exit> {
    let mut api = global.api().await?;
    let routes = api.routes(Some(service)).await?;
    let ways: Vec<Way> = routes.iter().flat_map(ways).collect();
    if global.json {
        global.print_json(&ways)?;
        return Ok(Exit::Done);
    }
    if ways.is_empty() {
        eprintln!(
            "no release of `{service}` waits to be previewed now; a blue-green or dark rollout has one until its switch"
        );
    }
    let gateway = address(&api.gateways().await?);
    for way in &ways {
        println!("{}", command(way, &gateway));
    }
    Ok(Exit::Done)
}

/// Where a gateway can be asked, as far as its own address says so.
fn address(gateways: &[GatewayStatus]) -> String {
    let listens = gateways.iter().filter(|status| status.connected).flat_map(|status| &status.facts.http);
    let one = listens.into_iter().find(|address| !address.ip().is_unspecified());
    one.map_or_else(|| "GATEWAY".to_owned(), ToString::to_string)
}

fn ways(status: &RouteStatus) -> Vec<Way> {
    let route = &status.route;
    let Entry::Http { hosts, path, .. } = &route.spec.entry else { return Vec::new() };
    let any_host = hosts.iter().find(|host| !host.starts_with("*.")).cloned();
    let way = |release, header, host| Way {
        version: status.versions.get(&release).cloned(),
        release: release.0,
        header,
        host,
        path: path.clone(),
    };
    let unserved = route.rules.iter().filter(|rule| weight(route, rule.to) == Weight::NONE);
    unserved
        .filter_map(|rule| match &rule.conditions[..] {
            [Condition::Is { key: Key::Header(name), value: None }] => {
                Some(way(rule.to, Some(name.clone()), any_host.clone()))
            }
            [Condition::Host { name }] => Some(way(rule.to, None, Some(name.clone()))),
            _ => None,
        })
        .collect()
}

fn weight(route: &Route, release: baton_model::id::ReleaseNumber) -> Weight {
    route.split.weights.get(&release).copied().unwrap_or(Weight::NONE)
}

/// A command that asks for it.
fn command(way: &Way, gateway: &str) -> String {
    let header = way.header.iter().map(|name| format!(" -H '{name}: 1'")).collect::<String>();
    let host = way.host.iter().map(|name| format!(" -H 'Host: {name}'")).collect::<String>();
    let version =
        way.version.as_ref().map_or_else(|| format!("release {}", way.release), ToString::to_string);
    format!("curl{host}{header} http://{gateway}{}    # {version}", way.path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_way_is_a_command() {
        let way = Way {
            version: Some("2.0".parse().unwrap()),
            release: 2,
            header: Some("baton-preview".to_owned()),
            host: Some("shop.example.com".to_owned()),
            path: "/".to_owned(),
        };
        assert_eq!(
            command(&way, "10.0.0.5:8080"),
            "curl -H 'Host: shop.example.com' -H 'baton-preview: 1' http://10.0.0.5:8080/    # 2.0"
        );
        let way = Way { version: None, header: None, host: None, ..way };
        assert_eq!(command(&way, &address(&[])), "curl http://GATEWAY/    # release 2");
    }
}
