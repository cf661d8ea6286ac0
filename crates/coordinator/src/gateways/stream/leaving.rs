//! The session of a process whose gateway goes on in another one: what it still has in flight is waited for.

use super::{Outbound, invalid, next, order, said, welcome};
use crate::api::status::Refusal;
use crate::state::Coordinator;
use baton_model::id::{GatewayName, SessionId};
use baton_proto::v1::{self, gateway_message::Message, gateway_order::Message as Order};
use tonic::Streaming;

/// Until the process has ended what it had in flight, or is not heard any more.
pub(super) async fn serve(
    coordinator: &Coordinator,
    gateway: &GatewayName,
    session: SessionId,
    inbound: &mut Streaming<v1::GatewayMessage>,
    outbound: &Outbound,
) -> Result<(), Refusal> {
    tracing::info!(%gateway, %session, "an earlier process of a gateway ends what it has in flight");
    let end = tokio::select! {
        () = coordinator.stop.cancelled() => Ok(()),
        end = listen(coordinator, gateway, session, inbound, outbound) => end,
    };
    coordinator.gateways.hear_leaving(gateway, session, None);
    end
}

async fn listen(
    coordinator: &Coordinator,
    gateway: &GatewayName,
    session: SessionId,
    inbound: &mut Streaming<v1::GatewayMessage>,
    outbound: &Outbound,
) -> Result<(), Refusal> {
    let gone = |_| Refusal::Unavailable("the gateway went away".to_owned());
    outbound.send(order(Order::Welcome(welcome(coordinator, session)))).await.map_err(gone)?;
    while let Some(message) = next(coordinator, gateway, inbound).await? {
        match message {
            Message::Hello(_) => {
                return Err(Refusal::Invalid("a session has one hello only; upgrade the gateway".to_owned()));
            }
            Message::Heartbeat(echo) => outbound.send(order(Order::Heartbeat(echo))).await.map_err(gone)?,
            Message::State(state) => {
                coordinator.gateways.hear_leaving(gateway, session, Some(said(state)?.busy));
            }
            Message::Evidence(counted) => {
                coordinator.take_evidence(gateway, counted.try_into().map_err(invalid)?);
            }
            Message::Goodbye(_) => return Ok(()),
        }
    }
    Ok(())
}
