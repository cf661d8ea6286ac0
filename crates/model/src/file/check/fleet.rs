//! What can be wrong with placement and rollout.

use super::Findings;
use crate::rollout::{RolloutPolicy, Strategy};
use crate::spec::{Amount, Count, Placement, ServiceSpec};
use crate::time::Millis;

/// Most replicas of one service; the engine's cost is linear in them.
const REPLICAS_MAX: u32 = 10_000;
/// Longest label name and label value, as Kubernetes has it.
const LABEL_MAX: usize = 63;
/// Most stages that wait for an approval; each one is a person's click.
const APPROVALS_MAX: usize = 100;
/// A node is called lost after at least this long: less would move services for a slow packet.
const LOST_AFTER_MIN: Millis = Millis::secs(1);
/// Longest bake, deadline or grace: a week. Whoever waits longer wants an approval.
pub(super) const WAIT_MAX: Millis = Millis::secs(7 * 24 * 3600);

pub(super) fn check(spec: &ServiceSpec, findings: &mut Findings) {
    placement(&spec.placement, findings);
    amounts(spec, findings);
    room_to_move(spec, findings);
    zones(spec, findings);
    clocks(&spec.rollout, findings);
    readiness_in_time(spec, findings);
    approvals(spec, findings);
}

fn placement(placement: &Placement, findings: &mut Findings) {
    if let Count::Replicas(replicas) = placement.count {
        findings.range("placement.replicas", replicas, 1, REPLICAS_MAX);
    }
    findings.duration("placement.lost_after", placement.lost_after, LOST_AFTER_MIN, WAIT_MAX);
    for (label, value) in &placement.require {
        let field = format!("placement.require.{label}");
        label_name(&field, label, findings);
        if value.is_empty() || value.len() > LABEL_MAX || value.contains(char::is_whitespace) {
            findings.add(
                &[&field],
                format!("`{field}` is not a value that a label can have"),
                format!("write 1 to {LABEL_MAX} characters without spaces, as `baton node ls` shows them"),
            );
        }
    }
    let Some(spread) = &placement.spread else { return };
    label_name("placement.spread", spread, findings);
    if let Some(value) = placement.require.get(spread) {
        findings.add(
            &["placement.spread", &format!("placement.require.{spread}")],
            format!("`placement.spread` spreads over `{spread}`, but `placement.require` allows only `{value}` of it"),
            format!("spread over another label, or do not require `{spread}`"),
        );
    }
}

fn label_name(field: &str, label: &str, findings: &mut Findings) {
    let valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if label.is_empty() || label.len() > LABEL_MAX || !label.chars().all(valid) {
        findings.add(
            &[field],
            format!("`{field}` names no label that a node can have"),
            format!("use 1 to {LABEL_MAX} letters, digits, `-`, `_`, `.` and `/`, such as `zone`"),
        );
    }
}

/// Shares and numbers, each against the whole.
fn amounts(spec: &ServiceSpec, findings: &mut Findings) {
    let rollout = &spec.rollout;
    let all = [
        ("rollout.batch", rollout.batch),
        ("rollout.max_unavailable", rollout.max_unavailable),
        ("rollout.failure_tolerance", rollout.failure_tolerance),
        ("placement.min_available", spec.min_available),
    ];
    for (field, amount) in all {
        if let Amount::Percent(percent) = amount
            && percent > 100
        {
            findings.add(
                &[field],
                format!("`{field}` is {percent}%, more than the whole"),
                "write a share from \"0%\" to \"100%\"",
            );
        }
    }
    if is_zero(rollout.batch) {
        findings.add(
            &["rollout.batch"],
            format!("`rollout.batch` is {}, so that no instance would ever be changed", rollout.batch),
            "write 1 or more, or a share such as \"25%\"",
        );
    }
    if let (Count::Replicas(replicas), Amount::Number(least)) = (spec.placement.count, spec.min_available)
        && least > replicas
    {
        findings.add(
            &["placement.min_available", "placement.replicas"],
            format!("`placement.min_available` is {least}, but there are only {replicas} replicas"),
            format!("write at most {replicas}, or raise `placement.replicas`"),
        );
    }
    tolerance(spec, findings);
}

fn is_zero(amount: Amount) -> bool {
    match amount {
        Amount::Number(number) => number == 0,
        Amount::Percent(percent) => percent == 0,
    }
}

