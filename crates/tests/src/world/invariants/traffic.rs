//! `acked-drain` and `capacity-floor` with gateways in the loop: nothing is stopped that one may send to, and each of them
//! has, at every moment, as many instances as must stay.

use super::{Holds, broken};
use crate::world::gateway::Gateway;
use crate::world::ledger::Ledger;
use crate::world::node::Node;
use crate::world::store::Store;
use crate::world::workload::Run;
use baton_model::id::{GatewayName, NodeName, ServiceName};
use baton_model::route::{UpstreamId, Weight};
use baton_model::spec::Count;
use std::collections::BTreeMap;

/// How long a gateway that is silent is waited for.
pub(crate) const LEASE_MS: u64 = 10_000;
/// A gateway that was away so shortly before may not have caught up.
const AWAY_MS: u64 = 60_000;
/// Clocks of nodes differ, and what is decided takes its way.
const SLACK_MS: u64 = 100;

/// `acked-drain`: when a run is stopped, no gateway that is waited for would send to it, or has a request in flight to it;
/// unless its drain is over, or it answered nothing any more. What a gateway may know all the same is written down.
pub(crate) fn stopped_unknown(
    ledger: &mut Ledger,
    gateways: &BTreeMap<GatewayName, Gateway>,
    id: &UpstreamId,
    run: &Run,
    now: u64,
) -> Holds {
    ledger.stopped.insert(id.clone());
    let drain = run.plan.spec.stop.drain.0;
    let over = |since: Option<u64>| since.is_some_and(|since| now + SLACK_MS >= since + drain);
    let excused =
        !run.ready || run.pid.is_none() || over(run.replaced_at) || over(ledger.left.get(id).copied());
    let mut verdict = Ok(());
    for (name, gateway) in gateways {
        let named = gateway.table.names(id);
        let in_flight = gateway.in_flight_to(id);
        if !named && in_flight == 0 {
            continue;
        }
        ledger.excused.insert((name.clone(), id.clone()));
        let away = ledger.away(name, now.saturating_sub(AWAY_MS), now);
        if !excused && !away {
            let what = if named { "sends to it" } else { "has requests in flight to it" };
            verdict =
                broken("acked-drain", format!("{id} is stopped while gateway {name} {what} ({in_flight})"));
        }
    }
    verdict
}

/// `acked-drain`: no request is sent to what was stopped, but by a gateway that could not be told.
pub(crate) fn sent_to_the_living(ledger: &Ledger, gateway: &GatewayName, id: &UpstreamId, now: u64) -> Holds {
    let stopped = ledger.stopped.contains(id) && !ledger.excused.contains(&(gateway.clone(), id.clone()));
    if stopped && !ledger.away(gateway, now.saturating_sub(AWAY_MS), now) {
        return broken(
            "acked-drain",
            format!("gateway {gateway} sends a request to {id}, which was stopped"),
        );
    }
    Ok(())
}

/// `capacity-floor`, in truth and by what each gateway serves: where nothing fails but releases at their start, a gateway
/// that once had the floor of a service never has fewer instances that answer and get a share of its requests.
pub(crate) fn capacity_at_gateways(
    ledger: &mut Ledger,
    store: &Store,
    nodes: &BTreeMap<NodeName, Node>,
    gateways: &BTreeMap<GatewayName, Gateway>,
) -> Holds {
    for (service, record) in store.progress.iter().filter(|(name, _)| !ledger.removed.contains(*name)) {
        let spec = record
            .value
            .stable
            .and_then(|stable| Some(&store.desired.services.get(service)?.releases.get(&stable)?.spec));
        let Some((Count::Replicas(replicas), spec)) = spec.map(|spec| (spec.placement.count, spec)) else {
            continue;
        };
        let floor = usize::try_from(spec.min_available.ceil_of(replicas)).unwrap_or(0);
        for (name, gateway) in gateways {
            let answering = answering(gateway, nodes, service);
            let key = (name.clone(), service.clone());
            if answering >= floor {
                ledger.armed_gateways.insert(key);
            } else if ledger.armed_gateways.contains(&key) {
                let detail =
                    format!("{service}: gateway {name} has {answering} that answer, {floor} must stay");
                return broken("capacity-floor", detail);
            }
        }
    }
    Ok(())
}

fn answering(gateway: &Gateway, nodes: &BTreeMap<NodeName, Node>, service: &ServiceName) -> usize {
    let Some(route) = gateway.table.routes.get(service) else { return 0 };
    let answers = |id: &&UpstreamId| {
        let key = (id.instance.clone(), id.run);
        let mut runs = nodes.values().filter_map(|host| host.runs.get(&key));
        runs.any(|run| run.ready && !run.stopping)
    };
    // A release that gets nothing, by the split or by a rule, serves nobody, however many of it are ready.
    let shares = route.shares();
    let is_sent_to =
        |release| shares.is_empty() || shares.get(&release).is_some_and(|share| *share > Weight::NONE);
    let sent_to = route.upstreams.iter().filter(|(_, upstream)| is_sent_to(upstream.release));
    sent_to.map(|(id, _)| id).filter(answers).count()
}
