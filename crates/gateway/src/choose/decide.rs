//! Which release a request goes to: the first rule that matches, then the client's cookie, then the split.

use super::RouteState;
use crate::clock::tick;
use crate::evidence::TrialCounters;
use crate::evidence::counters::{ReleaseEvent, ServiceEvent};
use crate::hash::{POINTS, Salt, point};
use crate::request::{Lookup, RequestView};
use crate::table::hosts;
use baton_model::id::{ReleaseNumber, RolloutId};
use baton_model::route::{self, Between, Weight};
use http::{HeaderValue, StatusCode};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What the hash of a rule's share is for.
const SHARE: &str = "share";

/// The salt of a share of a test: each test of a service has one of its own, the same at every gateway and for as long as it
/// lasts. Without a test it is that of gateways before there was one for each.
fn share_salt(service: &str, test: RolloutId) -> Salt {
    match test {
        RolloutId(0) => Salt::new(service, SHARE),
        RolloutId(number) => Salt::new(service, &format!("{SHARE} {number}")),
    }
}

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The release that is to answer; `None` while the service has none that takes requests.
    pub release: Option<ReleaseNumber>,
    /// What decided it.
    pub by: DecidedBy,
    /// A `Set-Cookie` for the answer: the client is new, and stays where it is from now on.
    pub set_cookie: Option<HeaderValue>,
    /// It was drawn to be copied to this release.
    pub mirror: Option<ReleaseNumber>,
    /// The group of clients that it counts for, where two are compared.
    pub arm: Option<Arm>,
    /// It waits for a newer table before it is sent.
    pub held: bool,
}

/// What decided a request's release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DecidedBy {
    /// A rule.
    Rule,
    /// The cookie of a client that was here before.
    Cookie,
    /// The hash of the split's key.
    Split,
    /// Chance: the request has neither cookie nor key.
    Chance,
}

/// One of two groups that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arm {
    /// The release before.
    Control,
    /// The new one.
    Treatment,
}

/// A request that takes part in a comparison of clients: what becomes of it is counted for its arm.
#[derive(Clone, Debug)]
pub struct Part {
    counters: Arc<TrialCounters>,
    arm: Arm,
}

impl Part {
    /// The head of the answer that the client gets, and how long it took from the request's coming in.
    pub fn answered(&self, status: StatusCode, latency: Duration) {
        self.counters.answered(self.arm, status, latency);
    }

    /// No instance answered.
    pub fn unanswered(&self) {
        self.counters.unanswered(self.arm);
    }
}

/// Who takes part in a comparison of clients, and in which arm. It is asked by the hash that the rule of the same share
/// asks, so a client counts for the release that its rule gives it, also while another has to answer.
#[derive(Debug)]
pub(super) struct Experiment {
    key: Lookup,
    share_salt: Salt,
    share: Weight,
    /// Clients are counted by a hash that has nothing to do with the one that chose them.
    exposure_salt: Salt,
}

impl Experiment {
    pub(super) fn new(trial: &route::Trial, service: &str) -> Option<Self> {
        match &trial.between {
            Between::Clients { key, share, test } => Some(Self {
                key: Lookup::new(key).expect("the names of headers were checked"),
                share_salt: share_salt(service, *test),
                share: *share,
                exposure_salt: Salt::new(service, "exposure"),
            }),
            Between::Copies => None,
        }
    }

    /// The arm of a request and the hash of its client; `None` where it has no key.
    pub(super) fn arm(&self, view: &RequestView<'_>) -> Option<(Arm, u64)> {
        let point = point(self.key.hash(view, self.share_salt)?);
        let arm = if point < self.share.0 { Arm::Treatment } else { Arm::Control };
        Some((arm, self.key.hash(view, self.exposure_salt)?))
    }
}

/// A rule made ready.
#[derive(Debug)]
pub(super) struct Rule {
    conditions: Box<[Condition]>,
    pub(super) to: ReleaseNumber,
}

#[derive(Debug)]
enum Condition {
    Is { key: Lookup, value: Option<String> },
    Path { prefix: String },
    Host { name: String },
    Share { key: Lookup, salt: Salt, share: Weight },
}

impl Rule {
    pub(super) fn new(rule: &route::Rule, service: &str) -> Self {
        let lookup = |key| Lookup::new(key).expect("the names of headers were checked");
        let conditions = rule.conditions.iter().map(|condition| match condition {
            route::Condition::Is { key, value } => Condition::Is { key: lookup(key), value: value.clone() },
            route::Condition::Path { prefix } => {
                Condition::Path { prefix: hosts::trimmed(prefix).to_owned() }
            }
            route::Condition::Host { name } => Condition::Host { name: name.to_ascii_lowercase() },
            route::Condition::Share { key, share, test } => {
                Condition::Share { key: lookup(key), salt: share_salt(service, *test), share: *share }
            }
        });
        Self { conditions: conditions.collect(), to: rule.to }
    }

