//! How requests are shared among releases: outside a rollout all go to the stable one; in one they follow what it says of
//! the traffic as far as capacity allows, or where it says nothing, the instances that are ready. Never to a release of
//! which none is.

use crate::turn::Turn;
use baton_model::id::ReleaseNumber;
use baton_model::route::{Mirror, Rule, Split, Trial, Upstream, UpstreamId, Weight};
use std::collections::BTreeMap;

/// What a route says beside its upstreams.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) split: Split,
    pub(super) rules: Vec<Rule>,
    pub(super) mirror: Option<Mirror>,
    pub(super) held: bool,
    pub(super) trial: Option<Trial>,
}

/// The share of each release, of those that have upstreams.
pub(super) fn share(turn: &Turn<'_>, upstreams: &BTreeMap<UpstreamId, Upstream>) -> Share {
    let mut ready: BTreeMap<ReleaseNumber, u32> = BTreeMap::new();
    for upstream in upstreams.values() {
        *ready.entry(upstream.release).or_default() += 1;
    }
    let rollout = turn.rollout();
    let Some((rollout, traffic)) = rollout.and_then(|rollout| Some((rollout, rollout.traffic.as_ref()?)))
    else {
        let stable = turn.memory.stable.filter(|stable| rollout.is_none() && ready.contains_key(stable));
        let split = stable.map_or_else(|| by_instances(&ready), all_to);
        return Share { split, ..Share::default() };
    };
    let is_ready = |release: ReleaseNumber| ready.contains_key(&release);
    let ruled = ruled(&traffic.rules, rollout.to);
    let releases = Releases { from: rollout.from, to: rollout.to, floor: turn.budget.floor, ruled };
    Share {
        split: by_capacity(&ready, releases, traffic.weight),
        rules: traffic.rules.iter().filter(|rule| is_ready(rule.to)).cloned().collect(),
        mirror: traffic.mirror.clone().filter(|mirror| is_ready(mirror.to)),
        held: traffic.held,
        trial: rollout.trial(),
    }
}

/// Between which releases a rollout shares the requests, and the floor of its service.
#[derive(Clone, Copy, Debug)]
struct Releases {
    from: Option<ReleaseNumber>,
    to: ReleaseNumber,
    floor: u32,
    /// The share of the requests that rules give to the new release before the split is asked.
    ruled: Weight,
}

/// What rules that ask for nothing but a share of a key give to a release: as many as have the key, all of them at most.
fn ruled(rules: &[Rule], to: ReleaseNumber) -> Weight {
    rules.iter().filter(|rule| rule.to == to).filter_map(Rule::plain_share).max().unwrap_or_default()
}

/// The new release gets its weight and the one before it the rest, each as far as its ready instances can take it: so many
/// as the floor take everything. What is left goes to whichever others are there, then to the two as far as they can;
/// where all of them together are fewer than the floor, each instance gets the same. So requests that go back, or move on
/// while instances still change, follow the capacity.
fn by_capacity(ready: &BTreeMap<ReleaseNumber, u32>, releases: Releases, weight: Weight) -> Split {
    let Releases { from, to, floor, ruled } = releases;
    let whole = u64::from(Weight::ALL.0);
    let capacity = |count: u32| (u64::from(count) * whole / u64::from(floor.max(1))).min(whole);
    let mut room: BTreeMap<ReleaseNumber, u64> =
        ready.iter().map(|(release, count)| (*release, capacity(*count))).collect();
    if let Some(from) = from.and_then(|from| room.get_mut(&from)) {
        // What rules take away it need not be able to take.
        *from = (*from * whole / u64::from(ruled.rest().0).max(1)).min(whole);
    }
    let mut shares: BTreeMap<ReleaseNumber, u64> = BTreeMap::new();
    let mut left = whole;
    let others: Vec<ReleaseNumber> =
        ready.keys().copied().filter(|release| *release != to && Some(*release) != from).collect();
    let first = [(Some(to), u64::from(weight.0)), (from, whole)];
    let then = others.into_iter().map(Some).chain([Some(to), from]).map(|release| (release, whole));
    for (release, most) in first.into_iter().chain(then) {
        let Some((release, room)) = release.and_then(|it| Some((it, room.get_mut(&it)?))) else { continue };
        let taken = most.min(*room).min(left);
        *room -= taken;
        left -= taken;
        *shares.entry(release).or_default() += taken;
    }
    if left > 0 {
        return by_instances(ready);
    }
    let weight = |share: u64| Weight(u16::try_from(share).unwrap_or(Weight::ALL.0));
    let shares = shares.into_iter().filter(|(_, share)| *share > 0);
    Split { weights: shares.map(|(release, share)| (release, weight(share))).collect() }
}

fn all_to(release: ReleaseNumber) -> Split {
    Split { weights: BTreeMap::from([(release, Weight::ALL)]) }
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

    /// From release 1 to 2.
    fn check_capacity(ready: &[(u64, u32)], floor: u32, weight: u16, expect: &[(u64, u16)]) {
        let counts = ready.iter().map(|(release, count)| (ReleaseNumber(*release), *count)).collect();
        let (from, to) = (Some(ReleaseNumber(1)), ReleaseNumber(2));
        let releases = Releases { from, to, floor, ruled: Weight::NONE };
        let split = by_capacity(&counts, releases, Weight(weight)).weights;
        let got: Vec<(u64, u16)> = split.iter().map(|(release, weight)| (release.0, weight.0)).collect();
        assert_eq!(got, expect, "{ready:?}, floor {floor}, weight {weight}");
    }

    #[test]
    fn a_release_gets_no_more_than_its_instances_can_take() {
        check_capacity(&[(1, 3), (2, 1)], 3, 500, &[(1, 9_500), (2, 500)]);
        check_capacity(&[(1, 4), (2, 4)], 3, 10_000, &[(2, 10_000)]);
        check_capacity(&[(1, 4)], 3, 500, &[(1, 10_000)]);
        // Going on while the old ones become fewer, and going back while they come.
        check_capacity(&[(1, 1), (2, 3)], 4, 2_500, &[(1, 2_500), (2, 7_500)]);
        check_capacity(&[(1, 2), (2, 2)], 4, 0, &[(1, 5_000), (2, 5_000)]);
        // The old ones cannot take the rest.
        check_capacity(&[(1, 2), (2, 1)], 3, 100, &[(1, 6_667), (2, 3_333)]);
        // A release that is neither steps in where capacity is short, and nowhere else.
        check_capacity(&[(1, 1), (3, 3)], 4, 500, &[(1, 2_500), (3, 7_500)]);
        check_capacity(&[(1, 4), (3, 3)], 4, 500, &[(1, 10_000)]);
        check_capacity(&[], 3, 500, &[]);
        check_capacity(&[(1, 1)], 0, 500, &[(1, 10_000)]);
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
}
