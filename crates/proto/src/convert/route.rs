//! Route tables: what gateways are sent. What a service's file says of its route is in [`spec`].

mod spec;

use super::field::{WireError, Within as _, counted, each, keyed, optional, required, text};
use crate::v1;
use baton_model::id::{ReleaseNumber, RolloutId, RouteRevision, TableRevision};
use baton_model::route::{Condition, Key, Mirror, Route, RouteTable, Rule, Split, Upstream, Weight};

impl From<RouteTable> for v1::RouteTable {
    fn from(table: RouteTable) -> Self {
        let routes = table.routes.into_iter().map(|(service, route)| (service.into(), route.into()));
        Self { revision: table.revision.0, routes: routes.collect() }
    }
}

impl TryFrom<v1::RouteTable> for RouteTable {
    type Error = WireError;
    fn try_from(wire: v1::RouteTable) -> Result<Self, WireError> {
        Ok(Self { revision: TableRevision(wire.revision), routes: keyed("routes", wire.routes)? })
    }
}

impl From<Route> for v1::Route {
    fn from(route: Route) -> Self {
        let upstreams = route.upstreams.into_iter().map(|(id, upstream)| (id.into(), upstream.into()));
        Self {
            revision: route.revision.0,
            spec: Some(route.spec.into()),
            split: Some(route.split.into()),
            rules: route.rules.into_iter().map(Into::into).collect(),
            mirror: route.mirror.map(Into::into),
            held: route.held,
            trial: route.trial.map(Into::into),
            upstreams: upstreams.collect(),
        }
    }
}

impl TryFrom<v1::Route> for Route {
    type Error = WireError;
    fn try_from(wire: v1::Route) -> Result<Self, WireError> {
        Ok(Self {
            revision: RouteRevision(counted("revision", wire.revision)?),
            spec: required("spec", wire.spec)?,
            split: required("split", wire.split)?,
            rules: each("rules", wire.rules)?,
            mirror: optional("mirror", wire.mirror)?,
            held: wire.held,
            trial: optional("trial", wire.trial)?,
            upstreams: keyed("upstreams", wire.upstreams)?,
        })
    }
}

impl From<Upstream> for v1::Upstream {
    fn from(upstream: Upstream) -> Self {
        Self { release: upstream.release.0, address: upstream.address.to_string(), zone: upstream.zone }
    }
}

impl TryFrom<v1::Upstream> for Upstream {
    type Error = WireError;
    fn try_from(wire: v1::Upstream) -> Result<Self, WireError> {
        Ok(Self {
            release: ReleaseNumber(counted("release", wire.release)?),
            address: text("address", &wire.address)?,
            zone: wire.zone,
        })
    }
}

impl From<Split> for v1::Split {
    fn from(split: Split) -> Self {
        let weights = split.weights.into_iter().map(|(release, weight)| (release.0, weight.0.into()));
        Self { weights: weights.collect() }
    }
}

impl TryFrom<v1::Split> for Split {
    type Error = WireError;
    /// Refuses shares that are neither none nor all of the requests together.
    fn try_from(wire: v1::Split) -> Result<Self, WireError> {
        let sum: u64 = wire.weights.values().map(|weight| u64::from(*weight)).sum();
        if !wire.weights.is_empty() && sum != u64::from(Weight::ALL.0) {
            let problem = format!("the weights add up to {sum}, not to {}", Weight::ALL.0);
            return Err(WireError::new("weights", problem));
        }
        let one = |(release, share)| {
            let field = format!("weights[{release}]");
            Ok((ReleaseNumber(counted(&field, release)?), weight(&field, share)?))
        };
        Ok(Self { weights: wire.weights.into_iter().map(one).collect::<Result<_, WireError>>()? })
    }
}

/// A share of requests in hundredths of a percent.
pub(super) fn weight(field: &str, wire: u32) -> Result<Weight, WireError> {
    let share = u16::try_from(wire).ok().map(Weight).filter(|weight| *weight <= Weight::ALL);
    share.ok_or_else(|| {
        WireError::new(
            field,
            format!("{wire} is no share in hundredths of a percent: 0 to {}", Weight::ALL.0),
        )
    })
}

