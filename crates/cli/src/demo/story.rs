//! The phases of the demo, in order; each says whether it ended as it must.
//!
//! ```text
//! deploy 1.0 ─► steady load ─► roll to 2.0 ─► kill an instance ─► kill an agent ─► 3.0 fails and is rolled back
//! ```

use super::board::Board;
use super::load::{Load, LoadOptions, RequestNumber};
use super::receipt::{self, PhaseDone};
use super::site::{self, BAD, FIRST, SECOND, Version};
use crate::api::{self, Api, EventQuery};
use crate::dev::Cluster;
use crate::pack::{ProgressLine, upload};
use crate::release;
use anyhow::{Context as _, Result};
use baton_model::id::{InstanceId, RolloutId, ServiceName};
use baton_model::observed::InstanceState;
use baton_model::receipt::Receipt;
use baton_model::report::RolloutReport;
use baton_model::rollout::RolloutOutcome;
use baton_model::status::ServiceStatus;
use baton_proto::v1::operator_service_client::OperatorServiceClient;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio_stream::StreamExt as _;
use tonic::transport::Channel;

/// How long the load runs alone, as what to compare with.
const STEADY: Duration = Duration::from_secs(3);
/// How long the load runs on after each fault, to see what comes after.
const AFTERMATH: Duration = Duration::from_millis(1500);
/// A rollout of the demo ends well within this.
const ROLLOUT_LIMIT: Duration = Duration::from_secs(90);
/// A fault is over well within this.
const RECOVERY_LIMIT: Duration = Duration::from_secs(20);
/// Pause between two looks.
const POLL: Duration = Duration::from_millis(2);
/// The node whose instance is killed, and the one whose agent is.
const KILLED_INSTANCE_NODE: usize = 1;
const KILLED_AGENT_NODE: usize = 0;

/// What all phases share.
pub(super) struct Story<'a> {
    cluster: &'a Cluster,
    board: &'a Board,
    rate: u32,
    service: ServiceName,
    done: Vec<PhaseDone>,
}

/// What a phase found.
#[derive(Default)]
struct Found {
    trouble: Option<String>,
    may_fail: BTreeSet<RequestNumber>,
    measured: BTreeMap<String, f64>,
}

impl Found {
    /// Checks something that must be so.
    fn must(&mut self, so: bool, trouble: impl FnOnce() -> String) {
        if !so && self.trouble.is_none() {
            self.trouble = Some(trouble());
        }
    }

    fn measure(&mut self, name: &str, length: Duration) {
        self.measured.insert(name.to_owned(), length.as_secs_f64() * 1000.0);
    }
}

impl<'a> Story<'a> {
    pub(super) fn new(cluster: &'a Cluster, board: &'a Board, rate: u32) -> Result<Self> {
        Ok(Self { cluster, board, rate, service: ServiceName::new(site::SERVICE)?, done: Vec::new() })
    }

    /// Goes through all phases and gives the receipt.
    pub(super) async fn tell(mut self) -> Result<Receipt> {
        let mut client = self.cluster.operator()?.connect().await?;
        self.first(&mut client).await?;
        let load = Load::start(LoadOptions { targets: self.targets(), rate: self.rate });
        self.board.meter(load.meter());
        self.steady(&load).await?;
        self.roll(&load, &mut client).await?;
        self.kill_instance(&load, &mut client).await?;
        self.kill_agent(&load, &mut client).await?;
        self.bad_release(&mut client).await?;
        let began = load.started;
        let tallies = load.finish().await;
        let title = format!(
            "baton demo: {} nodes, {} requests a second",
            self.cluster.nodes.len(),
            crate::show::thousands(self.rate.into())
        );
        let mut receipt = receipt::receipt(title, self.done, &tallies, began.elapsed());
        only_good_releases_answered(&mut receipt, &tallies);
        Ok(receipt)
    }

    fn targets(&self) -> Vec<SocketAddr> {
        self.cluster.nodes.iter().map(|node| SocketAddr::new(node.address, site::PORT)).collect()
    }

    async fn first(&mut self, client: &mut OperatorServiceClient<Channel>) -> Result<()> {
        let title = format!("deploy {} on every node", FIRST.name);
        self.board.begin(&title);
        let began = Instant::now();
        let rollout = self.release(client, FIRST).await?;
        // Without it there is nothing to go on with.
        anyhow::ensure!(rollout.outcome == RolloutOutcome::Succeeded, ended(&rollout));
        self.close("deploy", title, began, None, Found::default());
        Ok(())
    }

