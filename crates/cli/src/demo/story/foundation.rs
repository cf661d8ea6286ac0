//! Processes under load: a rolling deploy, an instance and an agent killed, a release that fails its check.

use super::super::load::Load;
use super::super::site::{self, SHOP_1, Site, WEB_1, WEB_2, WEB_3};
use super::{AFTERMATH, RECOVERY_LIMIT, STEADY, Story, ended, pids, wait_for};
use crate::api::{self, EventQuery};
use anyhow::{Context as _, Result};
use baton_model::rollout::RolloutOutcome;
use std::time::Instant;
use tokio_stream::StreamExt as _;

/// The node whose instance is killed, and the one whose agent is.
const KILLED_INSTANCE_NODE: usize = 1;
const KILLED_AGENT_NODE: usize = 0;

impl Story<'_> {
    pub(super) async fn first(&mut self) -> Result<()> {
        let title = format!("deploy {} and {}", WEB_1.title(), SHOP_1.title());
        let phase = self.begin("deploy", title, Site::Web, None);
        let dir = site::folder(&self.cluster.dir);
        tokio::task::spawn_blocking(move || site::make_artifacts(&dir)).await??;
        let (web, shop) = tokio::try_join!(self.release(WEB_1, None), self.release(SHOP_1, None))?;
        for followed in [web, shop] {
            // Without them there is nothing to go on with.
            let rollout = followed.rollout;
            anyhow::ensure!(rollout.outcome == RolloutOutcome::Succeeded, ended(&rollout));
        }
        self.end(phase);
        Ok(())
    }

    pub(super) async fn steady(&mut self, load: &Load) -> Result<()> {
        let phase = self.begin("steady", "steady load, nothing happens".to_owned(), Site::Web, Some(load));
        tokio::time::sleep(STEADY).await;
        self.end(phase);
        Ok(())
    }

    pub(super) async fn roll(&mut self, load: &Load) -> Result<()> {
        let title = format!("roll {} in batches", WEB_2.title());
        let mut phase = self.begin("roll", title, Site::Web, Some(load));
        let rollout = self.release(WEB_2, None).await?.rollout;
        phase.must(rollout.outcome == RolloutOutcome::Succeeded, || ended(&rollout));
        phase.count("batches", rollout.stages.len() as u64);
        tokio::time::sleep(AFTERMATH).await;
        self.must_be_all_at(&mut phase, WEB_2).await?;
        self.end(phase);
        Ok(())
    }

    /// SIGKILL to a workload: its shim starts it again, and gateways send elsewhere what it had.
    pub(super) async fn kill_instance(&mut self, load: &Load) -> Result<()> {
        let title = "kill an instance (SIGKILL)".to_owned();
        let mut phase = self.begin("kill-instance", title, Site::Web, Some(load));
        let node = &self.cluster.nodes[KILLED_INSTANCE_NODE];
        let status = self.status(Site::Web).await?;
        let victim = status.instances.iter().find(|instance| instance.node.as_str() == node.name);
        let victim = victim.with_context(|| format!("no instance is on {}", node.name))?;
        let pid = victim.observed.as_ref().and_then(|it| it.pid);
        let pid = pid.with_context(|| format!("no instance runs on {}", node.name))?;
        let name = victim.id.to_string();
        let killed = Instant::now();
        self.cluster.kill_and_wait(pid).await?;
        let again = wait_for(RECOVERY_LIMIT, || load.answered(&name).filter(|(now, _)| *now != pid)).await;
        match again {
            Some((new, at)) => {
                phase.measure("served_again_after_ms", at.saturating_duration_since(killed));
                self.board.note(&format!("{name}: pid {pid} killed, pid {new} serves"));
            }
            None => phase.trouble = Some(format!("{name} did not serve again")),
        }
        tokio::time::sleep(AFTERMATH).await;
        self.must_be_all_at(&mut phase, WEB_2).await?;
        self.end(phase);
        Ok(())
    }

    /// SIGKILL to an agent: its workloads run on, and the next agent adopts them.
    pub(super) async fn kill_agent(&mut self, load: &Load) -> Result<()> {
        let title = "kill an agent (SIGKILL)".to_owned();
        let mut phase = self.begin("kill-agent", title, Site::Web, Some(load));
        let node = &self.cluster.nodes[KILLED_AGENT_NODE];
        let before = pids(&self.status(Site::Web).await?);
        let query =
            EventQuery { last: 1, follow: true, node: Some(node.name.parse()?), ..EventQuery::default() };
        let mut events = self.api().events(&query).await?;
        let pid = self.pid_of_agent(KILLED_AGENT_NODE)?;
        let agent = self.cluster.agent(KILLED_AGENT_NODE);
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
                phase.measure("agent_down_for_ms", restarted.saturating_duration_since(killed));
                phase.measure("told_of_adoption_after_restart_ms", restarted.elapsed());
                if let Some(ms) = event.fields.get("ms").and_then(|ms| ms.parse().ok()) {
                    phase.measured.insert("adoption_took_ms".into(), ms);
                }
                self.board.note(&format!("pid {pid} killed, pid {new}: {}", event.message));
            }
            (None, _) => phase.trouble = Some("the agent was not started again".into()),
            (Some(_), _) => phase.trouble = Some("the new agent did not say that it took over".into()),
        }
        tokio::time::sleep(AFTERMATH).await;
        let status = self.must_be_all_at(&mut phase, WEB_2).await?;
        phase.must(pids(&status) == before, || "workloads are not the same processes as before".to_owned());
        self.end(phase);
        Ok(())
    }

    /// A release that fails its check never answers anybody, and the rollout goes back by itself.
    pub(super) async fn failed_check(&mut self, load: &Load) -> Result<()> {
        let title = format!("{} fails its check: back", WEB_3.title());
        let mut phase = self.begin("failed-check", title, Site::Web, Some(load));
        let before = pids(&self.status(Site::Web).await?);
        let rollout = self.release(WEB_3, None).await?.rollout;
        phase.must(rollout.outcome == RolloutOutcome::RolledBack, || ended(&rollout));
        let ended_at = rollout.ended_at.unwrap_or(rollout.started_at);
        phase.measure("back_after_ms", ended_at.since(rollout.started_at).duration());
        phase.note.clone_from(&rollout.reason);
        tokio::time::sleep(AFTERMATH).await;
        let status = self.must_be_all_at(&mut phase, WEB_2).await?;
        phase.must(pids(&status) == before, || "workloads are not the same processes as before".to_owned());
        // Its errors would be failures in any case; that it answers nobody at all is a promise of its own.
        phase.must(load.side(&WEB_3.side()).is_none(), || format!("{} answered requests", WEB_3.title()));
        self.end(phase);
        Ok(())
    }
}
