//! Traffic under load: a canary that is well, two that are not, a switch and the way back, a dark launch.

use super::super::load::{Load, SideTally};
use super::super::site::{Fault, SHOP_2, SHOP_3, SHOP_4, SHOP_5, SHOP_6, SLOW_BY, Site, Version};
use super::follow::Share;
use super::{AFTERMATH, Phase, QUIET, RECOVERY_LIMIT, Story, ended, pids, wait_for};
use anyhow::{Context as _, Result};
use baton_model::evidence::ReleaseEvidence;
use baton_model::id::{ReleaseNumber, RolloutId};
use baton_model::report::StageState;
use baton_model::rollout::RolloutOutcome;
use baton_model::time::Millis;
use baton_proto::v1;
use std::time::{Duration, Instant};

/// The header by which a second set is reached before it serves: the default of service files.
const PREVIEW_HEADER: &str = "baton-preview";
/// As far back as the evidence of the dark launch may reach.
const EVIDENCE_SPAN: Millis = Millis::secs(600);

/// A canary that is found to be bad.
pub(super) struct BadCanary {
    name: &'static str,
    version: Version,
    /// What is wrong with it, in a word or two.
    what: &'static str,
    /// The threshold that finds it.
    threshold: &'static str,
}

/// Found by the share of its errors.
pub(super) const ERRORS: BadCanary =
    BadCanary { name: "canary-errors", version: SHOP_3, what: "has errors", threshold: "errors" };
/// Found by its latency.
pub(super) const SLOW: BadCanary =
    BadCanary { name: "canary-slow", version: SHOP_4, what: "is slow", threshold: "slowness" };

