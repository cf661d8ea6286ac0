//! What a deploy would do: the very decision, made on a copy, and not kept.

use super::configuration;
use super::deploy::{Asked, Step, deployed, wanted};
use super::releases::Wanted;
use super::status::Refusal;
use crate::records;
use crate::state::Coordinator;
use baton_engine::cycle;
use baton_engine::input::Input;
use baton_engine::outcome::Outcome;
use baton_engine::progress::Progress;
use baton_model::configuration::Configuration;
use baton_model::desired::{Release, Service};
use baton_model::id::{InstanceId, ServiceName};
use baton_model::report::{ServiceReport, Waiting};
use baton_model::spec::ServiceSpec;
use baton_model::status::{DeployPlan, PlannedInstance};
use baton_proto::v1;
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Differences shown; a plan is read by a person.
const CHANGES_MAX: usize = 200;

pub(super) async fn plan(
    coordinator: &Arc<Coordinator>,
    by: &str,
    request: v1::DeployRequest,
) -> Result<v1::DeployPlan, Refusal> {
    let mut wanted = wanted(request)?;
    coordinator.secrets.pin(&mut wanted.spec).await?;
    super::order::check(coordinator, &wanted.spec).await?;
    super::overlap::check(coordinator, &wanted.spec).await?;
    let name = wanted.spec.name.clone();
    let present = coordinator.records.get::<Service>(&records::service(&name)).await?.map(|read| read.value);
    let first = present.as_ref().is_none_or(|service| service.removed);
    let asked = Asked { by, at: coordinator.clock.now() };
    let snapshot = Arc::clone(&coordinator.view.borrow().snapshot);
    let changes = changes(present.as_ref(), &wanted);
    let before = present.as_ref().filter(|service| !service.removed).and_then(wanted_now);
    let change =
        before.map(|old| configuration::planned(&old.spec, &wanted.spec, old.artifact == wanted.artifact));
    let nothing = Configuration::default();
    let old = before.map_or(&nothing, |old| &old.spec.configuration);
    let configuration = configuration::changes(old, &wanted.spec.configuration);
    let service = match deployed(present, &wanted, asked, &snapshot)? {
        Step::Unchanged(_) => return Ok(DeployPlan { unchanged: true, ..DeployPlan::default() }.into()),
        Step::Write(service) => service,
    };
    let observed = coordinator.observed();
    let decided = super::artifacts::blocking(move || {
        let mut desired = snapshot.desired.clone();
        let name = service.name.clone();
        desired.services.insert(name.clone(), service);
        let progress: Progress =
            snapshot.progress.iter().map(|(name, read)| (name.clone(), read.value.clone())).collect();
        // As the coordinator itself would: what nodes have not confirmed does not count, and what the audit would
        // refuse is shown as refused.
        let unconfirmed = cycle::unconfirmed(&snapshot.plans, &observed);
        let input = Input {
            desired: &desired,
            observed: &observed,
            progress: &progress,
            unconfirmed: &unconfirmed,
            now: asked.at,
        };
        let (outcome, _) = cycle::decide_audited(&input);
        let new_instances = new_instances(&name, &progress, &outcome);
        (outcome, new_instances)
    });
    let (mut outcome, new_instances) = decided.await?;
    let report = outcome.report.services.remove(&name).unwrap_or_default();
    let before = coordinator.view.borrow().report.services.get(&name).cloned().unwrap_or_default();
    let waiting = telling(&report, &before, begins(&name, &report, &outcome));
    let stages = report.rollout.map(|rollout| rollout.stages).unwrap_or_default();
    Ok(DeployPlan { first, unchanged: false, changes, stages, new_instances, waiting, configuration, change }
        .into())
}

/// What every deploy waits for in passing: an instance that begins, its turn in the batch, gateways that learn of it. The
/// decision is of the very moment in which the deploy is asked for, so it names them all.
const IN_PASSING: [&str; 8] = ["health", "budget", "zone", "route", "drain", "stop", "move", "warm"];
/// Those of them by which a rollout that changes no instance at all is held.
const HOLDING: [&str; 2] = ["budget", "zone"];

/// What an operator is to know before a deploy: what does not pass by itself as the deploy goes on. That is also what the
/// service waits for already while nothing is under way: a gateway that cannot serve its route, say.
fn telling(planned: &ServiceReport, before: &ServiceReport, begins: bool) -> Vec<Waiting> {
    let idle = before.rollout.as_ref().is_none_or(|rollout| rollout.outcome.is_final());
    let stands = |gate: &str| idle && gate != "warm" && before.waiting.iter().any(|wait| wait.gate == gate);
    let telling = |wait: &&Waiting| {
        let gate = wait.gate.as_str();
        !IN_PASSING.contains(&gate) || stands(gate) || (!begins && HOLDING.contains(&gate))
    };
    planned.waiting.iter().filter(telling).cloned().collect()
}

