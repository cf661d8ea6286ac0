//! What a service says of its route.

use super::{filled, path, weight};
use crate::convert::field::{WireError, Within as _, choice, optional, pace, port, required, text};
use crate::v1;
use baton_model::route::{
    Balance, Ejection, Entry, HttpProtocol, Retries, RouteSpec, Timeouts, TrafficCheck, TrafficLimits,
};
use baton_model::time::Millis;

impl From<RouteSpec> for v1::RouteSpec {
    fn from(spec: RouteSpec) -> Self {
        Self {
            entry: Some(entry_to_wire(spec.entry)),
            port: spec.port.into(),
            balance: Some(spec.balance.into()),
            split_by: Some(spec.split_by.into()),
            sticky_cookie: spec.sticky_cookie,
            timeouts: Some(spec.timeouts.into()),
            retries: Some(spec.retries.into()),
            limits: Some(spec.limits.into()),
            check: spec.check.map(Into::into),
            ejection: Some(spec.ejection.into()),
            slow_start_ms: spec.slow_start.0,
            zone_spill_below: spec.zone_spill_below.0.into(),
        }
    }
}

impl TryFrom<v1::RouteSpec> for RouteSpec {
    type Error = WireError;
    fn try_from(wire: v1::RouteSpec) -> Result<Self, WireError> {
        Ok(Self {
            entry: entry(wire.entry)?,
            port: text("port", &wire.port)?,
            balance: required("balance", wire.balance)?,
            split_by: required("split_by", wire.split_by)?,
            sticky_cookie: wire.sticky_cookie.map(|name| filled("sticky_cookie", name)).transpose()?,
            timeouts: wire.timeouts.map(Into::into).ok_or_else(|| WireError::missing("timeouts"))?,
            retries: wire.retries.map(Into::into).ok_or_else(|| WireError::missing("retries"))?,
            limits: wire.limits.map(Into::into).ok_or_else(|| WireError::missing("limits"))?,
            check: optional("check", wire.check)?,
            ejection: required("ejection", wire.ejection)?,
            slow_start: Millis(wire.slow_start_ms),
            zone_spill_below: weight("zone_spill_below", wire.zone_spill_below)?,
        })
    }
}

fn entry_to_wire(entry: Entry) -> v1::route_spec::Entry {
    match entry {
        Entry::Http { hosts, path, protocol } => {
            let protocol = match protocol {
                HttpProtocol::Http1 => v1::HttpProtocol::Http1,
                HttpProtocol::Http2 => v1::HttpProtocol::Http2,
            };
            v1::route_spec::Entry::Http(v1::HttpEntry { hosts, path, protocol: protocol.into() })
        }
        Entry::Tcp { listen } => v1::route_spec::Entry::Tcp(v1::TcpEntry { listen: listen.into() }),
    }
}

fn entry(wire: Option<v1::route_spec::Entry>) -> Result<Entry, WireError> {
    match wire.ok_or_else(|| WireError::unset("entry"))? {
        v1::route_spec::Entry::Http(http) => Ok(Entry::Http {
            hosts: http.hosts,
            path: path("http.path", http.path)?,
            protocol: match choice("http.protocol", http.protocol)? {
                v1::HttpProtocol::Unspecified => return Err(WireError::unset("http.protocol")),
                v1::HttpProtocol::Http1 => HttpProtocol::Http1,
                v1::HttpProtocol::Http2 => HttpProtocol::Http2,
            },
        }),
        v1::route_spec::Entry::Tcp(tcp) => Ok(Entry::Tcp { listen: port("tcp.listen", tcp.listen)? }),
    }
}

impl From<Balance> for v1::Balance {
    fn from(balance: Balance) -> Self {
        use v1::balance::Kind;
        let kind = match balance {
            Balance::LeastLoaded => Kind::LeastLoaded(true),
            Balance::RoundRobin => Kind::RoundRobin(true),
            Balance::Hash(key) => Kind::Hash(key.into()),
        };
        Self { kind: Some(kind) }
    }
}

