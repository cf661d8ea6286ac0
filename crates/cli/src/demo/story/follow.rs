//! Following a rollout: its status as it changes, when it turned round, and how requests were shared meanwhile.

use super::super::load::Load;
use super::super::site::Version;
use super::{ROLLOUT_LIMIT, Story};
use crate::api;
use anyhow::{Context as _, Result};
use baton_model::id::RolloutId;
use baton_model::report::RolloutReport;
use baton_model::rollout::RolloutOutcome;
use baton_model::route::Weight;
use baton_model::status::ServiceStatus;
use std::time::{Duration, Instant};
use tokio_stream::StreamExt as _;

/// A share that was in force for less long is not compared with what was counted: the gateways hear of it in between.
const SHARE_HELD: Duration = Duration::from_secs(1);

/// What was seen of a rollout.
pub(super) struct Followed {
    /// As it stood in the end.
    pub(super) rollout: RolloutReport,
    /// When it was first seen on its way back.
    pub(super) turned: Option<Instant>,
    /// The shares that its release had of the requests, one after the other.
    pub(super) shares: Vec<Share>,
}

/// A share of the requests, as told and as counted.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Share {
    /// What gateways were told.
    pub(super) weight: Weight,
    /// Answers of the release while it was so.
    new: u64,
    /// Answers of all releases of its service.
    all: u64,
}

impl Share {
    /// What was counted, in percent; `None` where nothing was.
    #[allow(clippy::cast_precision_loss, reason = "counts of a minute")]
    pub(super) fn percent(&self) -> Option<f64> {
        (self.all > 0).then(|| self.new as f64 * 100.0 / self.all as f64)
    }
}

/// Since when a share is in force, and what had been answered by then.
struct Held {
    weight: Weight,
    since: Instant,
    before: (u64, u64),
}

impl Story<'_> {
    /// Follows a rollout until `until` says so of it.
    pub(super) async fn follow(
        &self,
        version: Version,
        wanted: RolloutId,
        load: Option<&Load>,
        until: impl Fn(&ServiceStatus, &RolloutReport) -> bool,
    ) -> Result<Followed> {
        let mut turned = None;
        let mut shares = Vec::new();
        let mut held: Option<Held> = None;
        let followed = tokio::time::timeout(ROLLOUT_LIMIT, async {
            let mut statuses = self.api().watch(&version.site.service()?).await?;
            while let Some(status) = statuses.next().await {
                let status = api::status(status?)?;
                let now = Instant::now();
                if let (Some(load), Some(weight)) = (load, weight(&status, version)) {
                    let counted = answered(load, version);
                    if held.as_ref().is_none_or(|held| held.weight != weight) {
                        let before = held.replace(Held { weight, since: now, before: counted });
                        shares.extend(before.and_then(|before| share(&before, now, counted)));
                        self.board.note(&format!("{} gets {weight} of the requests", version.title()));
                    }
                }
                let rollout = status.report.rollout.clone().filter(|it| it.id == wanted);
                if let Some(rollout) = rollout {
                    if matches!(rollout.outcome, RolloutOutcome::RollingBack | RolloutOutcome::RolledBack) {
                        turned.get_or_insert(now);
                    }
                    if until(&status, &rollout) {
                        return Ok(rollout);
                    }
                }
            }
            anyhow::bail!("the stream of changes ended")
        });
        let rollout = followed.await.with_context(|| {
            format!("the rollout to {} did not end within {} s", version.title(), ROLLOUT_LIMIT.as_secs())
        })??;
        if let (Some(load), Some(held)) = (load, held) {
            shares.extend(share(&held, Instant::now(), answered(load, version)));
        }
        Ok(Followed { rollout, turned, shares })
    }
}

fn weight(status: &ServiceStatus, version: Version) -> Option<Weight> {
    let of_version = |it: &&baton_model::status::ReleaseTraffic| {
        it.version.as_ref().is_some_and(|it| it.as_str() == version.name)
    };
    status.traffic.iter().find(of_version).map(|it| it.weight)
}

/// Answers of the version, and of its service.
fn answered(load: &Load, version: Version) -> (u64, u64) {
    let sides = load.meter().sides();
    let of_service = sides.iter().filter(|(side, _)| side.service == version.site.name());
    of_service.fold((0, 0), |(new, all), (side, counted)| {
        let answers = counted.right + counted.errors;
        (new + if side.version == version.name { answers } else { 0 }, all + answers)
    })
}

fn share(held: &Held, now: Instant, counted: (u64, u64)) -> Option<Share> {
    let (new, all) = (counted.0 - held.before.0, counted.1 - held.before.1);
    let long = now.duration_since(held.since) >= SHARE_HELD;
    long.then_some(Share { weight: held.weight, new, all })
}