/// Whether the decision gives some instance the release.
fn begins(name: &ServiceName, planned: &ServiceReport, outcome: &Outcome) -> bool {
    let Some(Some(after)) = outcome.progress.get(name) else { return false };
    let to = planned.rollout.as_ref().map(|rollout| rollout.to);
    after.slots.values().any(|slot| Some(slot.release) == to)
}

/// The slots that are in the decision and were not remembered before it.
fn new_instances(name: &ServiceName, before: &Progress, outcome: &Outcome) -> Vec<PlannedInstance> {
    let Some(Some(after)) = outcome.progress.get(name) else { return Vec::new() };
    let old = before.get(name).map(|progress| &progress.slots);
    let is_new = |slot: &u64| old.is_none_or(|old| !old.contains_key(slot));
    let planned = |(slot, at): (&u64, &baton_engine::progress::Slot)| PlannedInstance {
        instance: InstanceId { service: name.clone(), slot: *slot },
        node: at.node.clone(),
    };
    after.slots.iter().filter(|(slot, _)| is_new(slot)).map(planned).collect()
}

/// What differs from the release that is wanted now, field by field.
fn changes(present: Option<&Service>, wanted: &Wanted) -> Vec<String> {
    let Some(old) = present.and_then(wanted_now) else { return Vec::new() };
    let mut changes = Vec::new();
    if old.version != wanted.version {
        changes.push(format!("version: {} -> {}", old.version, wanted.version));
    }
    if old.artifact != wanted.artifact {
        let (was, is) = (&old.artifact, &wanted.artifact);
        changes.push(format!(
            "artifact: {} ({} bytes) -> {} ({} bytes)",
            was.digest.short(),
            was.size_bytes,
            is.digest.short(),
            is.size_bytes
        ));
    }
    let (old, new) = (fields_of(&old.spec), fields_of(&wanted.spec));
    for (path, value) in &old {
        match new.get(path) {
            Some(other) if other == value => {}
            Some(other) => changes.push(format!("{path}: {value} -> {other}")),
            None => changes.push(format!("{path}: {value} -> (gone)")),
        }
    }
    let added = new.iter().filter(|(path, _)| !old.contains_key(*path));
    changes.extend(added.map(|(path, value)| format!("{path}: (new) {value}")));
    if changes.len() > CHANGES_MAX {
        let more = changes.len() - CHANGES_MAX;
        changes.truncate(CHANGES_MAX);
        changes.push(format!("and {more} more"));
    }
    changes
}

fn wanted_now(service: &Service) -> Option<&Release> {
    service.request.as_ref().and_then(|request| service.releases.get(&request.to))
}

/// The fields of a spec by their path, as `rollout.batch` or `checks.readiness.interval`.
fn fields_of(spec: &ServiceSpec) -> BTreeMap<String, String> {
    let mut fields = BTreeMap::new();
    // A spec always has a JSON form: it is how it is stored.
    // Files and secrets are told apart from the rest.
    let spec = ServiceSpec { configuration: Configuration::default(), ..spec.clone() };
    if let Ok(value) = serde_json::to_value(spec) {
        flatten(String::new(), &value, &mut fields);
    }
    fields
}

fn flatten(path: String, value: &Value, fields: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let inner = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                flatten(inner, member, fields);
            }
        }
        Value::Null => {}
        Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            fields.insert(path, value.to_string());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::report::Subject;

    fn report(gates: &[&str]) -> ServiceReport {
        let wait = |gate: &&str| Waiting {
            subject: Subject::Service,
            gate: (*gate).to_owned(),
            reason: String::new(),
            until: None,
        };
        ServiceReport { waiting: gates.iter().map(wait).collect(), ..ServiceReport::default() }
    }

    fn check(planned: &[&str], before: &[&str], begins: bool, expect: &[&str]) {
        let told = telling(&report(planned), &report(before), begins);
        let gates: Vec<&str> = told.iter().map(|wait| wait.gate.as_str()).collect();
        assert_eq!(gates, expect, "{planned:?}, {before:?}");
    }

    #[test]
    fn what_passes_by_itself_is_not_told_and_what_holds_is() {
        check(&["health", "health", "budget", "route"], &[], true, &[]);
        check(
            &["zone", "budget", "evidence", "no-node", "node-silent"],
            &[],
            true,
            &["evidence", "no-node", "node-silent"],
        );
        // No instance could begin.
        check(&["budget"], &[], false, &["budget"]);
        // It waits for that already.
        check(&["health", "route"], &["route"], true, &["route"]);
        check(&["warm"], &["warm"], true, &[]);
    }
}
