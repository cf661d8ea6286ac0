//! The gateways of one decision: who is waited for, and what each has acknowledged.
//!
//! A gateway is waited for until it has been silent for [`GATEWAY_LEASE`]; one that has joined and was not heard since
//! the coordinator started counts as heard at that start, for it may serve all the same. After its lease it is known to
//! be fail-static: it goes on by its last table and leaves out by itself what does not answer.

use crate::input::Input;
use baton_model::id::{GatewayName, RouteRevision, ServiceName};
use baton_model::observed::GatewayObserved;
use baton_model::route::UpstreamId;
use baton_model::spec::ServiceSpec;
use baton_model::time::{Millis, UnixMs};
use std::collections::BTreeSet;

/// How long a gateway that is not heard any more is waited for.
pub const GATEWAY_LEASE: Millis = Millis::secs(10);

/// What whoever asks for a release that is not the first is to be told: that its thresholds will wait for evidence, and why
/// nobody counts it.
#[must_use]
pub fn warning(input: &Input<'_>, spec: &ServiceSpec) -> Option<String> {
    let asked = spec.rollout.analysis.iter().any(|threshold| threshold.metric.is_from_gateways());
    let why = Gateways::index(input).absent(&spec.name).filter(|_| asked)?;
    Some(format!("the thresholds of {} will wait for evidence, and {why}", spec.name))
}

/// One gateway that is waited for.
#[derive(Clone, Copy, Debug)]
struct Awaited<'a> {
    name: &'a GatewayName,
    /// `None` when it has not been heard since the coordinator started.
    observed: Option<&'a GatewayObserved>,
    /// From then on it is waited for no longer, if nothing comes from it.
    until: UnixMs,
}

/// The gateways that are waited for, by name.
#[derive(Debug)]
pub(crate) struct Gateways<'a> {
    awaited: Vec<Awaited<'a>>,
    /// Those that have been silent for longer than their lease.
    silent: Vec<&'a GatewayName>,
}

impl<'a> Gateways<'a> {
    /// Those of this input.
    pub(crate) fn index(input: &Input<'a>) -> Self {
        let observed = input.observed;
        let names: BTreeSet<&'a GatewayName> =
            input.desired.gateways.iter().chain(observed.gateways.keys()).collect();
        let awaited = names.into_iter().map(|name| {
            let observed_now = observed.gateways.get(name);
            let last_heard = observed_now.map_or(observed.listening_since, |seen| seen.last_heard);
            Awaited { name, observed: observed_now, until: last_heard.plus(GATEWAY_LEASE) }
        });
        let (awaited, silent): (Vec<_>, Vec<_>) = awaited.partition(|gateway| input.now < gateway.until);
        Self { awaited, silent: silent.into_iter().map(|gateway| gateway.name).collect() }
    }

    /// The revision of a service's route that all of them have acknowledged; `None` where nobody is waited for.
    pub(crate) fn acknowledged(&self, service: &ServiceName) -> Option<RouteRevision> {
        self.awaited.iter().map(|gateway| gateway.has(service)).min()
    }

    /// The revision of a service's route that all of them serve by: what a gateway has acknowledged and cannot serve, it
    /// does not serve. `None` where nobody is waited for.
    pub(crate) fn served(&self, service: &ServiceName) -> Option<RouteRevision> {
        self.awaited.iter().map(|gateway| gateway.serves(service)).min()
    }

    /// The highest revision of a service's route that any of them says it has.
    pub(crate) fn highest(&self, service: &ServiceName) -> Option<RouteRevision> {
        self.awaited.iter().map(|gateway| gateway.has(service)).max()
    }

    /// Requests and connections that they still have in flight to a run which their routes no longer name.
    pub(crate) fn in_flight(&self, id: &UpstreamId) -> u64 {
        let busy = |gateway: &Awaited<'_>| gateway.observed.and_then(|seen| seen.busy.get(id).copied());
        self.awaited.iter().filter_map(busy).sum()
    }

