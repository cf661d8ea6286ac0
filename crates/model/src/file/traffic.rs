//! Reads `[route]`: how gateways bring requests to the service.

use super::problem::{Fault, type_name};
use super::reader::{Fields, Reader, Section};
use super::suggest::one_of;
use super::{defaults, value};
use crate::id::PortName;
use crate::route::{
    Balance, CONDITION_FORMS, Condition, Ejection, Entry, HttpProtocol, KEY_FORMS, Key, Retries, RouteSpec,
    Timeouts, TrafficCheck, TrafficLimits, WEIGHT_FORMS, Weight,
};
use crate::spec::{Check, Port, PortKind, Probe};
use crate::time::Millis;
use std::collections::BTreeMap;
use std::str::FromStr;
use toml::de::DeValue;

pub(super) const ROUTE: &[&str] = &[
    "port",
    "protocol",
    "hosts",
    "path",
    "listen",
    "balance",
    "hash_by",
    "split_by",
    "sticky_cookie",
    "slow_start",
    "zone_spill_below",
    "timeouts",
    "retries",
    "limits",
    "check",
    "ejection",
];
pub(super) const TIMEOUTS: &[&str] = &["connect", "response", "idle"];
pub(super) const RETRIES: &[&str] = &["attempts", "budget", "hedge_after"];
pub(super) const LIMITS: &[&str] = &["body", "in_flight", "queue", "queue_timeout"];
pub(super) const CHECK: &[&str] = &["path", "interval", "timeout", "rise", "fall"];
pub(super) const EJECTION: &[&str] = &["failures", "base", "share"];

/// Fields of `[route]` that have a meaning only where requests are understood.
const HTTP_ONLY: &[&str] = &["hosts", "path", "split_by", "sticky_cookie", "check"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http(HttpProtocol),
    Tcp,
}

/// What the route takes from the rest of the file.
pub(super) struct Served<'s> {
    /// The ports of the service.
    pub(super) ports: &'s BTreeMap<PortName, Port>,
    /// Its readiness check: what it asks is what gateways ask, too.
    pub(super) readiness: Option<&'s Check>,
}

pub(super) fn route(reader: &mut Reader, top: &Section<'_, '_>, served: &Served<'_>) -> Option<RouteSpec> {
    const PROTOCOLS: &[(&str, Protocol)] = &[
        ("http", Protocol::Http(HttpProtocol::Http1)),
        ("http2", Protocol::Http(HttpProtocol::Http2)),
        ("tcp", Protocol::Tcp),
    ];
    let section = reader.section(top, "route", Fields::Only(ROUTE));
    if !section.is_present() {
        return None;
    }
    let s = &section;
    let port = port(reader, s, served);
    let protocol = reader
        .field(s, "protocol", |v| value::word(v, PROTOCOLS))
        .unwrap_or(Protocol::Http(defaults::ROUTE_PROTOCOL));
    let entry = entry(reader, s, protocol);
    let (split_by, sticky_cookie) = match protocol {
        Protocol::Http(_) => {
            (reader.field(s, "split_by", key), reader.field(s, "sticky_cookie", value::text))
        }
        Protocol::Tcp => (None, None),
    };
    let timeouts = timeouts(reader, s);
    Some(RouteSpec {
        balance: balance(reader, s),
        split_by: split_by.unwrap_or(defaults::ROUTE_SPLIT_BY),
        sticky_cookie,
        timeouts,
        retries: retries(reader, s, protocol, timeouts.response),
        limits: limits(reader, s),
        check: check(reader, s, served, protocol, &port),
        ejection: ejection(reader, s),
        slow_start: reader.field(s, "slow_start", value::duration).unwrap_or(defaults::ROUTE_SLOW_START),
        zone_spill_below: reader
            .field(s, "zone_spill_below", weight)
            .unwrap_or(defaults::ROUTE_ZONE_SPILL_BELOW),
        entry,
        port,
    })
}

/// The port that is sent the requests; where there is one that can be, it need not be named.
fn port(reader: &mut Reader, section: &Section<'_, '_>, served: &Served<'_>) -> PortName {
    if let Some(port) = reader.field(section, "port", super::workload::port_reference) {
        return port;
    }
    let mut usable = served.ports.iter().filter(|(_, port)| takes_tcp(&port.kind)).map(|(name, _)| name);
    if let (Some(only), None) = (usable.next(), usable.next()) {
        return only.clone();
    }
    let names: Vec<&str> = served.ports.keys().map(PortName::as_str).collect();
    let help = match names[..] {
        [] => "declare one: `[ports.http]` with `kind = \"dynamic\"`, and write `port = \"http\"`".to_owned(),
        _ => format!(
            "write `port = ...` with the name of the port that is sent the requests: {}",
            one_of(names)
        ),
    };
    reader.missing(section, "port", &help);
    // The placeholder is never checked: the field is told as missing or as broken.
    PortName::new("unnamed").expect("a valid name")
}