    async fn steady(&mut self, load: &Load) -> Result<()> {
        let title = "steady load, nothing happens".to_owned();
        self.board.begin(&title);
        let began = Instant::now();
        tokio::time::sleep(STEADY).await;
        self.close("steady", title, began, Some(0), Found::default());
        load.next_phase();
        Ok(())
    }

    async fn roll(&mut self, load: &Load, client: &mut OperatorServiceClient<Channel>) -> Result<()> {
        let title = format!("roll to {} in batches", SECOND.name);
        self.board.begin(&title);
        let began = Instant::now();
        let mut found = Found::default();
        let rollout = self.release(client, SECOND).await?;
        found.must(rollout.outcome == RolloutOutcome::Succeeded, || ended(&rollout));
        found
            .measured
            .insert("batches".into(), f64::from(u32::try_from(rollout.stages.len()).unwrap_or(u32::MAX)));
        tokio::time::sleep(AFTERMATH).await;
        let status = self.status(client).await?;
        found.must(all_at(&status, SECOND), || format!("not every instance is ready at {}", SECOND.name));
        self.close("roll", title, began, Some(1), found);
        load.next_phase();
        Ok(())
    }

    /// SIGKILL to a workload: its shim starts it again, and only what was in flight on it may fail.
    async fn kill_instance(
        &mut self,
        load: &Load,
        client: &mut OperatorServiceClient<Channel>,
    ) -> Result<()> {
        let title = "an instance is killed (SIGKILL)".to_owned();
        self.board.begin(&title);
        let began = Instant::now();
        let mut found = Found::default();
        let node = &self.cluster.nodes[KILLED_INSTANCE_NODE];
        let status = self.status(client).await?;
        let victim = status.instances.iter().find(|instance| instance.node.as_str() == node.name);
        let pid = victim
            .and_then(|it| it.observed.as_ref()?.pid)
            .with_context(|| format!("no instance runs on {}", node.name))?;
        load.open_window(KILLED_INSTANCE_NODE);
        let killed = Instant::now();
        self.cluster.kill_and_wait(pid).await?;
        found.may_fail = load.close_window(KILLED_INSTANCE_NODE);
        let again =
            wait_for(RECOVERY_LIMIT, || load.answered(KILLED_INSTANCE_NODE).filter(|(now, _)| *now != pid))
                .await;
        match again {
            Some((new, at)) => {
                found.measure("served_again_after_ms", at.saturating_duration_since(killed));
                self.board.note(&format!("pid {pid} killed, pid {new} serves"));
            }
            None => found.trouble = Some("nothing served there again".into()),
        }
        tokio::time::sleep(AFTERMATH).await;
        let status = self.status(client).await?;
        found.must(all_at(&status, SECOND), || "not every instance is ready again".to_owned());
        self.close("kill-instance", title, began, Some(2), found);
        load.next_phase();
        Ok(())
    }

    /// SIGKILL to an agent: its workloads run on, and the next agent adopts them.
    async fn kill_agent(&mut self, load: &Load, client: &mut OperatorServiceClient<Channel>) -> Result<()> {
        let title = "an agent is killed (SIGKILL)".to_owned();
        self.board.begin(&title);
        let began = Instant::now();
        let mut found = Found::default();
        let node = &self.cluster.nodes[KILLED_AGENT_NODE];
        let before = pids(&self.status(client).await?);
        let query =
            EventQuery { last: 1, follow: true, node: Some(node.name.parse()?), ..EventQuery::default() };
        let mut events = Api::new(client.clone()).events(&query).await?;
        let agent = self.cluster.agent(KILLED_AGENT_NODE);
        let pid = agent.pid().with_context(|| format!("the agent of {} does not run", node.name))?;
        let killed = Instant::now();
        self.cluster.kill_and_wait(pid).await?;
        let new = wait_for(RECOVERY_LIMIT, || agent.pid().filter(|now| *now != pid)).await;
        let restarted = Instant::now();
        let adopted = tokio::time::timeout(RECOVERY_LIMIT, async {
            while let Some(event) = events.next().await {
                let event = api::event(event?)?;
                if event.kind == "adopted" {
                    return Ok(event);
                }
            }
            anyhow::bail!("the stream of events ended")
        });
        match (new, adopted.await) {
            (Some(new), Ok(Ok(event))) => {
                found.measure("agent_down_for_ms", restarted.saturating_duration_since(killed));
                found.measure("told_of_adoption_after_restart_ms", restarted.elapsed());
                if let Some(ms) = event.fields.get("ms").and_then(|ms| ms.parse().ok()) {
                    found.measured.insert("adoption_took_ms".into(), ms);
                }
                self.board.note(&format!("pid {pid} killed, pid {new}: {}", event.message));
            }
            (None, _) => found.trouble = Some("the agent was not started again".into()),
            (Some(_), _) => found.trouble = Some("the new agent did not say that it took over".into()),
        }
        tokio::time::sleep(AFTERMATH).await;
        let status = self.status(client).await?;
        found.must(pids(&status) == before, || "workloads are not the same processes as before".to_owned());
        found.must(all_at(&status, SECOND), || "not every instance is ready".to_owned());
        self.close("kill-agent", title, began, Some(3), found);
        load.next_phase();
        Ok(())
    }