    /// Why not all of them have this revision, for people: the first that has not, and how many more; with the time at
    /// which the first of those that are silent would be waited for no longer. `None` where all have it.
    pub(crate) fn behind(&self, service: &ServiceName, revision: RouteRevision) -> Option<(String, UnixMs)> {
        let mut behind = self.awaited.iter().filter(|gateway| gateway.has(service) < revision);
        let first = behind.next()?;
        let (more, until) =
            behind.fold((0_u32, first.until), |(more, until), next| (more + 1, until.min(next.until)));
        let others = if more == 0 { String::new() } else { format!(" and {more} more") };
        let what = match first.observed {
            None => "has not been heard since the coordinator started".to_owned(),
            Some(_) => format!("has acknowledged {}", first.has(service)),
        };
        let text =
            format!("gateway {}{others} must acknowledge route revision {revision}; {what}", first.name);
        Some((text, until))
    }

    /// Why not all of them serve by this revision, as [`Self::behind`]; one that cannot is named before one that is late,
    /// since somebody has to do something about it.
    pub(crate) fn unserved(
        &self,
        service: &ServiceName,
        revision: RouteRevision,
    ) -> Option<(String, UnixMs)> {
        let unable = self.awaited.iter().find_map(|gateway| Some((gateway, gateway.unserved(service)?)));
        match unable {
            Some((gateway, why)) => Some((format!("gateway {} {why}", gateway.name), gateway.until)),
            None => self.behind(service, revision),
        }
    }

    /// Why none of them counts the requests of a service, for people; `None` where one of them serves its route.
    pub(crate) fn blind(&self, service: &ServiceName) -> Option<String> {
        if self.awaited.iter().any(|gateway| gateway.serves(service) > RouteRevision::default()) {
            return None;
        }
        self.absent(service).or_else(|| {
            let gateway = self.awaited.iter().find(|gateway| gateway.observed.is_some())?;
            let what = gateway.unserved(service).unwrap_or("has not acknowledged its route yet");
            Some(format!("no gateway serves {service}: gateway {} {what}", gateway.name))
        })
    }

    /// Why there is no gateway that could serve anything, for people; `None` where one is heard.
    pub(crate) fn absent(&self, service: &ServiceName) -> Option<String> {
        let nobody = format!("no gateway serves {service}");
        if let Some(first) = self.awaited.first() {
            let heard = self.awaited.iter().any(|gateway| gateway.observed.is_some());
            let what = "has not been heard since the coordinator started";
            return (!heard).then(|| format!("{nobody}: gateway {} {what}", first.name));
        }
        let Some(first) = self.silent.first() else {
            let start = "start one (`baton gateway token`, then `baton gateway join` and `run`)";
            return Some(format!("{nobody}: {start}, or deploy it without thresholds"));
        };
        let (others, are) = match self.silent.len() - 1 {
            0 => (String::new(), "is"),
            more => (format!(" and {more} more"), "are"),
        };
        let again = "start it again (`baton gateway ls` shows them)";
        Some(format!(
            "{nobody}: gateway {first}{others} {are} silent; {again}, or deploy it without thresholds"
        ))
    }

    /// The gateways that are still busy with a run, for people.
    pub(crate) fn busy(&self, id: &UpstreamId) -> Vec<&'a GatewayName> {
        let busy = |gateway: &&Awaited<'_>| gateway.observed.is_some_and(|seen| seen.busy.contains_key(id));
        self.awaited.iter().filter(busy).map(|gateway| gateway.name).collect()
    }
}

impl Awaited<'_> {
    fn has(&self, service: &ServiceName) -> RouteRevision {
        self.observed.and_then(|seen| seen.routes.get(service)).copied().unwrap_or_default()
    }

    fn serves(&self, service: &ServiceName) -> RouteRevision {
        if self.unserved(service).is_some() { RouteRevision::default() } else { self.has(service) }
    }

    fn unserved(&self, service: &ServiceName) -> Option<&str> {
        self.observed.and_then(|seen| seen.unserved.get(service)).map(String::as_str)
    }
}