/// Whether a gateway can connect to a port of this kind.
pub(super) fn takes_tcp(kind: &PortKind) -> bool {
    match kind {
        PortKind::Socket { .. } | PortKind::Dynamic | PortKind::Fixed { .. } => true,
        PortKind::Udp { .. } | PortKind::Unix { .. } => false,
    }
}

fn entry(reader: &mut Reader, section: &Section<'_, '_>, protocol: Protocol) -> Entry {
    match protocol {
        Protocol::Http(protocol) => {
            let help =
                "leave it out: HTTP comes in on the gateways' own listeners; or write `protocol = \"tcp\"`";
            refuse(reader, section, "listen", "has a meaning only for `protocol = \"tcp\"`", help);
            Entry::Http {
                hosts: reader.list(section, "hosts", hosts_fault, value::text).unwrap_or_default(),
                path: reader
                    .field(section, "path", value::text)
                    .unwrap_or_else(|| defaults::HTTP_PATH.to_owned()),
                protocol,
            }
        }
        Protocol::Tcp => {
            for field in HTTP_ONLY {
                let what = "has no meaning for `protocol = \"tcp\"`, where requests are not understood";
                refuse(reader, section, field, what, "leave it out, or write `protocol = \"http\"`");
            }
            let help =
                "write `listen = 5432` with the port on which gateways take connections for this service";
            reader.missing(section, "listen", help);
            Entry::Tcp { listen: reader.field(section, "listen", value::port).unwrap_or_default() }
        }
    }
}

fn hosts_fault(written: &DeValue<'_>) -> Fault {
    let example = written.as_str().unwrap_or("shop.example.com");
    Fault::new(
        format!("must be a list of names, not {}", type_name(written)),
        format!("write `hosts = [{example:?}]`"),
    )
}

fn refuse(reader: &mut Reader, section: &Section<'_, '_>, field: &str, what: &str, help: &str) {
    if let Some((_, span)) = section.names().into_iter().find(|(name, _)| *name == field) {
        reader.fault(&format!("{}.{field}", section.path), span, &Fault::new(what, help));
    }
}

fn balance(reader: &mut Reader, section: &Section<'_, '_>) -> Balance {
    #[derive(Clone, Copy)]
    enum Word {
        LeastLoaded,
        RoundRobin,
        Hash,
    }
    const WORDS: &[(&str, Word)] =
        &[("least-loaded", Word::LeastLoaded), ("round-robin", Word::RoundRobin), ("hash", Word::Hash)];
    let word = reader.field(section, "balance", |v| value::word(v, WORDS)).unwrap_or(Word::LeastLoaded);
    let hash_by = reader.field(section, "hash_by", key);
    match word {
        Word::Hash => Balance::Hash(hash_by.unwrap_or(defaults::ROUTE_SPLIT_BY)),
        Word::LeastLoaded | Word::RoundRobin => {
            if !reader.is_broken("route.balance") {
                let help = "write `balance = \"hash\"` beside it, or leave it out";
                refuse(reader, section, "hash_by", "has a meaning only for `balance = \"hash\"`", help);
            }
            if matches!(word, Word::RoundRobin) { Balance::RoundRobin } else { Balance::LeastLoaded }
        }
    }
}

fn timeouts(reader: &mut Reader, route: &Section<'_, '_>) -> Timeouts {
    let section = reader.section(route, "timeouts", Fields::Only(TIMEOUTS));
    let mut read =
        |field: &str, default: Millis| reader.field(&section, field, value::duration).unwrap_or(default);
    Timeouts {
        connect: read("connect", defaults::ROUTE_CONNECT),
        response: read("response", defaults::ROUTE_RESPONSE),
        idle: read("idle", defaults::ROUTE_IDLE),
    }
}

fn retries(reader: &mut Reader, route: &Section<'_, '_>, protocol: Protocol, response: Millis) -> Retries {
    let section = reader.section(route, "retries", Fields::Only(RETRIES));
    let hedge_after = match protocol {
        Protocol::Http(_) => {
            // A default that the request does not live to see would be a contradiction of ours.
            let default = Some(defaults::ROUTE_HEDGE_AFTER).filter(|after| *after < response);
            reader.field(&section, "hedge_after", value::duration).or(default).unwrap_or_default()
        }
        Protocol::Tcp => {
            let what = "has no meaning for `protocol = \"tcp\"`, where a connection cannot be sent twice";
            refuse(reader, &section, "hedge_after", what, "leave it out");
            Millis::ZERO
        }
    };
    Retries {
        attempts: reader.field(&section, "attempts", value::number).unwrap_or(defaults::ROUTE_ATTEMPTS),
        budget_percent: reader
            .field(&section, "budget", whole_percent)
            .unwrap_or(defaults::ROUTE_RETRY_BUDGET_PERCENT),
        hedge_after,
    }
}

