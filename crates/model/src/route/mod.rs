//! What gateways do with the requests for a service: where they come in, how they are split among releases, and which
//! running instances may be sent them.
//!
//! The engine makes a [`Route`] for each service that has one; the coordinator sends all of them as one whole
//! [`RouteTable`]; a gateway takes a table in at once, acknowledges each route's revision, and keeps it on disk.

pub mod contradiction;
mod text;

pub use text::{CONDITION_FORMS, KEY_FORMS, RouteTextError, WEIGHT_FORMS, is_host, is_path};

use crate::id::{InstanceId, ReleaseNumber, RouteRevision, RunNumber, ServiceName, TableRevision};
use crate::time::Millis;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;

/// Everything a gateway does: the complete table. A gateway refuses one with a lower revision than it has.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    /// Only grows.
    pub revision: TableRevision,
    /// The routes, by service.
    pub routes: BTreeMap<ServiceName, Route>,
}

/// What gateways do with the requests for one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Route {
    /// Grows whenever anything else here changes; this is what a gateway acknowledges.
    pub revision: RouteRevision,
    /// Which requests are its, and how they are treated: from the release in charge.
    pub spec: RouteSpec,
    /// How requests that no rule decides are shared among releases.
    pub split: Split,
    /// Requests that go to a release whatever the split says; the first rule that matches decides.
    pub rules: Vec<Rule>,
    /// Copies of requests to another release.
    pub mirror: Option<Mirror>,
    /// New requests wait, bounded in number and time by the spec's queue, until this is taken back: a planned switch.
    pub held: bool,
    /// Two releases that are compared: what becomes of their requests is counted apart.
    #[serde(default)]
    pub trial: Option<Trial>,
    /// The running instances that may be sent requests.
    pub upstreams: BTreeMap<UpstreamId, Upstream>,
}

/// One run of an instance. A swap inside an instance changes its run, and so its connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct UpstreamId {
    /// The instance.
    pub instance: InstanceId,
    /// Its run on the node.
    pub run: RunNumber,
}

/// Where a run of an instance is reached.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Upstream {
    /// The release it runs.
    pub release: ReleaseNumber,
    /// Address and port.
    pub address: SocketAddr,
    /// The zone of its node, where it has the label.
    pub zone: Option<String>,
}

/// A share in hundredths of a percent: 10,000 is everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Weight(pub u16);

impl Weight {
    /// Every request.
    pub const ALL: Self = Self(10_000);
    /// No request.
    pub const NONE: Self = Self(0);

    /// What is left of everything.
    #[must_use]
    pub const fn rest(self) -> Self {
        Self(Self::ALL.0.saturating_sub(self.0))
    }
}

/// The shares of the releases, which add up to [`Weight::ALL`] unless the split is empty.
///
/// A key's hash falls on a point from 0 to 9,999; the shares lie one after the other in the order of the release
/// numbers. While one of two shares grows, only their border moves: no client moves that need not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Split {
    /// Share by release; a release that is not named gets nothing.
    pub weights: BTreeMap<ReleaseNumber, Weight>,
}

/// Requests that go to one release whatever the split says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// All of these must hold.
    pub conditions: Vec<Condition>,
    /// The release that gets them.
    pub to: ReleaseNumber,
}

/// A question about a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Condition {
    /// The value of a key is this one, or any where none is given.
    Is {
        /// What is looked at.
        key: Key,
        /// The value; `None` asks only whether it is there.
        value: Option<String>,
    },
    /// The path begins with this, whole segments counted.
    Path {
        /// The beginning, starting with `/`.
        prefix: String,
    },
    /// The request's host is this one.
    Host {
        /// A name, without a port.
        name: String,
    },
    /// The hash of a key falls into the first share of all hashes; a request without the key does not match.
    Share {
        /// What is hashed.
        key: Key,
        /// How much of all hashes.
        share: Weight,
        /// The rollout whose test it is: hashes for two of them have nothing to do with each other, so that who was in the
        /// one is no more likely than others to be in the next. 0: that of no rollout, as it was before they had one.
        #[serde(default)]
        test: crate::id::RolloutId,
    },
}

