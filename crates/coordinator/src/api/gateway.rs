//! What gateways call.

use super::{Answers, gateway_of};
use crate::gateways::stream;
use crate::state::Coordinator;
use baton_proto::identity::peer;
use baton_proto::v1::{self, gateway_service_server::GatewayService};
use std::sync::Arc;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

/// The service of gateways.
pub(crate) struct GatewayApi(pub(crate) Arc<Coordinator>);

#[tonic::async_trait]
impl GatewayService for GatewayApi {
    type SessionStream = Answers<v1::GatewayOrder>;

    async fn session(
        &self,
        request: Request<Streaming<v1::GatewayMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let gateway = gateway_of(&self.0, peer(&request)).await?;
        let (outbound, orders) = mpsc::channel(1);
        tokio::spawn(stream::serve(Arc::clone(&self.0), gateway, request.into_inner(), outbound));
        Ok(Response::new(Box::pin(ReceiverStream::new(orders))))
    }
}