fn limits(reader: &mut Reader, route: &Section<'_, '_>) -> TrafficLimits {
    let section = reader.section(route, "limits", Fields::Only(LIMITS));
    TrafficLimits {
        body_bytes_max: reader.field(&section, "body", value::size).unwrap_or(defaults::ROUTE_BODY_BYTES_MAX),
        in_flight_max: reader
            .field(&section, "in_flight", value::number)
            .unwrap_or(defaults::ROUTE_IN_FLIGHT_MAX),
        queue_max: reader.field(&section, "queue", value::number).unwrap_or(defaults::ROUTE_QUEUE_MAX),
        queue_timeout: reader
            .field(&section, "queue_timeout", value::duration)
            .unwrap_or(defaults::ROUTE_QUEUE_TIMEOUT),
    }
}

/// What gateways ask each instance: what is written; else what the readiness check asks of the same port, since that
/// already is this service's word for "well"; else only a connection.
fn check(
    reader: &mut Reader,
    route: &Section<'_, '_>,
    served: &Served<'_>,
    protocol: Protocol,
    port: &PortName,
) -> Option<TrafficCheck> {
    let section = reader.section(route, "check", Fields::Only(CHECK));
    let asked = served.readiness.and_then(|check| match &check.probe {
        // A status of its own may be outside of what a gateway takes as well.
        Probe::Http { port: asked, path, status: None } if asked == port => Some(path.clone()),
        Probe::Http { .. } | Probe::Exec { .. } | Probe::Tcp { .. } | Probe::Grpc { .. } => None,
    });
    match protocol {
        Protocol::Http(HttpProtocol::Http1) if section.is_present() || asked.is_some() => {}
        Protocol::Http(HttpProtocol::Http2) if section.is_present() => {}
        Protocol::Http(_) | Protocol::Tcp => return None,
    }
    let interval =
        reader.field(&section, "interval", value::duration).unwrap_or(defaults::ROUTE_CHECK_INTERVAL);
    let path = reader.field(&section, "path", value::text);
    Some(TrafficCheck {
        path: path.or(asked).unwrap_or_else(|| defaults::HTTP_PATH.to_owned()),
        interval,
        timeout: reader
            .field(&section, "timeout", value::duration)
            .unwrap_or(defaults::ROUTE_CHECK_TIMEOUT.min(interval)),
        rise: reader.field(&section, "rise", value::number).unwrap_or(defaults::ROUTE_CHECK_RISE),
        fall: reader.field(&section, "fall", value::number).unwrap_or(defaults::ROUTE_CHECK_FALL),
    })
}

fn ejection(reader: &mut Reader, route: &Section<'_, '_>) -> Ejection {
    let section = reader.section(route, "ejection", Fields::Only(EJECTION));
    Ejection {
        failures: reader
            .field(&section, "failures", value::number)
            .unwrap_or(defaults::ROUTE_EJECTION_FAILURES),
        base: reader.field(&section, "base", value::duration).unwrap_or(defaults::ROUTE_EJECTION_BASE),
        share_max: reader.field(&section, "share", weight).unwrap_or(defaults::ROUTE_EJECTION_SHARE),
    }
}

/// A share in percent with up to two decimals.
pub(super) fn weight(written: &DeValue<'_>) -> Result<Weight, Fault> {
    match written {
        DeValue::String(text) => parsed(text, "a share", WEIGHT_FORMS),
        DeValue::Integer(number) => {
            Err(Fault::new(format!("is the number {number}, without a unit"), format!("write \"{number}%\"")))
        }
        DeValue::Float(share) => {
            let help = match share.as_str().parse::<f64>().ok().filter(|share| (0.0..=1.0).contains(share)) {
                Some(share) => {
                    format!("write a share in percent: \"{}%\"", (share * 10_000.0).round() / 100.0)
                }
                None => WEIGHT_FORMS.to_owned(),
            };
            Err(Fault::new(format!("is the fraction {share}"), help))
        }
        DeValue::Boolean(_) | DeValue::Datetime(_) | DeValue::Array(_) | DeValue::Table(_) => {
            Err(Fault::new(format!("must be a share, not {}", type_name(written)), WEIGHT_FORMS))
        }
    }
}

/// A share in whole percent.
fn whole_percent(written: &DeValue<'_>) -> Result<u32, Fault> {
    let share = weight(written)?;
    if share.0 % 100 != 0 {
        return Err(Fault::new(format!("is {share}, not a whole percentage"), "write such as \"20%\""));
    }
    Ok(u32::from(share.0 / 100))
}

/// Something of a request that tells clients apart.
pub(super) fn key(written: &DeValue<'_>) -> Result<Key, Fault> {
    parsed(&value::text(written)?, "something of a request that tells clients apart", KEY_FORMS)
}

/// A question about a request.
pub(super) fn condition(written: &DeValue<'_>) -> Result<Condition, Fault> {
    parsed(&value::text(written)?, "a question about a request", CONDITION_FORMS)
}

fn parsed<T: FromStr>(text: &str, what: &str, forms: &str) -> Result<T, Fault> {
    text.parse().map_err(|_| Fault::new(format!("is `{}`, which is not {what}", value::shorten(text)), forms))
}
