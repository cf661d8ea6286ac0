//! What the coordinator answers when it is asked: the nouns above put together, at one moment. Never stored.
//!
//! The CLI prints them as `--json`; their field names are part of its interface.

use crate::configuration::OnChange;
use crate::desired::{Gateway, Node, Release};
use crate::evidence::ServiceEvidence;
use crate::id::{
    GatewayName, Generation, InstanceId, NodeName, ReleaseNumber, RouteRevision, SecretName, ServiceName,
    TableRevision, Version,
};
use crate::metrics::{InstanceMetrics, NodeMetrics};
use crate::observed::{GatewayFacts, GatewayState, InstanceObserved, NodeFacts};
use crate::report::{ServiceReport, StageReport, Waiting};
use crate::route::{Route, Split, Weight};
use crate::time::{Millis, UnixMs};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A service at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceStatus {
    /// Its name.
    pub name: ServiceName,
    /// How it stands, and what it waits for.
    pub report: ServiceReport,
    /// Its instances and where they are.
    pub instances: Vec<PlacedInstance>,
    /// The releases that are kept, oldest first.
    pub releases: Vec<Release>,
    /// What gateways do with its requests, by release; empty without a route.
    #[serde(default)]
    pub traffic: Vec<ReleaseTraffic>,
    /// The webhooks of its verdicts that were tried and not delivered, and are tried again.
    #[serde(default)]
    pub webhooks: Vec<UndeliveredWebhook>,
    /// When this was so.
    pub now: UnixMs,
    /// It is being removed.
    pub removed: bool,
}

/// A verdict of analysis that whoever its threshold names could not be told of yet. No rollout waits for that.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UndeliveredWebhook {
    /// Whom it is for, without what may be secret in the address: `https://hooks.example.com`.
    pub target: String,
    /// The name of the threshold.
    pub threshold: String,
    /// How often it was tried since the coordinator started.
    pub attempts: u32,
    /// Why the last try failed.
    pub reason: String,
    /// When it is tried again.
    pub next_at: UnixMs,
    /// A try that fails after this is the last one.
    pub given_up_after: UnixMs,
}

/// What a release gets of the requests of its service, and what became of them lately.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReleaseTraffic {
    /// The release.
    pub release: ReleaseNumber,
    /// Its version, where it is still kept.
    pub version: Option<Version>,
    /// Its share of the requests, by weights and by rules that ask for nothing but a share of a key.
    pub weight: Weight,
    /// Who gets it beside that: the conditions of each other rule.
    #[serde(default)]
    pub rules: Vec<String>,
    /// Its instances that gateways know.
    pub instances: u32,
    /// How long the rest was counted.
    pub span: Millis,
    /// Tries that ended, with an answer or without, and requests that were diverted.
    pub requests: u64,
    /// Of these, those that were answered 500 to 599, or not at all, or diverted.
    pub errors: u64,
    /// Requests of this release that another one took, since gateways leave all of its instances out.
    #[serde(default)]
    pub diverted: u64,
    /// Its instances that are left out now, at each gateway: they fail, or their checks do.
    #[serde(default)]
    pub left_out: u64,
    /// Requests in flight.
    pub in_flight: u64,
    /// Half of the answers began within this time, in milliseconds.
    pub p50_ms: f64,
    /// All but one in a hundred did.
    pub p99_ms: f64,
    /// Copies sent to it.
    pub mirrored: u64,
    /// Copies that were due and were not made.
    pub unmirrored: u64,
    /// Copies whose answer differed.
    pub differing: u64,
}

/// An instance: what it should be, and what is known of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PlacedInstance {
    /// Its name.
    pub id: InstanceId,
    /// The node it is placed on.
    pub node: NodeName,
    /// The release it should run.
    pub wanted_release: ReleaseNumber,
    /// That release's version.
    pub wanted_version: Version,
    /// Its node is silent, so that what is observed may be old.
    pub node_silent: bool,
    /// What its agent said last; `None` where it has said nothing.
    pub observed: Option<InstanceObserved>,
    /// Its latest sample, where there is one.
    pub metrics: Option<InstanceMetrics>,
}

