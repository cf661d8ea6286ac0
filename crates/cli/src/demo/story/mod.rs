//! What the demo does, phase by phase. [`foundation`] shows processes: a rolling deploy, healing, a release that
//! fails its check. [`strategies`] shows traffic: canaries, a switch and the way back, a dark launch.

mod follow;
mod foundation;
mod strategies;

use super::board::Board;
use super::load::{Load, LoadOptions, Side};
use super::receipt::{self, PhaseDone};
use super::site::{self, Site, Version};
use crate::api::Api;
use crate::dev::Cluster;
use crate::pack::{Packed, ProgressLine, upload};
use crate::release;
use crate::show;
use anyhow::{Context as _, Result};
use baton_model::id::{InstanceId, RolloutId};
use baton_model::observed::InstanceState;
use baton_model::receipt::Receipt;
use baton_model::report::RolloutReport;
use baton_model::rollout::RolloutOutcome;
use baton_model::status::ServiceStatus;
use baton_proto::v1::operator_service_client::OperatorServiceClient;
use follow::Followed;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tonic::transport::Channel;

/// How long the load runs alone, as what to compare with.
const STEADY: Duration = Duration::from_secs(3);
/// How long the load runs on after each fault, to see what comes after.
const AFTERMATH: Duration = Duration::from_millis(1500);
/// A rollout of the demo ends well within this.
const ROLLOUT_LIMIT: Duration = Duration::from_secs(180);
/// A fault is over well within this.
const RECOVERY_LIMIT: Duration = Duration::from_secs(30);
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(2);
/// Once a release has answered nobody for this long, all traffic has left it.
const QUIET: Duration = Duration::from_secs(1);

/// What all phases share.
pub(super) struct Story<'a> {
    cluster: &'a Cluster,
    board: &'a Board,
    client: OperatorServiceClient<Channel>,
    rate: u32,
    /// The artifacts that were packed so far, by their names.
    packed: Mutex<BTreeMap<&'static str, Arc<Packed>>>,
    done: Vec<PhaseDone>,
}

/// A phase under way.
struct Phase {
    name: &'static str,
    title: String,
    began: Instant,
    /// Its place among the load's phases.
    tally: Option<usize>,
    trouble: Option<String>,
    note: String,
    bad: Option<Side>,
    measured: BTreeMap<String, f64>,
}

impl Phase {
    /// Checks something that must be so.
    fn must(&mut self, so: bool, trouble: impl FnOnce() -> String) {
        if !so && self.trouble.is_none() {
            self.trouble = Some(trouble());
        }
    }

    fn measure(&mut self, name: &str, length: Duration) {
        self.measured.insert(name.to_owned(), length.as_secs_f64() * 1000.0);
    }

    #[allow(clippy::cast_precision_loss, reason = "counts of a minute")]
    fn count(&mut self, name: &str, count: u64) {
        self.measured.insert(name.to_owned(), count as f64);
    }
}

impl<'a> Story<'a> {
    /// A story about this cluster, told to this board.
    pub(super) fn new(
        cluster: &'a Cluster,
        board: &'a Board,
        client: OperatorServiceClient<Channel>,
        rate: u32,
    ) -> Self {
        Self { cluster, board, client, rate, packed: Mutex::default(), done: Vec::new() }
    }

    /// Goes through all phases and gives the receipt.
    pub(super) async fn tell(mut self) -> Result<Receipt> {
        self.first().await?;
        let load = Load::start(LoadOptions {
            gateways: self.cluster.gateways.iter().map(|gateway| gateway.http).collect(),
            services: Site::ALL.map(Site::asked).to_vec(),
            rate: self.rate,
        });
        self.board.meter(load.meter());
        self.steady(&load).await?;
        self.roll(&load).await?;
        self.kill_instance(&load).await?;
        self.kill_agent(&load).await?;
        self.failed_check(&load).await?;
        self.good_canary(&load).await?;
        self.bad_canary(&load, &strategies::ERRORS).await?;
        self.bad_canary(&load, &strategies::SLOW).await?;
        self.switch(&load).await?;
        self.switch_back(&load).await?;
        self.dark_launch(&load).await?;
        let counted = load.finish().await;
        let title = format!(
            "baton demo: {} nodes, {} gateways, {} requests a second",
            self.cluster.nodes.len(),
            self.cluster.gateways.len(),
            show::thousands(self.rate.into())
        );
        Ok(receipt::receipt(title, self.done, &counted))
    }

