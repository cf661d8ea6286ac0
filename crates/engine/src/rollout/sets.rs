//! Strategies with a second set: blue-green, dark launch, and the return to a set that is still warm. The second set is
//! placed beside the first and serves nobody; a switch lets the two change places.

use super::plan::{Plan, stage};
use crate::progress::{StageProgress, Traffic};
use crate::turn::Turn;
use baton_model::id::ReleaseNumber;
use baton_model::rollout::{AfterDark, BlueGreen, DarkLaunch, Preview};
use baton_model::route::{Between, Entry, Mirror, Rule, Weight};
use baton_model::spec::ServiceSpec;
use baton_model::time::Millis;
use std::collections::BTreeSet;

/// Whether a set of this release stands beside the one that serves.
pub(super) fn is_warm(turn: &Turn<'_>, release: ReleaseNumber) -> bool {
    turn.beside().any(|(_, slot)| slot.release == release)
}

/// Back to a set that stands beside, by one switch; what is missing of it is placed first.
pub(super) fn switch_back(turn: &Turn<'_>, to: ReleaseNumber) -> Plan {
    let traffic = Traffic { weight: Weight::ALL, ..Traffic::default() };
    let title = format!("switch back to {}", turn.version(to));
    let switch = StageProgress { switches: true, ..of_set(title, 0, traffic) };
    Plan { stages: vec![switch], traffic: Some(Traffic::default()), keep_warm: Millis::ZERO }
}

/// A whole second set, checked and open to previews; then all requests at once.
pub(super) fn blue_green(policy: &BlueGreen, to: ReleaseNumber, spec: &ServiceSpec) -> Plan {
    let stages = vec![second(previewed(&policy.preview, to, spec)), switch(2, policy.bake)];
    Plan { stages, traffic: Some(Traffic::default()), keep_warm: policy.keep_warm }
}

/// A whole second set that is sent copies; then, by hand or by rule, all requests at once.
pub(super) fn dark(policy: &DarkLaunch, to: ReleaseNumber, spec: &ServiceSpec) -> Plan {
    let mirror = Mirror {
        to,
        share: policy.share,
        body_bytes_max: policy.body_bytes_max,
        in_flight_max: policy.in_flight_max,
        unsafe_methods: policy.unsafe_methods,
        compare_bodies: policy.compare_bodies,
    };
    let traffic = Traffic {
        mirror: Some(mirror),
        trial: Some(Between::Copies),
        ..previewed(&policy.preview, to, spec)
    };
    let watched = StageProgress {
        bake_ms: policy.duration.0,
        analysed: true,
        ..of_set(format!("copies of {} of the requests", policy.share), 2, traffic)
    };
    let approval = match policy.then {
        AfterDark::Wait => true,
        AfterDark::Promote => false,
    };
    let promoted = StageProgress { approval, ..switch(3, Millis::ZERO) };
    Plan {
        stages: vec![second(previewed(&policy.preview, to, spec)), watched, promoted],
        traffic: Some(Traffic::default()),
        keep_warm: policy.keep_warm,
    }
}

fn second(traffic: Traffic) -> StageProgress {
    of_set("a second set".to_owned(), 1, traffic)
}

fn switch(step: u32, bake: Millis) -> StageProgress {
    let traffic = Traffic { weight: Weight::ALL, ..Traffic::default() };
    StageProgress {
        switches: true,
        bake_ms: bake.0,
        analysed: bake > Millis::ZERO,
        ..of_set("switch".to_owned(), step, traffic)
    }
}

fn of_set(title: String, step: u32, traffic: Traffic) -> StageProgress {
    StageProgress { second_set: true, step, traffic: Some(traffic), ..stage(title, BTreeSet::new()) }
}

/// Nobody is served but who asks for a preview. Of a TCP connection only the address is known, so nobody can ask there.
fn previewed(preview: &Preview, to: ReleaseNumber, spec: &ServiceSpec) -> Traffic {
    let asks = spec.route.as_ref().is_some_and(|route| matches!(route.entry, Entry::Http { .. }));
    let conditions = if asks { preview.conditions() } else { Vec::new() };
    let rule = |condition| Rule { conditions: vec![condition], to };
    Traffic { rules: conditions.into_iter().map(rule).collect(), ..Traffic::default() }
}