    /// A release that fails its check never answers anybody, and the rollout goes back by itself.
    async fn bad_release(&mut self, client: &mut OperatorServiceClient<Channel>) -> Result<()> {
        let title = format!("{} fails its check; goes back", BAD.name);
        self.board.begin(&title);
        let began = Instant::now();
        let mut found = Found::default();
        let before = pids(&self.status(client).await?);
        let rollout = self.release(client, BAD).await?;
        found.must(rollout.outcome == RolloutOutcome::RolledBack, || ended(&rollout));
        let ended_at = rollout.ended_at.unwrap_or(rollout.started_at);
        found.measure("back_after_ms", ended_at.since(rollout.started_at).duration());
        self.board.note(&rollout.reason);
        tokio::time::sleep(AFTERMATH).await;
        let status = self.status(client).await?;
        found.must(all_at(&status, SECOND), || format!("not every instance is ready at {}", SECOND.name));
        found.must(pids(&status) == before, || "workloads are not the same processes as before".to_owned());
        self.close("bad-release", title, began, Some(4), found);
        Ok(())
    }

    /// Deploys a version as `baton deploy` does, and follows its rollout to the end.
    async fn release(
        &self,
        client: &mut OperatorServiceClient<Channel>,
        version: Version,
    ) -> Result<RolloutReport> {
        let (dir, replicas) = (site::folder(&self.cluster.dir), u8::try_from(self.cluster.nodes.len())?);
        let (source, packed) = tokio::task::spawn_blocking(move || version.prepare(&dir, replicas)).await??;
        upload(client, &packed, ProgressLine::Silent).await?;
        let request = release::request(&source, &packed, &version.name.parse()?);
        let asked = client.deploy(request).await?.into_inner();
        let wanted = RolloutId(asked.rollout);
        let followed = tokio::time::timeout(ROLLOUT_LIMIT, async {
            let mut statuses = Api::new(client.clone()).watch(&self.service).await?;
            while let Some(status) = statuses.next().await {
                let status = api::status(status?)?;
                self.board.status(status.clone());
                if let Some(rollout) =
                    status.report.rollout.filter(|it| it.id == wanted && it.outcome.is_final())
                {
                    return Ok(rollout);
                }
            }
            anyhow::bail!("the stream of changes ended")
        });
        followed.await.with_context(|| {
            format!("the rollout to {} did not end within {} s", version.name, ROLLOUT_LIMIT.as_secs())
        })?
    }

    async fn status(&self, client: &OperatorServiceClient<Channel>) -> Result<ServiceStatus> {
        let status = Api::new(client.clone()).service(&self.service).await?;
        self.board.status(status.clone());
        Ok(status)
    }

    fn close(
        &mut self,
        name: &'static str,
        title: String,
        began: Instant,
        tally: Option<usize>,
        found: Found,
    ) {
        self.board.end(found.trouble.is_none());
        if let Some(trouble) = &found.trouble {
            self.board.note(trouble);
        }
        self.done.push(PhaseDone {
            name,
            title,
            trouble: found.trouble,
            took: began.elapsed(),
            may_fail: found.may_fail,
            measured: found.measured,
            tally,
        });
    }
}

/// How a rollout ended that should have ended otherwise.
fn ended(rollout: &RolloutReport) -> String {
    let (_, word) = crate::live::outcome(rollout.outcome);
    format!("the rollout to {} ended as {word}: {}", rollout.to_version, rollout.reason)
}

fn all_at(status: &ServiceStatus, version: Version) -> bool {
    status.report.ready == status.report.wanted
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

/// The bad release must not have answered one single request.
fn only_good_releases_answered(receipt: &mut Receipt, tallies: &[super::load::PhaseTally]) {
    let bad: u64 = tallies.iter().filter_map(|tally| tally.releases.get(BAD.name)).sum();
    if bad > 0 {
        receipt.ok = false;
        if let Some(phase) = receipt.phases.last_mut() {
            phase.ok = false;
            phase.note = format!("{bad} requests were answered by {}", BAD.name);
        }
    }
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
