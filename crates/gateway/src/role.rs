//! The gateway as a process: its folder, the table on disk, the data plane, the session, and an end in order.
//!
//! ```text
//! lock ─► table on disk in force ─► listen (or take over) ─► ready ─► session ─► stop, or the next process has taken over
//!                                                             drain, the session going on ─► goodbye
//! ```

use crate::app::{Drained, Gateway, GatewayError, keep_open};
use crate::config::GatewayConfig;
use crate::control::{Control, Home, HomeError, Parts, Phase, Running, keep, restore};
use crate::health;
use crate::listen::{self, Purpose};
use crate::notify;
use crate::table::Served;
use baton_model::observed::GatewayFacts;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{RwLock, watch};
use tokio_util::sync::CancellationToken;

/// The process whose place this one takes has this long to leave the folder.
const LEAVE_WITHIN: Duration = Duration::from_secs(10);

/// How a gateway is run.
#[derive(Clone, Debug)]
pub struct RunOptions {
    /// Its folder, made by [`crate::control::join`].
    pub dir: PathBuf,
    /// Where it listens, and what it allows.
    pub config: GatewayConfig,
}

/// Why a gateway cannot run.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Its folder.
    #[error(transparent)]
    Home(#[from] HomeError),
    /// Its sockets, certificates or logs.
    #[error(transparent)]
    Gateway(#[from] GatewayError),
}

/// A gateway could not begin, also before [`run`]: connections that wait in sockets which were kept of a process that died are
/// refused from now on.
pub fn refuse() {
    listen::forget_all();
}

/// Runs a gateway until `stop`, or until the next process of it has taken over; then drains.
///
/// # Errors
/// Why it could not begin.
pub async fn run(options: RunOptions, stop: CancellationToken) -> Result<(), RunError> {
    let RunOptions { dir, config } = options;
    let home = Arc::new(Home::open(&dir)?);
    let name = home.file()?.name;
    // Before anything is listened on: two gateways on one folder would share its ports.
    let takes_over = match home.lock(Duration::ZERO).await {
        Ok(()) => false,
        Err(HomeError::InUse { .. }) if config.handover.as_ref().is_some_and(|path| path.exists()) => true,
        Err(error) => return Err(error.into()),
    };
    let served = Arc::new(Served::new(config.zone.clone()));
    restore(&home, &served);
    let gateway = Gateway::start(config, Arc::clone(&served)).await?;
    let facts = facts(&gateway);
    let unserved = gateway.unserved();
    if takes_over {
        // Before the other is told to leave: its end would else be the end of the unit.
        notify::takes_over();
    }
    if let Err(error) = gateway.relieve() {
        tracing::error!(%error, "the process before this one could not be told to leave; both serve");
    }
    if takes_over && let Err(error) = home.lock(LEAVE_WITHIN).await {
        gateway.drain().await;
        return Err(error.into());
    }
    tracing::info!(gateway = %name, http = ?facts.http, https = ?facts.https, "serving");
    let running: Arc<Running> = Arc::new(RwLock::new(Some(gateway)));
    let (phase, phases) = watch::channel(Phase::Serving);
    let control = Control::new(Parts {
        home: Arc::clone(&home),
        served: Arc::clone(&served),
        running: Arc::clone(&running),
        facts,
        unserved,
        phase: phases,
    })?;
    let ended = CancellationToken::new();
    let session = tokio::spawn(keep(control, ended.clone()));
    let checks = tokio::spawn(health::watch(served, ended.clone()));
    let ports = tokio::spawn(keep_open(Arc::clone(&running), ended.clone()));
    notify::ready(&name);

    if until_asked(&running, &stop).await == Asked::Leave {
        // First, so that the process that waits for the folder gets it; this one keeps nothing in it any more.
        phase.send_replace(Phase::Leaving);
        home.leave()?;
        tracing::info!("another process of this gateway has taken over; this one ends what it has in flight");
    } else {
        notify::stopping();
        if let Some(gateway) = &*running.read().await {
            gateway.keep_nothing();
        }
        tracing::info!("stopping");
    }
    let drained = match running.write().await.take() {
        Some(gateway) => gateway.drain().await,
        None => Drained { cut: 0 },
    };
    ended.cancel();
    if let Err(error) = session.await {
        tracing::error!(%error, "the session with the coordinator failed");
    }
    if let Err(error) = checks.await {
        tracing::error!(%error, "the checks of instances failed");
    }
    if let Err(error) = ports.await {
        tracing::error!(%error, "the ports of TCP routes could not be looked after");
    }
    tracing::info!(cut = drained.cut, "stopped");
    Ok(())
}

/// What ends a gateway.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Asked {
    Stop,
    Leave,
}

async fn until_asked(running: &Running, stop: &CancellationToken) -> Asked {
    let relieved = match &*running.read().await {
        Some(gateway) => gateway.when_relieved(),
        None => return Asked::Stop,
    };
    tokio::select! {
        () = stop.cancelled() => Asked::Stop,
        () = relieved.cancelled() => Asked::Leave,
    }
}

fn facts(gateway: &Gateway) -> GatewayFacts {
    let places = gateway.places();
    let at =
        |purpose| places.iter().filter(|place| place.purpose == purpose).map(|place| place.address).collect();
    GatewayFacts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        http: at(Purpose::Http),
        https: at(Purpose::Https),
    }
}
