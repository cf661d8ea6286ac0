//! How requests are shared among releases: outside a rollout all go to the stable one; in one they follow what its
//! stage says of the traffic, or where it says nothing, the instances that are ready. Never to a release of which none is.

use crate::progress::{RolloutProgress, Traffic};
use crate::turn::Turn;
use baton_model::id::ReleaseNumber;
use baton_model::route::{Mirror, Rule, Split, Upstream, UpstreamId, Weight};
use std::collections::BTreeMap;

/// What a route says beside its upstreams.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) split: Split,
    pub(super) rules: Vec<Rule>,
    pub(super) mirror: Option<Mirror>,
    pub(super) held: bool,
}

/// The share of each release, of those that have upstreams.
pub(super) fn share(turn: &Turn<'_>, upstreams: &BTreeMap<UpstreamId, Upstream>) -> Share {
    let mut ready: BTreeMap<ReleaseNumber, u32> = BTreeMap::new();
    for upstream in upstreams.values() {
        *ready.entry(upstream.release).or_default() += 1;
    }
    let rollout = turn.rollout();
    let Some((rollout, traffic)) = rollout.and_then(|rollout| Some((rollout, traffic(rollout)?))) else {
        let stable = turn.memory.stable.filter(|stable| rollout.is_none() && ready.contains_key(stable));
        let split = stable.map_or_else(|| by_instances(&ready), all_to);
        return Share { split, ..Share::default() };
    };
    let is_ready = |release: ReleaseNumber| ready.contains_key(&release);
    let old = rollout.from.filter(|from| is_ready(*from));
    let split = match (old, is_ready(rollout.to)) {
        (Some(old), true) => between(old, rollout.to, traffic.weight),
        (Some(old), false) => all_to(old),
        (None, true) => all_to(rollout.to),
        (None, false) => by_instances(&ready),
    };
    Share {
        split,
        rules: traffic.rules.into_iter().filter(|rule| is_ready(rule.to)).collect(),
        mirror: traffic.mirror.filter(|mirror| is_ready(mirror.to)),
        held: traffic.held,
    }
}

/// What the stages say of the traffic now: the last that was begun and whose cohort has been healthy; before the first
/// such one the new release gets nothing. `None` where they say nothing of it.
fn traffic(rollout: &RolloutProgress) -> Option<Traffic> {
    let stages = &rollout.stages[rollout.turned_at.unwrap_or(0)..];
    if stages.iter().all(|stage| stage.traffic.is_none()) {
        return None;
    }
    let reached = stages.iter().take_while(|stage| stage.started_at.is_some());
    let healthy = reached.filter(|stage| stage.healthy_at.is_some() || stage.ended_at.is_some());
    Some(healthy.filter_map(|stage| stage.traffic.clone()).last().unwrap_or_default())
}

fn all_to(release: ReleaseNumber) -> Split {
    Split { weights: BTreeMap::from([(release, Weight::ALL)]) }
}

fn between(old: ReleaseNumber, new: ReleaseNumber, weight: Weight) -> Split {
    if old == new {
        return all_to(new);
    }
    let weights = [(old, weight.rest()), (new, weight)];
    Split { weights: weights.into_iter().filter(|(_, weight)| *weight != Weight::NONE).collect() }
}

/// To each release in proportion to its ready instances: each instance gets the same. What rounding leaves goes to the
/// releases it has taken most from, the older first (the largest remainder method).
fn by_instances(ready: &BTreeMap<ReleaseNumber, u32>) -> Split {
    let whole = u64::from(Weight::ALL.0);
    let all: u64 = ready.values().map(|count| u64::from(*count)).sum();
    if all == 0 {
        return Split::default();
    }
    let part = |count: u32| (u64::from(count) * whole / all, u64::from(count) * whole % all);
    let mut shares: Vec<(ReleaseNumber, u64, u64)> =
        ready.iter().map(|(release, count)| (*release, part(*count).0, part(*count).1)).collect();
    let given: u64 = shares.iter().map(|(_, share, _)| share).sum();
    shares.sort_by_key(|(release, _, remainder)| (std::cmp::Reverse(*remainder), *release));
    let left = usize::try_from(whole - given).unwrap_or(usize::MAX);
    shares.iter_mut().take(left).for_each(|(_, share, _)| *share += 1);
    let weight = |share: u64| Weight(u16::try_from(share).unwrap_or(Weight::ALL.0));
    Split { weights: shares.into_iter().map(|(release, share, _)| (release, weight(share))).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(ready: &[(u64, u32)], expect: &[(u64, u16)]) {
        let ready = ready.iter().map(|(release, count)| (ReleaseNumber(*release), *count)).collect();
        let split = by_instances(&ready).weights;
        let got: Vec<(u64, u16)> = split.iter().map(|(release, weight)| (release.0, weight.0)).collect();
        assert_eq!(got, expect);
    }

    #[test]
    fn each_ready_instance_gets_the_same_and_all_of_it_is_given() {
        check(&[], &[]);
        check(&[(1, 3)], &[(1, 10_000)]);
        check(&[(1, 3), (2, 1)], &[(1, 7_500), (2, 2_500)]);
        check(&[(1, 2), (2, 1)], &[(1, 6_667), (2, 3_333)]);
        check(&[(1, 1), (2, 1), (3, 1)], &[(1, 3_334), (2, 3_333), (3, 3_333)]);
        check(&[(1, 1), (2, 2)], &[(1, 3_333), (2, 6_667)]);
    }

    #[test]
    fn a_weight_leaves_out_who_gets_nothing() {
        let weights = |weight| between(ReleaseNumber(1), ReleaseNumber(2), Weight(weight)).weights;
        assert_eq!(weights(0), all_to(ReleaseNumber(1)).weights);
        assert_eq!(weights(10_000), all_to(ReleaseNumber(2)).weights);
        assert_eq!(weights(100).values().map(|weight| weight.0).collect::<Vec<_>>(), [9_900, 100]);
    }
}