/// A batch that may fail as a whole would let a release pass that never ran.
fn tolerance(spec: &ServiceSpec, findings: &mut Findings) {
    let whole_batch_may_fail =
        match (spec.rollout.failure_tolerance, spec.rollout.batch, spec.placement.count) {
            (Amount::Percent(tolerated), _, _) => tolerated == 100,
            (Amount::Number(tolerated), Amount::Number(batch), Count::Replicas(replicas)) => {
                tolerated >= batch.min(replicas)
            }
            (Amount::Number(tolerated), Amount::Number(batch), Count::PerNode) => tolerated >= batch,
            (Amount::Number(tolerated), Amount::Percent(_), Count::Replicas(replicas)) => {
                tolerated >= spec.rollout.batch.ceil_of(replicas)
            }
            (Amount::Number(_), Amount::Percent(_), Count::PerNode) => false,
        };
    if whole_batch_may_fail && !is_zero(spec.rollout.failure_tolerance) {
        let tolerated = spec.rollout.failure_tolerance;
        findings.add(
            &["rollout.failure_tolerance", "rollout.batch"],
            format!(
                "`rollout.failure_tolerance` of {tolerated} would let a whole batch of {} fail unnoticed",
                spec.rollout.batch
            ),
            "tolerate less than a batch; 0 tolerates none",
        );
    }
}

/// A workload that binds its own fixed port is stopped before its successor starts, so one instance must be
/// allowed to be missing.
fn room_to_move(spec: &ServiceSpec, findings: &mut Findings) {
    let fixed = spec.ports.iter().find(|(_, port)| port.kind.is_exclusive());
    let Some((name, _)) = fixed else { return };
    let stops_first =
        format!("port `{name}` is fixed, so each instance is stopped before its new version starts");
    let may_be_out = match spec.placement.count {
        Count::Replicas(replicas) => spec.rollout.max_unavailable.floor_of(replicas),
        Count::PerNode => u32::from(!is_zero(spec.rollout.max_unavailable)),
    };
    let port_field = format!("ports.{name}.kind");
    if may_be_out == 0 {
        findings.add(
            &["rollout.max_unavailable", &port_field],
            format!("{stops_first}, but `rollout.max_unavailable` of {} allows none to be missing", spec.rollout.max_unavailable),
            format!("write `max_unavailable = 1` or more, or let Baton hold the port: `[ports.{name}]` `kind = \"socket\"`"),
        );
    }
    let nothing_to_spare = match spec.placement.count {
        Count::Replicas(replicas) => replicas > 0 && spec.min_available.ceil_of(replicas) >= replicas,
        Count::PerNode => spec.min_available == Amount::Percent(100),
    };
    if nothing_to_spare && may_be_out > 0 {
        findings.add(
            &["placement.min_available", &port_field, "placement.replicas"],
            format!("{stops_first}, but `placement.min_available` of {} needs all of them", spec.min_available),
            format!("lower `min_available`, add a replica, or let Baton hold the port: `[ports.{name}]` `kind = \"socket\"`"),
        );
    }
}

fn zones(spec: &ServiceSpec, findings: &mut Findings) {
    if spec.rollout.zone_at_a_time && spec.placement.spread.is_none() {
        findings.add(
            &["rollout.zone_at_a_time", "placement.spread"],
            "`rollout.zone_at_a_time` needs to know which label is the zone",
            "write `spread = \"zone\"` in `[placement]`",
        );
    }
}

fn clocks(rollout: &RolloutPolicy, findings: &mut Findings) {
    findings.duration("rollout.first_zone_bake", rollout.first_zone_bake, Millis::ZERO, WAIT_MAX);
    let in_range = [
        findings.duration("rollout.min_healthy", rollout.min_healthy, Millis::ZERO, WAIT_MAX),
        findings.duration("rollout.healthy_deadline", rollout.healthy_deadline, Millis::secs(1), WAIT_MAX),
        findings.duration("rollout.progress_deadline", rollout.progress_deadline, Millis::secs(1), WAIT_MAX),
    ];
    if in_range.contains(&false) {
        return;
    }
    if rollout.healthy_deadline <= rollout.min_healthy {
        findings.add(
            &["rollout.healthy_deadline", "rollout.min_healthy"],
            format!(
                "`rollout.healthy_deadline` of {} leaves no time to be ready for `rollout.min_healthy` of {}",
                rollout.healthy_deadline, rollout.min_healthy
            ),
            format!("write a `healthy_deadline` well above {}, the default is \"5m\"", rollout.min_healthy),
        );
    }
    if rollout.progress_deadline < rollout.healthy_deadline {
        findings.add(
            &["rollout.progress_deadline", "rollout.healthy_deadline"],
            format!(
                "`rollout.progress_deadline` of {} ends before `rollout.healthy_deadline` of {}, so a slow instance would fail the rollout while it still may become healthy",
                rollout.progress_deadline, rollout.healthy_deadline
            ),
            format!("write \"{}\" or more", rollout.healthy_deadline),
        );
    }
}

