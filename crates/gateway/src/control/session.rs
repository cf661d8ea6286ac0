//! Keeps a session with the coordinator up. Everything said is whole state, so a lost stream loses nothing: the next one
//! says it again. Without a coordinator the gateway serves on by the table it has.

use super::held::Control;
use super::home::Home;
use super::stream::{self, Ended};
use crate::table::Served;
use baton_proto::identity::{Identity, IdentityError};
use baton_proto::reconnect::Backoff;
use std::error::Error;
use std::time::Instant;
use tokio_util::sync::CancellationToken;

/// Connects and serves one session to its end.
async fn once(
    control: &mut Control,
    address: &str,
    stop: &CancellationToken,
) -> Result<Ended, IdentityError> {
    // Read anew each time: a renewal, or a person who joined again, may have replaced it.
    let identity = Identity::load(&control.home.identity_dir())?;
    let channel = baton_proto::identity::connect(address, &identity).await?;
    let dir = control.home.identity_dir();
    Ok(stream::serve(control, address, channel, identity, dir, stop).await)
}

/// Puts the table that is kept in force, where there is one. One that cannot be read or taken is only logged: the gateway
/// begins without it.
pub fn restore(home: &Home, served: &Served) {
    let told = |error: &dyn Error| {
        let cause = error.source().map(ToString::to_string).unwrap_or_default();
        tracing::error!(%error, cause, "nothing is routed until the coordinator sends a table");
    };
    match home.table() {
        Ok(Some(table)) => match served.install(&table, Instant::now()) {
            Ok(_) => {
                let (revision, routes) = (table.revision.0, table.routes.len());
                tracing::info!(revision, routes, "serving by the table on disk");
            }
            Err(error) => told(&error),
        },
        Ok(None) => {}
        Err(error) => told(&error),
    }
}

/// Keeps a session up until cancelled, and then says goodbye: whoever cancels it has nothing in flight any more.
pub async fn keep(mut control: Control, stop: CancellationToken) {
    let mut backoff = Backoff::default();
    let mut turn = 0;
    // Also where the process has nothing left in flight before the session of its leaving has begun: what it counted last
    // is told in that one.
    let mut anew = false;
    while (anew || !stop.is_cancelled()) && !control.coordinators.is_empty() {
        anew = false;
        let address = control.coordinators[turn % control.coordinators.len()].clone();
        let ended = match once(&mut control, &address, &stop).await {
            Ok(Ended::Stopped) => return,
            Ok(Ended::Anew) => {
                backoff = Backoff::default();
                anew = true;
                continue;
            }
            Ok(ended) => {
                if ended.was_welcome() {
                    backoff = Backoff::default();
                }
                if matches!(ended, Ended::Replaced) {
                    backoff.lengthen();
                }
                ended.to_string()
            }
            Err(error) => error.to_string(),
        };
        control.say(&address, &ended);
        turn += 1;
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(backoff.pause()) => {}
        }
    }
}