    fn matches(&self, view: &RequestView<'_>) -> bool {
        self.conditions.iter().all(|condition| match condition {
            Condition::Is { key, value } => key.is(view, value.as_deref()),
            Condition::Path { prefix } => hosts::begins(view.path, prefix),
            Condition::Host { name } => {
                view.host.is_some_and(|host| hosts::bare(host).eq_ignore_ascii_case(name))
            }
            Condition::Share { key, salt, share } => {
                key.hash(view, *salt).is_some_and(|hash| point(hash) < share.0)
            }
        })
    }
}

impl RouteState {
    /// Decides which release a request goes to, and counts the request.
    #[must_use]
    pub fn decide(&self, view: &RequestView<'_>, now: Instant) -> Decision {
        self.service.counters.count(ServiceEvent::Request);
        self.service.budget.deposit(tick(now));
        let ruled = self.rules.iter().find(|rule| rule.matches(view)).map(|rule| rule.to);
        let (release, by, set_cookie) = match ruled {
            Some(release) => (Some(release), DecidedBy::Rule, None),
            None => self.split(view),
        };
        if let (Some(release), Some(_)) = (release, &set_cookie) {
            self.count(release, ReleaseEvent::Exposure);
        }
        let mirror = self.mirrored(release);
        Decision { release, by, set_cookie, mirror, arm: self.exposed(view), held: self.held }
    }

    /// Decides anew for a request that was decided by an older revision and still waits: by this one's rules and split,
    /// where its release can no longer be had. It is not counted again.
    #[must_use]
    pub fn decide_again(&self, view: &RequestView<'_>, before: &Decision) -> Decision {
        let ruled = self.rules.iter().find(|rule| rule.matches(view)).map(|rule| rule.to);
        let (release, by) = match (ruled, &before.set_cookie) {
            (Some(release), _) => (Some(release), DecidedBy::Rule),
            // A client that was just given a point goes where the point lies now.
            (None, Some(cookie)) => {
                let point = self.cookie.as_ref().and_then(|it| it.given(cookie));
                (point.map_or(before.release, |point| self.at(point)), before.by)
            }
            (None, None) => {
                let (release, by, _) = self.split(view);
                (release, by)
            }
        };
        Decision {
            release,
            by,
            set_cookie: before.set_cookie.clone(),
            mirror: None,
            arm: before.arm,
            held: self.held,
        }
    }

    fn split(&self, view: &RequestView<'_>) -> (Option<ReleaseNumber>, DecidedBy, Option<HeaderValue>) {
        let known = self.cookie.as_ref().and_then(|cookie| cookie.point(view));
        if let Some(point) = known {
            return (self.at(point), DecidedBy::Cookie, None);
        }
        let (point, by) = match self.split_by.hash(view, self.split_salt) {
            Some(hash) => (point(hash), DecidedBy::Split),
            None => (fastrand::u16(..POINTS), DecidedBy::Chance),
        };
        let release = self.at(point);
        let cookie = self.cookie.as_ref().filter(|_| release.is_some());
        (release, by, cookie.map(|cookie| cookie.set(point, view.secure)))
    }

    /// The release whose share a point falls into.
    fn at(&self, point: u16) -> Option<ReleaseNumber> {
        self.borders.iter().find(|(end, _)| point < *end).map(|(_, release)| *release)
    }

    fn mirrored(&self, release: Option<ReleaseNumber>) -> Option<ReleaseNumber> {
        let mirror = self.mirror.as_ref()?;
        // A copy to the very release that answers would only count twice.
        (release != Some(mirror.to) && fastrand::u16(..POINTS) < mirror.share.0).then_some(mirror.to)
    }

    /// The arm of a request whose client takes part in a comparison; the client is counted.
    fn exposed(&self, view: &RequestView<'_>) -> Option<Arm> {
        let (arm, client) = self.experiment.as_ref()?.arm(view)?;
        self.trial.as_ref()?.exposed(arm, client);
        Some(arm)
    }

    /// Where what becomes of a request is counted, if it takes part in a comparison of clients.
    #[must_use]
    pub fn part(&self, decision: &Decision) -> Option<Part> {
        Some(Part { counters: Arc::clone(self.trial.as_ref()?), arm: decision.arm? })
    }
}
