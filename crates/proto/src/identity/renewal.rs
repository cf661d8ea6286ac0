//! A fresh certificate long before the present one ends.

use super::{Identity, IdentityError, renew};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};
use tonic::transport::Channel;

/// A renewal that failed is tried again after this, or after a tenth of what remains where that is sooner.
const RENEW_AGAIN: Duration = Duration::from_secs(60);
/// But not sooner than this.
const RENEW_AGAIN_MIN: Duration = Duration::from_secs(1);

/// Waits until `identity` is due for renewal, gets a fresh one over `channel`, which was connected with it, and keeps
/// it in the folder `dir`. Resolves when that is done: the next connection uses it. Each failure is told to `failed`,
/// and it is tried again.
pub async fn renew_when_due(
    channel: Channel,
    identity: Identity,
    dir: PathBuf,
    mut failed: impl FnMut(&IdentityError),
) {
    let until = |at: SystemTime| at.duration_since(SystemTime::now()).unwrap_or(Duration::ZERO);
    match identity.renew_at() {
        Ok(at) => tokio::time::sleep(until(at)).await,
        // A certificate that cannot be read is replaced at once.
        Err(error) => failed(&error),
    }
    loop {
        let renewed = match renew(channel.clone(), &identity).await {
            Ok(renewed) => renewed.save(&dir),
            Err(error) => Err(error),
        };
        match renewed {
            Ok(()) => return,
            Err(error) => failed(&error),
        }
        let remains = identity.not_after().map_or(Duration::ZERO, until);
        tokio::time::sleep(RENEW_AGAIN.min(remains / 10).max(RENEW_AGAIN_MIN)).await;
    }
}
