//! What the releases of a service get of its requests, and what became of them lately.

use crate::state::Coordinator;
use baton_model::desired::Service;
use baton_model::evidence::ReleaseEvidence;
use baton_model::id::ReleaseNumber;
use baton_model::route::Weight;
use baton_model::status::ReleaseTraffic;
use baton_model::time::Millis;
use std::collections::{BTreeMap, BTreeSet};

/// Rates are told over this long: short enough to follow a step, long enough to be read.
const SPAN: Millis = Millis::secs(10);

/// By release: all that the route names, in its split, its rules, its mirror or its instances.
pub(super) fn of(coordinator: &Coordinator, service: &Service) -> Vec<ReleaseTraffic> {
    let table = coordinator.gateways.table();
    let Some(route) = table.routes.get(&service.name) else { return Vec::new() };
    let (span, evidence) = coordinator.evidence.of(&service.name, SPAN);
    let mut instances: BTreeMap<ReleaseNumber, u32> = BTreeMap::new();
    for upstream in route.upstreams.values() {
        *instances.entry(upstream.release).or_default() += 1;
    }
    let mut releases: BTreeSet<ReleaseNumber> = route.split.weights.keys().copied().collect();
    releases.extend(instances.keys());
    let rules = |release| {
        let named = route.rules.iter().filter(move |rule| rule.to == release && rule.plain_share().is_none());
        named.map(|rule| {
            let conditions: Vec<String> = rule.conditions.iter().map(ToString::to_string).collect();
            conditions.join(" and ")
        })
    };
    let (nothing, shares) = (ReleaseEvidence::default(), route.shares());
    let of_release = |release| {
        let counted = evidence.get(&release).unwrap_or(&nothing);
        ReleaseTraffic {
            release,
            version: service.releases.get(&release).map(|release| release.version.clone()),
            weight: shares.get(&release).copied().unwrap_or(Weight::NONE),
            rules: rules(release).collect(),
            instances: instances.get(&release).copied().unwrap_or_default(),
            span,
            requests: counted.asked(),
            errors: counted.failed(),
            diverted: counted.diverted,
            left_out: counted.left_out,
            in_flight: counted.in_flight,
            p50_ms: counted.latency.quantile_ms(0.50),
            p99_ms: counted.latency.quantile_ms(0.99),
            mirrored: counted.mirrored,
            unmirrored: counted.unmirrored,
            differing: counted.differing,
        }
    };
    releases.into_iter().map(of_release).collect()
}