    fn packed(&self) -> MutexGuard<'_, BTreeMap<&'static str, Arc<Packed>>> {
        self.packed.lock().expect("no code that holds the artifacts panics")
    }

    fn api(&self) -> Api {
        Api::new(self.client.clone())
    }

    /// Begins a phase about a service.
    fn begin(&self, name: &'static str, title: String, site: Site, load: Option<&Load>) -> Phase {
        let tally = load.map(Load::begin_phase);
        self.board.begin(&title, site, tally);
        Phase {
            name,
            title,
            began: Instant::now(),
            tally,
            trouble: None,
            note: String::new(),
            bad: None,
            measured: BTreeMap::new(),
        }
    }

    fn end(&mut self, phase: Phase) {
        if let Some(said) = phase.trouble.as_ref().or(Some(&phase.note)).filter(|said| !said.is_empty()) {
            self.board.note(said);
        }
        self.board.end(phase.trouble.is_none());
        self.done.push(PhaseDone {
            name: phase.name,
            title: phase.title,
            trouble: phase.trouble,
            note: phase.note,
            took: phase.began.elapsed(),
            bad: phase.bad,
            measured: phase.measured,
            tally: phase.tally,
        });
    }

    /// Asks for a version as `baton deploy` does.
    async fn ask_for(&self, version: Version) -> Result<RolloutId> {
        let (dir, replicas) = (site::folder(&self.cluster.dir), u8::try_from(self.cluster.nodes.len())?);
        let known = self.packed().get(version.artifact).cloned();
        let prepared = tokio::task::spawn_blocking(move || version.prepare(&dir, replicas, known));
        let (source, packed) = prepared.await??;
        self.packed().insert(version.artifact, packed.clone());
        let mut client = self.client.clone();
        upload(&mut client, &packed, ProgressLine::Silent).await?;
        let request = release::request(&source, &packed, &version.name.parse()?);
        Ok(RolloutId(client.deploy(request).await?.into_inner().rollout))
    }

    /// Deploys a version and follows its rollout to the end, or until it waits for an operator: nobody will come.
    async fn release(&self, version: Version, load: Option<&Load>) -> Result<Followed> {
        let rollout = self.ask_for(version).await?;
        let stands = |outcome: RolloutOutcome| outcome.is_final() || outcome == RolloutOutcome::Paused;
        self.follow(version, rollout, load, |_, rollout| stands(rollout.outcome)).await
    }

    async fn status(&self, site: Site) -> Result<ServiceStatus> {
        let status = self.api().service(&site.service()?).await?;
        self.board.status(status.clone());
        Ok(status)
    }

    /// Checks that every instance of the service is ready at this version, and that there is no further one; a
    /// moment after a rollout what it left is still being stopped.
    async fn must_be_all_at(&self, phase: &mut Phase, version: Version) -> Result<ServiceStatus> {
        let deadline = Instant::now() + RECOVERY_LIMIT;
        loop {
            let status = self.status(version.site).await?;
            let so = all_at(&status, version);
            if so || Instant::now() > deadline {
                phase.must(so, || format!("not every instance is ready at {}", version.name));
                return Ok(status);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn pid_of_agent(&self, node: usize) -> Result<u32> {
        let name = &self.cluster.nodes[node].name;
        self.cluster.agent(node).pid().with_context(|| format!("the agent of {name} does not run"))
    }
}

/// How a rollout ended that should have ended otherwise.
fn ended(rollout: &RolloutReport) -> String {
    let (_, word) = crate::live::outcome(rollout.outcome);
    format!("the rollout to {} ended as {word}: {}", rollout.to_version, rollout.reason)
}

fn all_at(status: &ServiceStatus, version: Version) -> bool {
    status.report.ready == status.report.wanted
        && status.instances.len() == usize::try_from(status.report.wanted).unwrap_or(usize::MAX)
        && status.instances.iter().all(|instance| {
            let observed = instance.observed.as_ref();
            observed.is_some_and(|it| {
                it.state == InstanceState::Ready && crate::live::version(status, it.release) == version.name
            })
        })
}

fn pids(status: &ServiceStatus) -> BTreeMap<InstanceId, Option<u32>> {
    status
        .instances
        .iter()
        .map(|it| (it.id.clone(), it.observed.as_ref().and_then(|observed| observed.pid)))
        .collect()
}

/// Looks until there is something, at most `limit` long.
async fn wait_for<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return Some(found);
        }
        if Instant::now() >= deadline {
            return None;
        }
        tokio::time::sleep(POLL).await;
    }
}
