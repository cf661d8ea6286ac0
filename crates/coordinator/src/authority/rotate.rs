//! The coordinator's own certificate: made anew before it ends, while the server serves.

use super::Authority;
use super::error::AuthorityError;
use baton_proto::identity::{Identity, ServerTls};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Looks at the clock this often at the least, since a host may be suspended or its wall clock stepped.
const LOOK_INTERVAL: Duration = Duration::from_secs(60);
/// Pause after each attempt.
const PAUSE: Duration = Duration::from_secs(1);

/// Replaces the server's certificate whenever two thirds of its life are over. Runs until it is dropped.
///
/// `current` is the identity that `tls` was made of; `failed` is told of each attempt that failed.
pub async fn keep_server_certificate(
    authority: Arc<Authority>,
    tls: ServerTls,
    mut current: Identity,
    mut failed: impl FnMut(AuthorityError) + Send,
) {
    loop {
        let due = current.renew_at().unwrap_or(SystemTime::UNIX_EPOCH);
        let now = SystemTime::now();
        if let Some(left) = due.duration_since(now).ok().filter(|left| !left.is_zero()) {
            tokio::time::sleep(left.min(LOOK_INTERVAL)).await;
            continue;
        }
        match replace(&authority, &tls, now) {
            Ok(fresh) => current = fresh,
            Err(error) => failed(error),
        }
        // Also after a success: a lifetime near zero must not become a loop without a pause.
        tokio::time::sleep(PAUSE).await;
    }
}

fn replace(authority: &Authority, tls: &ServerTls, now: SystemTime) -> Result<Identity, AuthorityError> {
    let fresh = authority.server_identity(now)?;
    tls.replace(&fresh)?;
    Ok(fresh)
}
