//! Routes: what gateways do with the requests of a service, from what runs and how its rollout stands.

use crate::progress::ServiceProgress;
use baton_model::id::ServiceName;
use baton_model::route::Route;
use baton_model::time::Millis;
use std::collections::BTreeMap;

/// How long a gateway that is not heard any more is waited for. Until then it may serve by any table it was sent; after
/// that it is known to be fail-static: it goes on by its last table, and leaves out by itself what does not answer.
pub const GATEWAY_LEASE: Millis = Millis::secs(10);

/// The routes of all services as they are remembered: with a revision of its own, the table of every gateway.
#[must_use]
pub fn routes<'a>(
    progress: impl IntoIterator<Item = (&'a ServiceName, &'a ServiceProgress)>,
) -> BTreeMap<ServiceName, Route> {
    let route = |(name, memory): (&ServiceName, &'a ServiceProgress)| {
        Some((name.clone(), memory.route.current.clone()?))
    };
    progress.into_iter().filter_map(route).collect()
}