/// The fewest answers that a check needs must fit before the deadline, or no instance can ever be healthy.
fn readiness_in_time(spec: &ServiceSpec, findings: &mut Findings) {
    let rollout = &spec.rollout;
    if rollout.healthy_deadline <= rollout.min_healthy {
        return;
    }
    let Some(readiness) = &spec.checks.readiness else { return };
    let answers = readiness.interval.0.saturating_mul(u64::from(readiness.rise.saturating_sub(1)));
    let needed = Millis(answers.saturating_add(rollout.min_healthy.0));
    if needed >= rollout.healthy_deadline {
        findings.add(
            &["rollout.healthy_deadline", "checks.readiness.rise", "checks.readiness.interval"],
            format!(
                "no instance can be healthy within `rollout.healthy_deadline` of {}: {} answers every {} and {} of health take {needed}",
                rollout.healthy_deadline, readiness.rise, readiness.interval, rollout.min_healthy
            ),
            format!("write a `healthy_deadline` well above {needed}, or ask less of `[checks.readiness]`"),
        );
    }
}

fn approvals(spec: &ServiceSpec, findings: &mut Findings) {
    let stages = &spec.rollout.approve_before;
    let field = "rollout.approve_before";
    if stages.len() > APPROVALS_MAX {
        findings.add(
            &[field],
            format!("`{field}` names {} stages", stages.len()),
            format!("name at most {APPROVALS_MAX}"),
        );
        return;
    }
    if stages.contains(&0) {
        findings.add(
            &[field],
            format!("`{field}` names stage 0"),
            "count stages from 1; `[1]` waits before anything changes",
        );
    }
    if let Some(pair) = stages.windows(2).find(|pair| pair[0] == pair[1]) {
        findings.add(&[field], format!("`{field}` names stage {} twice", pair[0]), "name each stage once");
    }
    if let Some(steps) = steps(&spec.rollout.strategy) {
        if let Some(beyond) = stages.iter().find(|stage| **stage > steps) {
            findings.add(
                &[field, "rollout.strategy"],
                format!("`{field}` names step {beyond}, and the strategy has {steps}"),
                format!("name steps from 1 to {steps}"),
            );
        }
        return;
    }
    let Count::Replicas(replicas) = spec.placement.count else { return };
    let most = stages_at_most(spec, replicas);
    if let Some(beyond) = stages.iter().find(|stage| **stage > most) {
        findings.add(
            &[field, "rollout.batch", "placement.replicas"],
            format!("`{field}` names stage {beyond}, but {replicas} replicas in batches of {} make {most} at most", spec.rollout.batch),
            format!("name stages from 1 to {most}"),
        );
    }
}

/// The steps of a strategy that has some: of a canary those of the cohort too; of a second set its coming, what is tried
/// with it, and the switch.
fn steps(strategy: &Strategy) -> Option<u32> {
    let steps = match strategy {
        Strategy::Rolling => return None,
        Strategy::Canary(canary) => canary.cohort_steps.len() + canary.steps.len(),
        Strategy::BlueGreen(_) | Strategy::Ab(_) => 2,
        Strategy::Dark(_) => 3,
    };
    Some(u32::try_from(steps).unwrap_or(u32::MAX))
}

/// With zones, a batch also ends where a zone ends; in the worst case each instance is a stage.
fn stages_at_most(spec: &ServiceSpec, replicas: u32) -> u32 {
    if spec.rollout.zone_at_a_time {
        return replicas;
    }
    replicas.div_ceil(spec.rollout.batch.floor_of(replicas).max(1))
}
