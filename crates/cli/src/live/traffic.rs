//! What the releases of a service get of its requests, side by side.

use super::line::{Line, Style};
use baton_model::status::ReleaseTraffic;

/// One line for each release, below the titles; nothing where nothing is routed.
pub(crate) fn lines(traffic: &[ReleaseTraffic]) -> Vec<Line> {
    if traffic.is_empty() {
        return Vec::new();
    }
    let title = format!(
        "  {:<14} {:>7} {:>9} {:>10} {:>8} {:>9} {:>9}",
        "RELEASE", "WEIGHT", "INSTANCES", "REQUESTS", "ERRORS", "P50", "P99"
    );
    let mut lines = vec![Line::of(Style::Dim, title)];
    for release in traffic {
        let text = format!(
            "  {:<14} {:>7} {:>9} {:>10}",
            version(release),
            release.weight,
            release.instances,
            rate(release).map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}/s")),
        );
        let style = if release.errors > 0 { Style::Bad } else { Style::Plain };
        let errors = error_percent(release).map_or_else(|| "-".to_owned(), |share| format!("{share:.2}%"));
        let time = |ms: f64| if release.requests > 0 { format!("{ms:.1} ms") } else { "-".to_owned() };
        lines.push(
            Line::of(Style::Plain, text)
                .then(style, format!(" {errors:>8}"))
                .then(Style::Plain, format!(" {:>9} {:>9}", time(release.p50_ms), time(release.p99_ms)))
                .then(Style::Warn, left_out(release))
                .then(Style::Dim, copies(release))
                .then(Style::Dim, rules(release)),
        );
    }
    lines
}

/// Its version, or its number where it is no longer kept.
pub(crate) fn version(release: &ReleaseTraffic) -> String {
    release.version.as_ref().map_or_else(|| format!("release {}", release.release), ToString::to_string)
}

/// Requests a second; `None` while nothing is measured.
#[allow(clippy::cast_precision_loss, reason = "counts of ten seconds")]
fn rate(release: &ReleaseTraffic) -> Option<f64> {
    (release.span.0 > 0).then(|| release.requests as f64 * 1000.0 / release.span.0 as f64)
}

#[allow(clippy::cast_precision_loss, reason = "counts of ten seconds")]
fn error_percent(release: &ReleaseTraffic) -> Option<f64> {
    (release.requests > 0).then(|| release.errors as f64 * 100.0 / release.requests as f64)
}

/// That gateways leave instances out, and what became of the requests.
fn left_out(release: &ReleaseTraffic) -> String {
    match (release.left_out, release.diverted) {
        (0, 0) => String::new(),
        (_, 0) => "  left out by gateways: it fails".to_owned(),
        (_, diverted) => format!("  left out by gateways: it fails, {diverted} requests went to others"),
    }
}

/// What a mirror does, where there is one.
fn copies(release: &ReleaseTraffic) -> String {
    if release.mirrored + release.unmirrored == 0 {
        return String::new();
    }
    format!("  {} copies, {} differ, {} not made", release.mirrored, release.differing, release.unmirrored)
}

/// Who gets it beside its weight.
fn rules(release: &ReleaseTraffic) -> String {
    if release.rules.is_empty() { String::new() } else { format!("  and {}", release.rules.join(", ")) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::id::ReleaseNumber;
    use baton_model::route::Weight;
    use baton_model::time::Millis;

    #[test]
    fn releases_stand_side_by_side() {
        let old = ReleaseTraffic {
            release: ReleaseNumber(1),
            version: Some("1.0".parse().unwrap()),
            weight: Weight(9_500),
            rules: Vec::new(),
            instances: 3,
            span: Millis::secs(10),
            requests: 1900,
            errors: 0,
            in_flight: 4,
            p50_ms: 1.2,
            p99_ms: 8.0,
            mirrored: 0,
            unmirrored: 0,
            differing: 0,
            diverted: 0,
            left_out: 0,
        };
        let new = ReleaseTraffic {
            release: ReleaseNumber(2),
            version: None,
            weight: Weight(500),
            instances: 1,
            requests: 100,
            errors: 1,
            mirrored: 10,
            differing: 2,
            ..old.clone()
        };
        let staff = vec!["header:x-staff".to_owned()];
        let idle = ReleaseTraffic { span: Millis::ZERO, requests: 0, rules: staff, ..old.clone() };
        let out = ReleaseTraffic { left_out: 2, diverted: 90, requests: 100, errors: 100, ..old.clone() };
        assert!(lines(&[]).is_empty());
        let text: Vec<String> =
            lines(&[old, new, idle, out]).iter().map(|line| line.render(140, false)).collect();
        let expect = [
            "  RELEASE         WEIGHT INSTANCES   REQUESTS   ERRORS       P50       P99",
            "  1.0                95%         3    190.0/s    0.00%    1.2 ms    8.0 ms",
            "  release 2           5%         1     10.0/s    1.00%    1.2 ms    8.0 ms  10 copies, 2 differ, 0 not made",
            "  1.0                95%         3          -        -         -         -  and header:x-staff",
            "  1.0                95%         3     10.0/s  100.00%    1.2 ms    8.0 ms  left out by gateways: it fails, 90 requests went to others",
        ];
        assert_eq!(text, expect);
    }
}
