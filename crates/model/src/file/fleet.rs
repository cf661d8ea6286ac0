//! Reads where instances go, how many there are, and how a release replaces another.

use super::problem::{Fault, type_name};
use super::reader::{Fields, Reader, Section};
use super::{analysis, defaults, strategy, value};
use crate::rollout::{OnFailure, RolloutPolicy};
use crate::route::Key;
use crate::spec::{Amount, Count, Placement};
use toml::de::DeValue;

pub(super) const PLACEMENT: &[&str] =
    &["replicas", "per_node", "require", "spread", "lost_after", "min_available"];
pub(super) const ROLLOUT: &[&str] = &[
    "strategy",
    "batch",
    "max_unavailable",
    "zone_at_a_time",
    "first_zone_bake",
    "min_healthy",
    "healthy_deadline",
    "progress_deadline",
    "failure_tolerance",
    "on_failure",
    "approve_before",
    "canary",
    "blue_green",
    "ab",
    "dark",
    "analysis",
];

/// The placement, and the minimum available where the person gave one.
pub(super) fn placement(reader: &mut Reader, top: &Section<'_, '_>) -> (Placement, Option<Amount>) {
    let section = reader.section(top, "placement", Fields::Only(PLACEMENT));
    let count = count(reader, &section);
    let labels = reader.section(&section, "require", Fields::Any);
    let placement = Placement {
        count,
        require: reader.map(&labels, value::text),
        spread: reader.field(&section, "spread", value::text),
        lost_after: reader.field(&section, "lost_after", value::duration).unwrap_or(defaults::LOST_AFTER),
    };
    let min_available = reader.field(&section, "min_available", value::amount);
    (placement, min_available)
}

fn count(reader: &mut Reader, section: &Section<'_, '_>) -> Count {
    let replicas = reader.field(section, "replicas", value::number);
    let per_node = reader.field(section, "per_node", value::flag);
    match (replicas, per_node) {
        (None, None | Some(false)) => defaults::COUNT,
        (None, Some(true)) => Count::PerNode,
        (Some(replicas), None | Some(false)) => Count::Replicas(replicas),
        (Some(replicas), Some(true)) => {
            let span = reader.span_of("placement.per_node");
            let fault = Fault::new(
                format!(
                    "and `placement.replicas` contradict each other: one instance on every node, or {replicas} in all"
                ),
                "keep one of the two",
            );
            reader.fault("placement.per_node", span, &fault);
            reader.mark_broken("placement.replicas");
            Count::Replicas(replicas)
        }
    }
}

/// The policy. `split_by`: the key of the route, where there is one.
pub(super) fn rollout(
    reader: &mut Reader,
    top: &Section<'_, '_>,
    count: Count,
    split_by: Option<&Key>,
) -> RolloutPolicy {
    const ON_FAILURE: &[(&str, OnFailure)] =
        &[("roll-back", OnFailure::RollBack), ("pause", OnFailure::Pause)];
    let section = reader.section(top, "rollout", Fields::Only(ROLLOUT));
    let s = &section;
    let batch = reader.field(s, "batch", value::amount).unwrap_or(defaults::BATCH);
    let default_unavailable = defaults::max_unavailable(count, batch);
    let mut approve_before = reader.list(s, "approve_before", stages_fault, stage).unwrap_or_default();
    approve_before.sort_unstable();
    RolloutPolicy {
        strategy: strategy::strategy(reader, s, split_by),
        batch,
        max_unavailable: reader.field(s, "max_unavailable", value::amount).unwrap_or(default_unavailable),
        zone_at_a_time: reader.field(s, "zone_at_a_time", value::flag).unwrap_or(false),
        first_zone_bake: reader
            .field(s, "first_zone_bake", value::duration)
            .unwrap_or(defaults::FIRST_ZONE_BAKE),
        min_healthy: reader.field(s, "min_healthy", value::duration).unwrap_or(defaults::MIN_HEALTHY),
        healthy_deadline: reader
            .field(s, "healthy_deadline", value::duration)
            .unwrap_or(defaults::HEALTHY_DEADLINE),
        progress_deadline: reader
            .field(s, "progress_deadline", value::duration)
            .unwrap_or(defaults::PROGRESS_DEADLINE),
        failure_tolerance: reader
            .field(s, "failure_tolerance", value::amount)
            .unwrap_or(defaults::FAILURE_TOLERANCE),
        on_failure: reader
            .field(s, "on_failure", |v| value::word(v, ON_FAILURE))
            .unwrap_or(defaults::ON_FAILURE),
        approve_before,
        analysis: analysis::analysis(reader, s),
    }
}

fn stages_fault(written: &DeValue<'_>) -> Fault {
    let example = written.as_integer().map_or_else(|| "2".to_owned(), ToString::to_string);
    Fault::new(
        format!("must be a list of stages, not {}", type_name(written)),
        format!(
            "write `approve_before = [{example}]`: the stages, counted from 1, that wait for `baton rollout promote`"
        ),
    )
}

fn stage(written: &DeValue<'_>) -> Result<u32, Fault> {
    value::number(written)
}
