//! Which release a request goes to ([`RouteState::decide`]), and which instance of it ([`RouteState::pick`]).

mod balance;
mod cookie;
mod decide;
mod group;
mod pick;

pub use decide::{Arm, DecidedBy, Decision, Part};
pub use pick::Picked;

use crate::clock::Tick;
use crate::evidence::TrialCounters;
use crate::evidence::counters::ReleaseEvent;
use crate::hash::Salt;
use crate::request::Lookup;
use crate::upstream::{ServiceState, UpstreamState};
use balance::Balancer;
use baton_model::id::{ReleaseNumber, RouteRevision, ServiceName, TableRevision};
use baton_model::route::{Mirror, Route, RouteSpec, Split};
use cookie::Cookie;
use decide::{Experiment, Rule};
use group::Group;
use std::sync::Arc;

/// One service's route, made ready for use: immutable, but for what is known of its upstreams.
#[derive(Debug)]
pub struct RouteState {
    service: Arc<ServiceState>,
    table: TableRevision,
    revision: RouteRevision,
    spec: RouteSpec,
    rules: Box<[Rule]>,
    /// The releases of the split and where the share of each ends, in the order of their numbers.
    borders: Box<[(u16, ReleaseNumber)]>,
    split_by: Lookup,
    split_salt: Salt,
    cookie: Option<Cookie>,
    mirror: Option<Mirror>,
    trial: Option<Arc<TrialCounters>>,
    /// Where clients are compared.
    experiment: Option<Experiment>,
    held: bool,
    balancer: Balancer,
    /// By release number, growing.
    groups: Box<[Group]>,
}

impl RouteState {
    /// `route` passed the checks of `baton_model::route`; `upstreams` are the states of its upstreams. What `before` has
    /// counted of a comparison that goes on is counted further.
    pub(crate) fn new(
        table: TableRevision,
        route: &Route,
        service: Arc<ServiceState>,
        upstreams: &[Arc<UpstreamState>],
        zone: Option<&str>,
        before: Option<&Self>,
    ) -> Self {
        let name = service.name.as_str();
        let lookup = |key| Lookup::new(key).expect("the names of headers were checked");
        let slow_start: Tick = crate::clock::micros(route.spec.slow_start.duration());
        let mut releases: Vec<ReleaseNumber> = upstreams.iter().map(|it| it.release()).collect();
        releases.sort_unstable();
        releases.dedup();
        let group = |release: ReleaseNumber| {
            let of = upstreams.iter().filter(|it| it.release() == release).cloned().collect();
            Group::new(release, of, zone, route.spec.zone_spill_below, slow_start)
        };
        Self {
            table,
            revision: route.revision,
            rules: route.rules.iter().map(|rule| Rule::new(rule, name)).collect(),
            borders: borders(&route.split),
            split_by: lookup(&route.spec.split_by),
            split_salt: Salt::new(name, "split"),
            cookie: route.spec.sticky_cookie.as_deref().map(|cookie| Cookie::new(cookie, &route.spec.entry)),
            mirror: route.mirror.clone(),
            experiment: route.trial.as_ref().and_then(|trial| Experiment::new(trial, name)),
            trial: route.trial.clone().map(|trial| {
                let known = before.and_then(|it| it.trial.clone()).filter(|it| *it.trial() == trial);
                known.unwrap_or_else(|| Arc::new(TrialCounters::new(trial)))
            }),
            held: route.held,
            balancer: Balancer::new(&route.spec.balance, name),
            groups: releases.into_iter().map(group).collect(),
            spec: route.spec.clone(),
            service,
        }
    }

    /// The service whose requests these are.
    #[must_use]
    pub fn name(&self) -> &ServiceName {
        &self.service.name
    }

    /// What is kept over revisions: counters, budget, queue.
    #[must_use]
    pub const fn service(&self) -> &Arc<ServiceState> {
        &self.service
    }

    /// Timeouts, limits and what else the service's file says.
    #[must_use]
    pub const fn spec(&self) -> &RouteSpec {
        &self.spec
    }

    /// The mirror, where there is one.
    #[must_use]
    pub const fn mirror(&self) -> Option<&Mirror> {
        self.mirror.as_ref()
    }

    /// What is counted of the comparison of two releases, where there is one.
    #[must_use]
    pub const fn trial(&self) -> Option<&Arc<TrialCounters>> {
        self.trial.as_ref()
    }

    /// The revision of the route.
    #[must_use]
    pub const fn revision(&self) -> RouteRevision {
        self.revision
    }

    /// New requests wait until a newer table says otherwise.
    #[must_use]
    pub const fn is_held(&self) -> bool {
        self.held
    }

    /// The upstreams, by release.
    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<UpstreamState>> {
        self.groups.iter().flat_map(Group::upstreams)
    }

    /// Whether requests or copies may go to a release.
    #[must_use]
    pub fn names(&self, release: ReleaseNumber) -> bool {
        self.group(release).is_some()
            || self.borders.iter().any(|(_, it)| *it == release)
            || self.rules.iter().any(|rule| rule.to == release)
            || self.mirror.as_ref().is_some_and(|mirror| mirror.to == release)
    }

    /// Counts an event of a release, by the way that takes no lock where it has an upstream.
    fn count(&self, release: ReleaseNumber, event: ReleaseEvent) {
        match self.group(release).and_then(|group| group.upstreams().next()) {
            Some(upstream) => upstream.counters().count(event),
            None => self.service.release(release).count(event),
        }
    }

    /// The upstreams of each release.
    pub(crate) fn releases(&self) -> impl Iterator<Item = Vec<Arc<UpstreamState>>> {
        self.groups.iter().map(Group::states)
    }

    fn group(&self, release: ReleaseNumber) -> Option<&Group> {
        self.groups.binary_search_by_key(&release, Group::release).ok().map(|at| &self.groups[at])
    }
}

/// Where the share of each release ends: one after the other, so that only the border between two of them moves while
/// one grows at the other's cost.
fn borders(split: &Split) -> Box<[(u16, ReleaseNumber)]> {
    let mut end = 0;
    let shares = split.weights.iter().filter(|(_, weight)| weight.0 > 0);
    shares
        .map(|(release, weight)| {
            end += weight.0;
            (end, *release)
        })
        .collect()
}

#[cfg(test)]
mod tests;
