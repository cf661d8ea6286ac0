//! Which release a request goes to: the first rule that matches, then the client's cookie, then the split.

use super::RouteState;
use crate::clock::tick;
use crate::evidence::counters::{ReleaseEvent, ServiceEvent};
use crate::hash::{POINTS, Salt, point};
use crate::request::{Lookup, RequestView};
use crate::table::hosts;
use baton_model::id::ReleaseNumber;
use baton_model::route::{self, Weight};
use http::HeaderValue;
use std::time::Instant;

/// What is done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The release that is to answer; `None` while the service has none that takes requests.
    pub release: Option<ReleaseNumber>,
    /// What decided it.
    pub by: DecidedBy,
    /// A `Set-Cookie` for the answer: the client is new, and stays where it is from now on.
    pub set_cookie: Option<HeaderValue>,
    /// A copy goes to this release, if its body is not too large.
    pub mirror: Option<ReleaseNumber>,
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
            route::Condition::Share { key, share } => {
                Condition::Share { key: lookup(key), salt: Salt::new(service, "share"), share: *share }
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
        Decision { release, by, set_cookie, mirror: self.mirrored(view, release), held: self.held }
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
        Decision { release, by, set_cookie: before.set_cookie.clone(), mirror: None, held: self.held }
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

    fn mirrored(&self, view: &RequestView<'_>, release: Option<ReleaseNumber>) -> Option<ReleaseNumber> {
        let mirror = self.mirror.as_ref()?;
        // A copy to the very release that answers would only count twice.
        let wanted = release != Some(mirror.to) && (mirror.unsafe_methods || view.method.is_safe());
        (wanted && fastrand::u16(..POINTS) < mirror.share.0).then_some(mirror.to)
    }
}