impl From<Rule> for v1::Rule {
    fn from(rule: Rule) -> Self {
        Self { conditions: rule.conditions.into_iter().map(Into::into).collect(), to: rule.to.0 }
    }
}

impl TryFrom<v1::Rule> for Rule {
    type Error = WireError;
    fn try_from(wire: v1::Rule) -> Result<Self, WireError> {
        Ok(Self {
            conditions: each("conditions", wire.conditions)?,
            to: ReleaseNumber(counted("to", wire.to)?),
        })
    }
}

impl From<Condition> for v1::Condition {
    fn from(condition: Condition) -> Self {
        use v1::condition::Kind;
        let kind = match condition {
            Condition::Is { key, value } => Kind::Is(v1::KeyIs { key: Some(key.into()), value }),
            Condition::Path { prefix } => Kind::PathPrefix(prefix),
            Condition::Host { name } => Kind::Host(name),
            Condition::Share { key, share, test } => {
                Kind::Share(v1::KeyShare { key: Some(key.into()), share: share.0.into(), test: test.0 })
            }
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::Condition> for Condition {
    type Error = WireError;
    fn try_from(wire: v1::Condition) -> Result<Self, WireError> {
        use v1::condition::Kind;
        Ok(match wire.kind.ok_or_else(|| WireError::unset("kind"))? {
            Kind::Is(is) => Self::Is { key: required("key", is.key).within("is")?, value: is.value },
            Kind::PathPrefix(prefix) => Self::Path { prefix: path("path_prefix", prefix)? },
            Kind::Host(name) => Self::Host { name: filled("host", name)? },
            Kind::Share(part) => Self::Share {
                key: required("key", part.key).within("share")?,
                share: weight("share.share", part.share)?,
                test: RolloutId(part.test),
            },
        })
    }
}

impl From<Key> for v1::Key {
    fn from(key: Key) -> Self {
        use v1::key::Kind;
        let kind = match key {
            Key::Address => Kind::Address(true),
            Key::Header(name) => Kind::Header(name),
            Key::Cookie(name) => Kind::Cookie(name),
            Key::Query(name) => Kind::Query(name),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::Key> for Key {
    type Error = WireError;
    fn try_from(wire: v1::Key) -> Result<Self, WireError> {
        use v1::key::Kind;
        Ok(match wire.kind {
            Some(Kind::Address(true)) => Self::Address,
            Some(Kind::Header(name)) => Self::Header(filled("header", name)?),
            Some(Kind::Cookie(name)) => Self::Cookie(filled("cookie", name)?),
            Some(Kind::Query(name)) => Self::Query(filled("query", name)?),
            Some(Kind::Address(false)) | None => return Err(WireError::unset("kind")),
        })
    }
}

impl From<Mirror> for v1::Mirror {
    fn from(mirror: Mirror) -> Self {
        Self {
            to: mirror.to.0,
            share: mirror.share.0.into(),
            body_bytes_max: mirror.body_bytes_max,
            in_flight_max: mirror.in_flight_max,
            unsafe_methods: mirror.unsafe_methods,
            compare_bodies: mirror.compare_bodies,
        }
    }
}

impl TryFrom<v1::Mirror> for Mirror {
    type Error = WireError;
    fn try_from(wire: v1::Mirror) -> Result<Self, WireError> {
        Ok(Self {
            to: ReleaseNumber(counted("to", wire.to)?),
            share: weight("share", wire.share)?,
            body_bytes_max: wire.body_bytes_max,
            in_flight_max: wire.in_flight_max,
            unsafe_methods: wire.unsafe_methods,
            compare_bodies: wire.compare_bodies,
        })
    }
}

/// The beginning of a path.
fn path(field: &str, wire: String) -> Result<String, WireError> {
    if wire.starts_with('/') {
        return Ok(wire);
    }
    Err(WireError::new(field, format!("{wire:?} does not begin with `/`")))
}

/// A text that says something.
pub(super) fn filled(field: &str, wire: String) -> Result<String, WireError> {
    if wire.is_empty() {
        return Err(WireError::new(field, "it is empty"));
    }
    Ok(wire)
}