/// Something of a request that tells clients apart.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "name")]
pub enum Key {
    /// The client's IP address.
    Address,
    /// A request header; its name in lower case.
    Header(String),
    /// A cookie.
    Cookie(String),
    /// A parameter of the query.
    Query(String),
}

/// Copies of requests to a release that serves nobody: its answers are compared and thrown away.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// The release that gets the copies.
    pub to: ReleaseNumber,
    /// How many of the requests are copied.
    pub share: Weight,
    /// Requests with a larger body are not copied, and counted.
    pub body_bytes_max: u64,
    /// Copies in flight at a time per gateway; what is over it is not copied, and counted.
    pub in_flight_max: u32,
    /// Copy methods that are not safe in the sense of RFC 9110, 9.2.1, too.
    pub unsafe_methods: bool,
    /// Compare the bodies of the two answers.
    pub compare_bodies: bool,
}

/// Two releases that are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The rollout that compares them: counts go on for as long as this stays.
    pub rollout: crate::id::RolloutId,
    /// The release before.
    pub control: ReleaseNumber,
    /// The new one.
    pub treatment: ReleaseNumber,
    /// By what.
    pub between: Between,
}

/// By what two releases are compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Between {
    /// By what becomes of the requests of two groups of clients.
    Clients {
        /// What tells clients apart; a request without it takes no part.
        key: Key,
        /// How many of them get the new release: those that [`Condition::Share`] of this share and test takes.
        share: Weight,
        /// See [`Condition::Share`].
        #[serde(default)]
        test: crate::id::RolloutId,
    },
    /// By their answers to the same requests: those that the mirror copies.
    Copies,
}

/// Which requests belong to a service, and how they are treated. From its file's `[route]`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteSpec {
    /// Where requests come in.
    pub entry: Entry,
    /// The port of the service that is sent them.
    pub port: crate::id::PortName,
    /// How one of several instances is chosen.
    pub balance: Balance,
    /// What the split hashes; a request without it is sent by chance.
    pub split_by: Key,
    /// The cookie by which a client stays with its release, where one is wanted.
    pub sticky_cookie: Option<String>,
    /// Time limits.
    pub timeouts: Timeouts,
    /// Repeating what is safe to repeat.
    pub retries: Retries,
    /// What is refused or waits.
    pub limits: TrafficLimits,
    /// The gateway's own check of each instance; `None` checks by a connection.
    pub check: Option<TrafficCheck>,
    /// When an instance that fails is left out.
    pub ejection: Ejection,
    /// An instance that is new or comes back gets its full share only after this long.
    pub slow_start: Millis,
    /// Instances of the gateway's own zone get everything while at least this share of them is well.
    pub zone_spill_below: Weight,
}

/// Where requests come in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum Entry {
    /// HTTP on the gateway's HTTP and HTTPS listeners.
    Http {
        /// Names, `*.name` for every name below; empty takes every host that no other route names.
        hosts: Vec<String>,
        /// The path begins with this, whole segments counted. The longest of several routes wins.
        path: String,
        /// What the instances speak.
        protocol: HttpProtocol,
    },
    /// Connections to a TCP port of the gateways, byte by byte.
    Tcp {
        /// The port that gateways listen on.
        listen: u16,
    },
}

/// What instances speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum HttpProtocol {
    /// HTTP/1.1, and WebSockets by its upgrade.
    Http1,
    /// HTTP/2 with prior knowledge: gRPC.
    Http2,
}

/// How one of several instances of a release is chosen.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind", content = "key")]
pub enum Balance {
    /// The less loaded of two drawn by chance (Mitzenmacher, "The Power of Two Choices in Randomized Load
    /// Balancing", 2001).
    LeastLoaded,
    /// One after the other.
    RoundRobin,
    /// By rendezvous hashing of a key: an instance that comes or goes moves only its own share (Thaler and
    /// Ravishankar, 1998).
    Hash(Key),
}

