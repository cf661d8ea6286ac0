//! What operators call: who they are is checked here, what is done is in the files beside.

use super::{
    Answers, artifacts, control, deploy, events, gateways, logs, nodes, operator_of, plan, reload, secrets,
    services, upgrade,
};
use crate::records::NODES;
use crate::state::Coordinator;
use baton_model::desired::Node;
use baton_proto::identity::peer;
use baton_proto::v1::{self, operator_service_server::OperatorService};
use std::sync::Arc;
use tonic::{Request, Response, Status, Streaming};

/// The service of operators.
pub(crate) struct OperatorApi(pub(crate) Arc<Coordinator>);

type Answer<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl OperatorService for OperatorApi {
    type WatchServiceStream = Answers<v1::ServiceStatus>;
    type ListEventsStream = Answers<v1::Event>;
    type LogsStream = Answers<v1::LogLines>;

    async fn get_cluster(&self, request: Request<v1::GetClusterRequest>) -> Answer<v1::Cluster> {
        operator_of(&self.0, peer(&request)).await?;
        let nodes = self.0.records.list::<Node>(NODES).await.map_err(super::status::Refusal::from)?;
        Ok(Response::new(v1::Cluster {
            name: self.0.cluster.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            now_ms: self.0.clock.now().0,
            nodes: u32::try_from(nodes.len()).unwrap_or(u32::MAX),
            nodes_connected: u32::try_from(self.0.sessions.connected()).unwrap_or(u32::MAX),
        }))
    }

    async fn stat_artifact(
        &self,
        request: Request<v1::StatArtifactRequest>,
    ) -> Answer<v1::StatArtifactResponse> {
        operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(artifacts::stat(&self.0, request.into_inner()).await?))
    }

    async fn upload_artifact(
        &self,
        request: Request<Streaming<v1::UploadArtifactRequest>>,
    ) -> Answer<v1::StatArtifactResponse> {
        operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(artifacts::upload(&self.0, request.into_inner()).await?))
    }

    async fn plan_deploy(&self, request: Request<v1::DeployRequest>) -> Answer<v1::DeployPlan> {
        let by = operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(plan::plan(&self.0, &by, request.into_inner()).await?))
    }

    async fn deploy(&self, request: Request<v1::DeployRequest>) -> Answer<v1::RolloutRef> {
        let by = operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(deploy::deploy(&self.0, &by, request.into_inner()).await?))
    }

    async fn undo(&self, request: Request<v1::UndoRequest>) -> Answer<v1::RolloutRef> {
        let by = operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(deploy::undo(&self.0, &by, request.into_inner()).await?))
    }

    async fn control_rollout(
        &self,
        request: Request<v1::ControlRolloutRequest>,
    ) -> Answer<v1::ServiceStatus> {
        let by = operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(control::control(&self.0, &by, request.into_inner()).await?))
    }

    async fn rollout_history(&self, request: Request<v1::ServiceRef>) -> Answer<v1::RolloutHistoryResponse> {
        operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(services::history(&self.0, request.into_inner()).await?))
    }

    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Answer<v1::ListServicesResponse> {
        operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(services::list(&self.0).await?))
    }

    async fn get_service(&self, request: Request<v1::ServiceRef>) -> Answer<v1::ServiceStatus> {
        operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(services::get(&self.0, request.into_inner()).await?))
    }

    async fn watch_service(&self, request: Request<v1::ServiceRef>) -> Answer<Self::WatchServiceStream> {
        operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(services::watch(&self.0, request.into_inner()).await?))
    }

    async fn remove_service(&self, request: Request<v1::ServiceRef>) -> Answer<v1::ServiceStatus> {
        let by = operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(services::remove(&self.0, &by, request.into_inner()).await?))
    }

    async fn reload_service(&self, request: Request<v1::ServiceRef>) -> Answer<v1::ReloadResponse> {
        let by = operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(reload::reload(&self.0, &by, request.into_inner()).await?))
    }

    async fn list_nodes(&self, request: Request<v1::ListNodesRequest>) -> Answer<v1::ListNodesResponse> {
        operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(nodes::list(&self.0).await?))
    }

    async fn get_node(&self, request: Request<v1::NodeRef>) -> Answer<v1::NodeStatus> {
        operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(nodes::get(&self.0, request.into_inner()).await?))
    }

    async fn set_node(&self, request: Request<v1::SetNodeRequest>) -> Answer<v1::NodeStatus> {
        let by = operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(nodes::set(&self.0, &by, request.into_inner()).await?))
    }

    async fn remove_node(&self, request: Request<v1::NodeRef>) -> Answer<v1::RemoveNodeResponse> {
        let by = operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(nodes::remove(&self.0, &by, request.into_inner()).await?))
    }

    async fn create_token(
        &self,
        request: Request<v1::CreateTokenRequest>,
    ) -> Answer<v1::CreateTokenResponse> {
        let by = operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(super::enrollment::create_token(&self.0, &by, request.into_inner()).await?))
    }

    async fn list_gateways(
        &self,
        request: Request<v1::ListGatewaysRequest>,
    ) -> Answer<v1::ListGatewaysResponse> {
        operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(gateways::list(&self.0).await?))
    }

    async fn remove_gateway(&self, request: Request<v1::GatewayRef>) -> Answer<v1::RemoveGatewayResponse> {
        let by = operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(gateways::remove(&self.0, &by, request.into_inner()).await?))
    }

    async fn list_routes(&self, request: Request<v1::ListRoutesRequest>) -> Answer<v1::ListRoutesResponse> {
        operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(gateways::routes(&self.0, request.into_inner())?))
    }

    async fn get_traffic(&self, request: Request<v1::GetTrafficRequest>) -> Answer<v1::Traffic> {
        operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(gateways::traffic(&self.0, &request.into_inner())))
    }

    async fn upgrade_agents(&self, request: Request<v1::UpgradeAgentsRequest>) -> Answer<v1::AgentUpgrade> {
        let by = operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(upgrade::request(&self.0, &by, request.into_inner()).await?))
    }

    async fn get_agent_upgrade(
        &self,
        request: Request<v1::GetAgentUpgradeRequest>,
    ) -> Answer<v1::AgentUpgrade> {
        operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(upgrade::get(&self.0).await?))
    }

    async fn cancel_agent_upgrade(
        &self,
        request: Request<v1::CancelAgentUpgradeRequest>,
    ) -> Answer<v1::AgentUpgrade> {
        let by = operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(upgrade::cancel(&self.0, &by).await?))
    }

    async fn set_secret(&self, request: Request<v1::SetSecretRequest>) -> Answer<v1::SecretStatus> {
        let by = operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(secrets::set(&self.0, &by, request.into_inner()).await?))
    }

    async fn list_secrets(
        &self,
        request: Request<v1::ListSecretsRequest>,
    ) -> Answer<v1::ListSecretsResponse> {
        operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(secrets::list(&self.0).await?))
    }

    async fn remove_secret(&self, request: Request<v1::SecretRef>) -> Answer<v1::RemoveSecretResponse> {
        let by = operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(secrets::remove(&self.0, &by, request.into_inner()).await?))
    }

    async fn list_events(&self, request: Request<v1::ListEventsRequest>) -> Answer<Self::ListEventsStream> {
        operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(events::list(&self.0, request.into_inner())?))
    }

    async fn logs(&self, request: Request<v1::LogRequest>) -> Answer<Self::LogsStream> {
        operator_of(&self.0, peer(&request)).await?;
        Ok(Response::new(logs::logs(&self.0, request.into_inner()).await?))
    }
}