/// A node at one moment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// The node as its operators see it.
    pub node: Node,
    /// Its agent has a session.
    pub connected: bool,
    /// Its agent has said what runs on it, in the session that it has: what is shown of its instances before is older, and on
    /// a node that never did nothing is placed.
    pub reported: bool,
    /// How long it has been silent, where it is not connected and was heard before.
    pub silent_for: Option<Millis>,
    /// What its agent said of it.
    pub facts: NodeFacts,
    /// The generation of the plan it should have.
    pub plan_generation: Generation,
    /// The generation of the plan it says it has.
    pub acked_generation: Generation,
    /// What is placed on it.
    pub instances: Vec<PlacedInstance>,
    /// Its latest sample, where there is one.
    pub metrics: Option<NodeMetrics>,
    /// When this was so.
    pub now: UnixMs,
}

/// A gateway at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayStatus {
    /// Its name, and since when it has been one.
    #[serde(flatten)]
    pub gateway: Gateway,
    /// It has a session.
    pub connected: bool,
    /// How long it has been silent, where it is not connected and was heard before.
    pub silent_for: Option<Millis>,
    /// What it is.
    pub facts: GatewayFacts,
    /// What it said last of itself.
    pub state: GatewayState,
    /// The table that it should serve by.
    pub table: TableRevision,
    /// When this was so.
    pub now: UnixMs,
}

/// What gateways counted lately, all of them together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// How many gateways reported in the span.
    pub gateways: u64,
    /// How long it is; less than was asked for where nothing is known of before.
    pub span: Millis,
    /// By service.
    pub services: BTreeMap<ServiceName, ServiceTraffic>,
    /// When it ended.
    pub now: UnixMs,
}

/// What was counted of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceTraffic {
    /// The counts.
    pub counted: ServiceEvidence,
    /// The versions of the releases that are kept.
    pub versions: BTreeMap<ReleaseNumber, Version>,
    /// How requests are shared among releases now.
    pub split: Split,
}

/// A route at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteStatus {
    /// Whose route.
    pub service: ServiceName,
    /// What gateways are to do.
    pub route: Route,
    /// The versions of the releases that are kept.
    pub versions: BTreeMap<ReleaseNumber, Version>,
    /// The revision that each connected gateway serves by; `None` where it has no such route.
    pub gateways: BTreeMap<GatewayName, Option<RouteRevision>>,
    /// The connected gateways that have it and cannot serve it: why.
    #[serde(default)]
    pub unserved: BTreeMap<GatewayName, String>,
}

/// What a deploy would do.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeployPlan {
    /// The service does not exist yet.
    pub first: bool,
    /// This very release is already wanted.
    pub unchanged: bool,
    /// What differs from the present release, for people.
    pub changes: Vec<String>,
    /// The stages it would go through.
    pub stages: Vec<StageReport>,
    /// The instances it would place.
    pub new_instances: Vec<PlannedInstance>,
    /// What would wait, or be refused; without what every deploy waits for in passing.
    pub waiting: Vec<Waiting>,
    /// The files and secrets that differ from the present release.
    pub configuration: Vec<ConfigurationChange>,
    /// What each instance would go through; `None` where there is no present release.
    pub change: Option<PlannedChange>,
}

/// What an instance goes through in a change of release.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PlannedChange {
    /// A new process takes the place of the old one.
    Swap,
    /// Its files are written anew, and its process is told as each of them says; it is not restarted.
    Refresh,
}

/// A file or a secret that differs from the present release.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationChange {
    /// Its name in its folder.
    pub name: String,
    /// A secret; a file where not.
    pub secret: bool,
    /// Of a secret: the revision that the present release has.
    pub from_revision: Option<u64>,
    /// Of a secret: the revision that the new release would have.
    pub to_revision: Option<u64>,
    /// Of a file: how its template differs, as a unified diff. Never of a secret.
    pub diff: String,
    /// What its change asks for.
    pub on_change: OnChange,
}

/// A secret at one moment: everything but its values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretStatus {
    /// Its name.
    pub name: SecretName,
    /// The revisions that are kept, oldest first; the last one is given to new releases.
    pub revisions: Vec<SecretRevision>,
    /// When this was so.
    pub now: UnixMs,
}

/// One value of a secret, without the value.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecretRevision {
    /// Counted from 1.
    pub revision: u64,
    /// When it was set.
    pub created_at: UnixMs,
    /// Which operator set it.
    pub created_by: String,
    /// How long the value is.
    pub size_bytes: u64,
    /// The releases that name it: `web 2.0`.
    pub used_by: Vec<String>,
}

/// An instance that a deploy would place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PlannedInstance {
    /// Its name.
    pub instance: InstanceId,
    /// Where it would go.
    pub node: NodeName,
}