/// Time limits of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timeouts {
    /// To open a connection to an instance.
    pub connect: Millis,
    /// From the request's end to the head of the answer.
    pub response: Millis,
    /// Between two pieces of a body, and of a WebSocket or TCP connection, in either direction.
    pub idle: Millis,
}

/// Repeating a request at another instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retries {
    /// Attempts after the first.
    pub attempts: u32,
    /// Retries in percent of the requests of the last ten seconds, and at least ten unless this is 0; more are not made,
    /// so that trouble is not doubled.
    pub budget_percent: u32,
    /// An idempotent request that has no answer after this long is sent to a second instance too, and the first answer
    /// counts (Dean and Barroso, "The Tail at Scale", 2013). Zero hedges nothing.
    pub hedge_after: Millis,
}

/// What is refused, and what waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficLimits {
    /// Requests with a larger body are answered 413.
    pub body_bytes_max: u64,
    /// Requests in flight to one instance.
    pub in_flight_max: u32,
    /// Requests that wait for an instance at one gateway; more are answered 503.
    pub queue_max: u32,
    /// The longest wait; then 503.
    pub queue_timeout: Millis,
}

/// The gateway's own check of an instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficCheck {
    /// `GET` this; 200 to 399 passes.
    pub path: String,
    /// From the start of one to the start of the next.
    pub interval: Millis,
    /// One that takes longer has failed.
    pub timeout: Millis,
    /// Successes in a row after which it is sent requests again.
    pub rise: u32,
    /// Failures in a row after which it is not.
    pub fall: u32,
}

/// When an instance that fails is left out (outlier detection).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ejection {
    /// Failures in a row (no connection, no answer in time, 502 to 504) after which it is left out; 0 never does.
    pub failures: u32,
    /// For how long the first time; each time again is this much longer.
    pub base: Millis,
    /// At most this share of a release's instances at a time.
    pub share_max: Weight,
}

impl Route {
    /// What each release gets of the requests, by the split and by the rules that ask for nothing but a share of a key: as if
    /// each request had the key. Who else gets one by a rule is not known beforehand.
    #[must_use]
    pub fn shares(&self) -> BTreeMap<ReleaseNumber, Weight> {
        let whole = u64::from(Weight::ALL.0);
        let mut ruled: BTreeMap<ReleaseNumber, u64> = BTreeMap::new();
        let mut left = whole;
        for rule in self.rules.iter().filter(|rule| rule.plain_share().is_some()) {
            let taken = rule.plain_share().map_or(0, |share| u64::from(share.0)).min(left);
            left -= taken;
            *ruled.entry(rule.to).or_default() += taken;
        }
        let of_split = |weight: Weight| u64::from(weight.0) * left / whole;
        for (release, weight) in &self.split.weights {
            *ruled.entry(*release).or_default() += of_split(*weight);
        }
        let weight = |share: u64| Weight(u16::try_from(share).unwrap_or(Weight::ALL.0));
        ruled.into_iter().map(|(release, share)| (release, weight(share))).collect()
    }
}

impl Rule {
    /// The share of a key that it takes, where it asks for nothing else.
    #[must_use]
    pub fn plain_share(&self) -> Option<Weight> {
        match self.conditions[..] {
            [Condition::Share { share, .. }] => Some(share),
            _ => None,
        }
    }
}

impl fmt::Display for UpstreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&format!("{}/{}", self.instance, self.run))
    }
}

impl std::str::FromStr for UpstreamId {
    type Err = crate::id::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || crate::id::IdError(format!("`{text}` is not a run of an instance: SERVICE.SLOT/RUN"));
        let (instance, run) = text.split_once('/').ok_or_else(bad)?;
        Ok(Self { instance: instance.parse()?, run: RunNumber(run.parse().map_err(|_| bad())?) })
    }
}

impl TryFrom<String> for UpstreamId {
    type Error = crate::id::IdError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<UpstreamId> for String {
    fn from(id: UpstreamId) -> String {
        id.to_string()
    }
}
