//! What is served over gRPC: enrollment, agents, operators.

mod agent;
mod artifacts;
mod configuration;
mod control;
mod deploy;
mod enrollment;
mod events;
mod gateway;
mod gateways;
mod logs;
mod nodes;
mod operator;
mod order;
mod overlap;
mod plan;
mod releases;
mod reload;
mod secrets;
mod services;
pub(crate) mod status;
mod traffic;
mod upgrade;

pub(crate) use agent::AgentApi;
pub(crate) use enrollment::EnrollmentApi;
pub(crate) use gateway::GatewayApi;
pub(crate) use operator::OperatorApi;

use crate::state::Coordinator;
use baton_model::id::{GatewayName, NodeName};
use baton_proto::identity::Peer;
use status::Refusal;
use std::pin::Pin;
use tonic::Status;

/// Largest message taken or sent; artifacts and logs come in pieces.
pub(crate) const MESSAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// How often a compare-and-set is tried anew when somebody else wrote.
pub(crate) const ATTEMPTS_MAX: usize = 16;

/// A stream of answers.
pub(crate) type Answers<T> = Pin<Box<dyn tokio_stream::Stream<Item = Result<T, Status>> + Send>>;

/// The operator who calls, where it is one and still a member. `caller` is taken from the request beforehand, because
/// a request that streams must not be held while the store is asked.
pub(crate) async fn operator_of(
    coordinator: &Coordinator,
    caller: Result<Peer, Status>,
) -> Result<String, Status> {
    let caller = caller?;
    coordinator.authority.admit(&caller).await.map_err(Refusal::from)?;
    match caller {
        Peer::Operator(name) => Ok(name),
        other @ (Peer::Node(_) | Peer::Gateway(_)) => Err(Refusal::Denied(format!(
            "this needs an operator's certificate, and {other} is none; choose an operator's with `baton context`"
        ))
        .into()),
    }
}

/// The node that calls, where it is one and still a member.
pub(crate) async fn node_of(
    coordinator: &Coordinator,
    caller: Result<Peer, Status>,
) -> Result<NodeName, Status> {
    let caller = caller?;
    coordinator.authority.admit(&caller).await.map_err(Refusal::from)?;
    match caller {
        Peer::Node(node) => Ok(node),
        other @ (Peer::Gateway(_) | Peer::Operator(_)) => Err(Refusal::Denied(format!(
            "this needs a node's certificate, and {other} is none; join the node with `baton agent join`"
        ))
        .into()),
    }
}

/// The gateway that calls, where it is one and still a member.
pub(crate) async fn gateway_of(
    coordinator: &Coordinator,
    caller: Result<Peer, Status>,
) -> Result<GatewayName, Status> {
    let caller = caller?;
    coordinator.authority.admit(&caller).await.map_err(Refusal::from)?;
    match caller {
        Peer::Gateway(gateway) => Ok(gateway),
        other @ (Peer::Node(_) | Peer::Operator(_)) => Err(Refusal::Denied(format!(
            "this needs a gateway's certificate, and {other} is none; join the gateway with `baton gateway join`"
        ))
        .into()),
    }
}

/// What to say when every attempt of a compare-and-set was lost.
pub(crate) fn contended(what: &str) -> Refusal {
    Refusal::Contended(format!(
        "{what} was changed by others {ATTEMPTS_MAX} times in a row; nothing was done, try again"
    ))
}
