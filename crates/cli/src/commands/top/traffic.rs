//! What gateways counted lately, by service and release.

use crate::live::{Line, Style};
use crate::show;
use crate::table::{Table, plain, styled};
use baton_model::evidence::ReleaseEvidence;
use baton_model::id::{ReleaseNumber, ServiceName};
use baton_model::status::{ServiceTraffic, Traffic};
use baton_model::time::Millis;

/// From this share on, errors stand out.
const ERRORS_STAND_OUT: f64 = 0.01;

/// A row for each release of each service.
pub(super) fn lines(traffic: &Traffic) -> Vec<Line> {
    if traffic.services.is_empty() {
        return vec![Line::of(Style::Dim, "no gateway has counted anything lately")];
    }
    let mut table = Table::new(&[
        "SERVICE",
        "RELEASE",
        "WEIGHT",
        "REQUESTS/S",
        "ERRORS",
        "P50",
        "P90",
        "P99",
        "IN FLIGHT",
        "RETRIES",
    ]);
    for (name, service) in &traffic.services {
        let named = service.counted.releases.keys();
        let mut releases: Vec<ReleaseNumber> = named.chain(service.split.weights.keys()).copied().collect();
        releases.sort_unstable();
        releases.dedup();
        for release in releases {
            table.row(row(name, service, release, traffic.span));
        }
    }
    let mut lines = table.lines();
    let gateways = if traffic.gateways == 1 { "gateway" } else { "gateways" };
    let span = show::length(traffic.span.duration());
    lines.push(Line::of(Style::Dim, format!("the last {span}, {} {gateways} together", traffic.gateways)));
    lines
}

fn row(name: &ServiceName, service: &ServiceTraffic, release: ReleaseNumber, span: Millis) -> Vec<Line> {
    let nothing = ReleaseEvidence::default();
    let counted = service.counted.releases.get(&release).unwrap_or(&nothing);
    let version = service.versions.get(&release);
    let weight = service.split.weights.get(&release);
    let dash = || "-".to_owned();
    vec![
        styled(Style::Bold, name),
        plain(version.map_or_else(|| format!("release {release}"), ToString::to_string)),
        plain(weight.map_or_else(dash, ToString::to_string)),
        plain(rate(counted.ended(), span)),
        errors(counted),
        latency(counted, 0.50),
        latency(counted, 0.90),
        latency(counted, 0.99),
        plain(counted.in_flight),
        plain(counted.retries),
    ]
}

fn errors(counted: &ReleaseEvidence) -> Line {
    match counted.error_share() {
        None => plain("-"),
        Some(share) if share >= ERRORS_STAND_OUT => styled(Style::Bad, format!("{:.2}%", share * 100.0)),
        Some(share) => plain(format!("{:.2}%", share * 100.0)),
    }
}

fn latency(counted: &ReleaseEvidence, quantile: f64) -> Line {
    match counted.latency.total() {
        0 => plain("-"),
        _ => plain(format!("{:.1} ms", counted.latency.quantile_ms(quantile))),
    }
}

#[allow(clippy::cast_precision_loss, reason = "counts stay far below 2^52")]
fn rate(count: u64, span: Millis) -> String {
    if span == Millis::ZERO {
        return "-".to_owned();
    }
    format!("{:.1}", count as f64 * 1000.0 / span.0 as f64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::evidence::{ServiceEvidence, StatusCounts};
    use baton_model::route::{Split, Weight};
    use std::collections::BTreeMap;

    #[test]
    fn releases_stand_side_by_side_with_their_share_rate_errors_and_latency() {
        let mut one = ReleaseEvidence {
            status: StatusCounts { successful: 950, server_error: 50, ..StatusCounts::default() },
            in_flight: 3,
            ..ReleaseEvidence::default()
        };
        for _ in 0..1000 {
            one.latency.record_us(2_000);
        }
        let service = ServiceTraffic {
            counted: ServiceEvidence {
                releases: BTreeMap::from([(ReleaseNumber(1), one)]),
                ..ServiceEvidence::default()
            },
            versions: BTreeMap::from([(ReleaseNumber(1), "1.0".parse().unwrap())]),
            split: Split {
                weights: BTreeMap::from([(ReleaseNumber(1), Weight(9_500)), (ReleaseNumber(2), Weight(500))]),
            },
        };
        let traffic = Traffic {
            gateways: 2,
            span: Millis::secs(10),
            services: BTreeMap::from([("web".parse().unwrap(), service)]),
            ..Traffic::default()
        };
        let text: Vec<String> = lines(&traffic).iter().map(|line| line.render(200, false)).collect();
        let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>().join(" ");
        assert_eq!(words(&text[1]), "web 1.0 95% 100.0 5.00% 2.0 ms 2.0 ms 2.0 ms 3 0");
        assert_eq!(
            words(&text[2]),
            "web release 2 5% 0.0 - - - - 0 0",
            "a release that got nothing is shown too"
        );
        assert_eq!(text[3], "the last 10.0s, 2 gateways together");
    }
}