impl TryFrom<v1::Balance> for Balance {
    type Error = WireError;
    fn try_from(wire: v1::Balance) -> Result<Self, WireError> {
        use v1::balance::Kind;
        Ok(match wire.kind {
            Some(Kind::LeastLoaded(true)) => Self::LeastLoaded,
            Some(Kind::RoundRobin(true)) => Self::RoundRobin,
            Some(Kind::Hash(key)) => Self::Hash(key.try_into().within("hash")?),
            Some(Kind::LeastLoaded(false) | Kind::RoundRobin(false)) | None => {
                return Err(WireError::unset("kind"));
            }
        })
    }
}

impl From<Timeouts> for v1::Timeouts {
    fn from(timeouts: Timeouts) -> Self {
        Self { connect_ms: timeouts.connect.0, response_ms: timeouts.response.0, idle_ms: timeouts.idle.0 }
    }
}

impl From<v1::Timeouts> for Timeouts {
    fn from(wire: v1::Timeouts) -> Self {
        Self {
            connect: Millis(wire.connect_ms),
            response: Millis(wire.response_ms),
            idle: Millis(wire.idle_ms),
        }
    }
}

impl From<Retries> for v1::Retries {
    fn from(retries: Retries) -> Self {
        Self {
            attempts: retries.attempts,
            budget_percent: retries.budget_percent,
            hedge_after_ms: retries.hedge_after.0,
        }
    }
}

impl From<v1::Retries> for Retries {
    fn from(wire: v1::Retries) -> Self {
        Self {
            attempts: wire.attempts,
            budget_percent: wire.budget_percent,
            hedge_after: Millis(wire.hedge_after_ms),
        }
    }
}

impl From<TrafficLimits> for v1::TrafficLimits {
    fn from(limits: TrafficLimits) -> Self {
        Self {
            body_bytes_max: limits.body_bytes_max,
            in_flight_max: limits.in_flight_max,
            queue_max: limits.queue_max,
            queue_timeout_ms: limits.queue_timeout.0,
        }
    }
}

impl From<v1::TrafficLimits> for TrafficLimits {
    fn from(wire: v1::TrafficLimits) -> Self {
        Self {
            body_bytes_max: wire.body_bytes_max,
            in_flight_max: wire.in_flight_max,
            queue_max: wire.queue_max,
            queue_timeout: Millis(wire.queue_timeout_ms),
        }
    }
}

impl From<TrafficCheck> for v1::TrafficCheck {
    fn from(check: TrafficCheck) -> Self {
        Self {
            path: check.path,
            interval_ms: check.interval.0,
            timeout_ms: check.timeout.0,
            rise: check.rise,
            fall: check.fall,
        }
    }
}

impl TryFrom<v1::TrafficCheck> for TrafficCheck {
    type Error = WireError;
    fn try_from(wire: v1::TrafficCheck) -> Result<Self, WireError> {
        pace(wire.interval_ms, wire.timeout_ms, wire.rise, wire.fall)?;
        Ok(Self {
            path: path("path", wire.path)?,
            interval: Millis(wire.interval_ms),
            timeout: Millis(wire.timeout_ms),
            rise: wire.rise,
            fall: wire.fall,
        })
    }
}

impl From<Ejection> for v1::Ejection {
    fn from(ejection: Ejection) -> Self {
        Self { failures: ejection.failures, base_ms: ejection.base.0, share_max: ejection.share_max.0.into() }
    }
}

impl TryFrom<v1::Ejection> for Ejection {
    type Error = WireError;
    fn try_from(wire: v1::Ejection) -> Result<Self, WireError> {
        Ok(Self {
            failures: wire.failures,
            base: Millis(wire.base_ms),
            share_max: weight("share_max", wire.share_max)?,
        })
    }
}