impl Story<'_> {
    pub(super) async fn good_canary(&mut self, load: &Load) -> Result<()> {
        let title = format!("canary of {} to 100%", SHOP_2.title());
        let mut phase = self.begin("canary", title, Site::Shop, Some(load));
        let followed = self.release(SHOP_2, Some(load)).await?;
        let rollout = &followed.rollout;
        phase.must(rollout.outcome == RolloutOutcome::Succeeded, || ended(rollout));
        let steps = rollout.stages.iter().map(|stage| stage.step).max().unwrap_or(0);
        phase.count("steps", steps.into());
        shares(&mut phase, &followed.shares);
        tokio::time::sleep(AFTERMATH).await;
        self.must_be_all_at(&mut phase, SHOP_2).await?;
        self.end(phase);
        Ok(())
    }

    /// A canary whose check is well and whose answers are not: the analysis finds it, and the rollout goes back.
    pub(super) async fn bad_canary(&mut self, load: &Load, canary: &BadCanary) -> Result<()> {
        let BadCanary { name, version, what, threshold } = *canary;
        let title = format!("canary of {} {what}: back", version.title());
        let mut phase = self.begin(name, title, Site::Shop, Some(load));
        phase.bad = Some(version.side());
        let followed = self.release(version, Some(load)).await?;
        let rollout = &followed.rollout;
        phase.must(rollout.outcome == RolloutOutcome::RolledBack, || ended(rollout));
        phase.must(rollout.reason.contains(threshold), || {
            format!("it was not {threshold} that took it back: {}", rollout.reason)
        });
        phase.note.clone_from(&rollout.reason);
        tokio::time::sleep(AFTERMATH).await;
        self.must_be_all_at(&mut phase, SHOP_2).await?;
        match load.side(&version.side()) {
            None => phase.must(false, || format!("{} answered nobody: nothing was tried", version.title())),
            Some(side) => {
                phase.must(is_bad(version.fault, &side), || format!("{} was not bad", version.title()));
                if let Some(turned) = followed.turned {
                    phase.measure("found_after_ms", turned.saturating_duration_since(side.first));
                }
                phase.measure("gone_after_ms", side.last.saturating_duration_since(side.first));
            }
        }
        self.end(phase);
        Ok(())
    }

    /// A whole second set, looked at before anybody is sent there, then all requests at once.
    pub(super) async fn switch(&mut self, load: &Load) -> Result<()> {
        let title = format!("blue-green: switch to {}", SHOP_5.title());
        let mut phase = self.begin("blue-green", title, Site::Shop, Some(load));
        let rollout = self.ask_for(SHOP_5).await?;
        let waits = self
            .follow(SHOP_5, rollout, None, |_, it| {
                it.outcome == RolloutOutcome::Paused || it.outcome.is_final()
            })
            .await?
            .rollout;
        let second_set = waits.stages.first().is_some_and(|stage| stage.state == StageState::Done);
        phase.must(waits.outcome == RolloutOutcome::Paused && second_set, || ended(&waits));
        let previewed = self.preview(load).await;
        phase.must(previewed == self.cluster.gateways.len(), || {
            format!("{} could be previewed at {previewed} gateways only", SHOP_5.title())
        });
        phase.count("gateways_previewed", previewed as u64);
        phase.must(load.side(&SHOP_5.side()).is_none(), || {
            format!("{} answered requests before the switch", SHOP_5.title())
        });
        self.board.note("a preview sees it, and nobody else");
        let commanded = Instant::now();
        self.promote(rollout).await?;
        let rollout = self.follow(SHOP_5, rollout, None, |_, it| it.outcome.is_final()).await?.rollout;
        phase.must(rollout.outcome == RolloutOutcome::Succeeded, || ended(&rollout));
        must_leave(&mut phase, load, SHOP_2, commanded).await;
        self.note_switch(&phase, SHOP_5);
        self.end(phase);
        Ok(())
    }

    /// The first set is still warm: one command brings all requests back to it.
    pub(super) async fn switch_back(&mut self, load: &Load) -> Result<()> {
        let title = format!("undo: back to {} at once", SHOP_2.title());
        let mut phase = self.begin("undo", title, Site::Shop, Some(load));
        let before = pids(&self.status(Site::Shop).await?);
        let commanded = Instant::now();
        let request = v1::UndoRequest { service: Site::Shop.name().to_owned(), version: None };
        let asked = self.api().undo(request).await?;
        let rollout = RolloutId(asked.rollout);
        let rollout = self.follow(SHOP_2, rollout, None, |_, it| it.outcome.is_final()).await?.rollout;
        phase.must(rollout.outcome == RolloutOutcome::Succeeded, || ended(&rollout));
        must_leave(&mut phase, load, SHOP_5, commanded).await;
        self.note_switch(&phase, SHOP_2);
        let status = self.must_be_all_at(&mut phase, SHOP_2).await?;
        phase.must(pids(&status).iter().all(|it| before.iter().any(|was| was == it)), || {
            "the first set was not kept: other processes answer".to_owned()
        });
        self.end(phase);
        Ok(())
    }

    /// Copies of live requests to a release that answers nobody, compared with what clients got.
    pub(super) async fn dark_launch(&mut self, load: &Load) -> Result<()> {
        let title = format!("dark launch of {}", SHOP_6.title());
        let mut phase = self.begin("dark-launch", title, Site::Shop, Some(load));
        let rollout = self.release(SHOP_6, None).await?.rollout;
        phase.must(rollout.outcome == RolloutOutcome::RolledBack, || ended(&rollout));
        phase.note.clone_from(&rollout.reason);
        tokio::time::sleep(AFTERMATH).await;
        self.must_be_all_at(&mut phase, SHOP_2).await?;
        let evidence = self.evidence(rollout.to).await?;
        phase.count("copies", evidence.mirrored);
        phase.count("answered_otherwise", evidence.differing);
        phase.count("not_copied", evidence.unmirrored);
        phase.must(evidence.mirrored > 0 && evidence.differing > 0, || {
            format!("gateways counted {} copies, {} of them different", evidence.mirrored, evidence.differing)
        });
        phase.must(load.side(&SHOP_6.side()).is_none(), || {
            format!("{} answered requests of clients", SHOP_6.title())
        });
        self.end(phase);
        Ok(())
    }

    /// How many gateways answer a preview of the second set by it.
    async fn preview(&self, load: &Load) -> usize {
        let deadline = Instant::now() + RECOVERY_LIMIT;
        let mut reached = 0;
        for gateway in 0..self.cluster.gateways.len() {
            loop {
                let answered = load.preview(gateway, &Site::Shop.asked(), PREVIEW_HEADER).await;
                if answered.is_ok_and(|release| release == SHOP_5.name) {
                    reached += 1;
                    break;
                }
                if Instant::now() > deadline {
                    break;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        reached
    }

    fn note_switch(&self, phase: &Phase, to: Version) {
        if let Some(ms) = phase.measured.get(SWITCHED) {
            self.board.note(&format!("all requests at {} {ms:.0} ms after the command", to.name));
        }
    }

    async fn promote(&self, rollout: RolloutId) -> Result<()> {
        let request = v1::ControlRolloutRequest {
            service: Site::Shop.name().to_owned(),
            rollout: Some(rollout.0),
            action: v1::RolloutAction::Promote.into(),
            step: None,
        };
        self.api().control(request).await?;
        Ok(())
    }

    /// What gateways counted of a release of the shop.
    async fn evidence(&self, release: ReleaseNumber) -> Result<ReleaseEvidence> {
        let traffic = self.api().traffic(EVIDENCE_SPAN).await?;
        let shop = traffic.services.get(&Site::Shop.service()?).context("no gateway has counted anything")?;
        Ok(shop.counted.releases.get(&release).cloned().unwrap_or_default())
    }
}

/// Whether what clients saw of a version is what is wrong with it.
fn is_bad(fault: Fault, side: &SideTally) -> bool {
    match fault {
        Fault::Errors => side.errors > 0,
        Fault::Slow => side.latency.latency().p50 >= SLOW_BY.as_secs_f64() * 1000.0,
        Fault::None | Fault::Unhealthy | Fault::Miscounts => false,
    }
}

/// The share of the requests at each step, as clients counted it.
fn shares(phase: &mut Phase, shares: &[Share]) {
    for share in shares {
        let percent = share.weight.0 / 100;
        if let Some(counted) = share.percent().filter(|_| (1..100).contains(&percent)) {
            phase.measured.insert(format!("counted_at_{percent}_percent"), counted);
        }
    }
}

/// Waits until a version answers nobody any more, and measures from the command to its last answer.
async fn must_leave(phase: &mut Phase, load: &Load, version: Version, commanded: Instant) {
    let last = || load.side(&version.side()).map_or(commanded, |side| side.last);
    let quiet = || Some(last()).filter(|last| last.elapsed() >= QUIET);
    match wait_for(RECOVERY_LIMIT, quiet).await {
        Some(last) => phase.measure(SWITCHED, last.saturating_duration_since(commanded)),
        None => phase.must(false, || format!("{} still answers requests", version.title())),
    }
}

/// The name of the time from a command to the last answer of the release that it leaves.
const SWITCHED: &str = "all_requests_there_after_ms";
