//! The operator API in the nouns of the model: what comes from the wire is parsed here, once.

use crate::fault::Fault;
use anyhow::Result;
use baton_model::event::Event;
use baton_model::id::{GatewayName, NodeName, SecretName, ServiceName};
use baton_model::report::RolloutReport;
use baton_model::secret::Secret;
use baton_model::status::{GatewayStatus, NodeStatus, RouteStatus, SecretStatus, ServiceStatus, Traffic};
use baton_model::time::Millis;
use baton_model::upgrade::AgentUpgrade;
use baton_proto::v1;
use baton_proto::v1::operator_service_client::OperatorServiceClient;
use std::time::Duration;
use tonic::transport::Channel;

/// An answer to a single question is expected within this time; streams have no such limit.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A connected coordinator.
#[derive(Clone, Debug)]
pub(crate) struct Api {
    client: OperatorServiceClient<Channel>,
}

/// Which events are asked for.
#[derive(Clone, Debug, Default)]
pub(crate) struct EventQuery {
    /// Only those after this place.
    pub(crate) after: Option<u64>,
    /// At most so many of the past; 0 for all that are kept.
    pub(crate) last: u32,
    /// Go on with what happens from now on.
    pub(crate) follow: bool,
    /// Only about this service.
    pub(crate) service: Option<ServiceName>,
    /// Only about this node.
    pub(crate) node: Option<NodeName>,
}

impl Api {
    /// Wraps a connected client.
    pub(crate) const fn new(client: OperatorServiceClient<Channel>) -> Self {
        Self { client }
    }

    /// All services.
    pub(crate) async fn services(&mut self) -> Result<Vec<ServiceStatus>> {
        let answer = self.client.list_services(bounded(v1::ListServicesRequest {})).await?.into_inner();
        answer.services.into_iter().map(|status| understood(status.try_into())).collect()
    }

    /// One service.
    pub(crate) async fn service(&mut self, service: &ServiceName) -> Result<ServiceStatus> {
        let request = v1::ServiceRef { service: service.to_string() };
        understood(self.client.get_service(bounded(request)).await?.into_inner().try_into())
    }

    /// Asks for a service to be stopped everywhere and forgotten.
    pub(crate) async fn remove_service(&mut self, service: &ServiceName) -> Result<ServiceStatus> {
        let request = v1::ServiceRef { service: service.to_string() };
        understood(self.client.remove_service(bounded(request)).await?.into_inner().try_into())
    }

    /// Asks for every instance of a service to reload; the number by which that is known.
    pub(crate) async fn reload_service(&mut self, service: &ServiceName) -> Result<u64> {
        let request = v1::ServiceRef { service: service.to_string() };
        Ok(self.client.reload_service(bounded(request)).await?.into_inner().reload)
    }

    /// Keeps a value as the newest revision of a secret.
    pub(crate) async fn set_secret(&mut self, name: &SecretName, value: Secret) -> Result<SecretStatus> {
        let value = value.expose().to_vec().into();
        let request = v1::SetSecretRequest { name: name.to_string(), value };
        understood(self.client.set_secret(bounded(request)).await?.into_inner().try_into())
    }

    /// All secrets, without their values.
    pub(crate) async fn secrets(&mut self) -> Result<Vec<SecretStatus>> {
        let answer = self.client.list_secrets(bounded(v1::ListSecretsRequest {})).await?.into_inner();
        answer.secrets.into_iter().map(|status| understood(status.try_into())).collect()
    }

    /// Forgets a secret.
    pub(crate) async fn remove_secret(&mut self, name: &SecretName) -> Result<()> {
        let request = v1::SecretRef { name: name.to_string() };
        self.client.remove_secret(bounded(request)).await?;
        Ok(())
    }

    /// The status of a service now and after every change.
    pub(crate) async fn watch(
        &mut self,
        service: &ServiceName,
    ) -> Result<tonic::Streaming<v1::ServiceStatus>> {
        let request = v1::ServiceRef { service: service.to_string() };
        Ok(self.client.watch_service(request).await?.into_inner())
    }

    /// Rollouts that were, newest first.
    pub(crate) async fn history(&mut self, service: &ServiceName) -> Result<Vec<RolloutReport>> {
        let request = v1::ServiceRef { service: service.to_string() };
        let answer = self.client.rollout_history(bounded(request)).await?.into_inner();
        answer.rollouts.into_iter().map(|rollout| understood(rollout.try_into())).collect()
    }

    /// Steers the current rollout.
    pub(crate) async fn control(&mut self, request: v1::ControlRolloutRequest) -> Result<ServiceStatus> {
        understood(self.client.control_rollout(bounded(request)).await?.into_inner().try_into())
    }

    /// Goes back to an earlier release.
    pub(crate) async fn undo(&mut self, request: v1::UndoRequest) -> Result<v1::RolloutRef> {
        Ok(self.client.undo(bounded(request)).await?.into_inner())
    }

    /// All nodes.
    pub(crate) async fn nodes(&mut self) -> Result<Vec<NodeStatus>> {
        let answer = self.client.list_nodes(bounded(v1::ListNodesRequest {})).await?.into_inner();
        answer.nodes.into_iter().map(|status| understood(status.try_into())).collect()
    }

    /// One node.
    pub(crate) async fn node(&mut self, node: &NodeName) -> Result<NodeStatus> {
        let request = v1::NodeRef { name: node.to_string() };
        understood(self.client.get_node(bounded(request)).await?.into_inner().try_into())
    }

    /// Changes what operators say of a node.
    pub(crate) async fn set_node(&mut self, request: v1::SetNodeRequest) -> Result<NodeStatus> {
        understood(self.client.set_node(bounded(request)).await?.into_inner().try_into())
    }

    /// Forgets a node.
    pub(crate) async fn remove_node(&mut self, node: &NodeName) -> Result<()> {
        self.client.remove_node(bounded(v1::NodeRef { name: node.to_string() })).await?;
        Ok(())
    }

    /// All gateways.
    pub(crate) async fn gateways(&mut self) -> Result<Vec<GatewayStatus>> {
        let answer = self.client.list_gateways(bounded(v1::ListGatewaysRequest {})).await?.into_inner();
        answer.gateways.into_iter().map(|status| understood(status.try_into())).collect()
    }

    /// Forgets a gateway.
    pub(crate) async fn remove_gateway(&mut self, gateway: &GatewayName) -> Result<()> {
        self.client.remove_gateway(bounded(v1::GatewayRef { name: gateway.to_string() })).await?;
        Ok(())
    }

    /// What gateways are to do, for one service or for all.
    pub(crate) async fn routes(&mut self, service: Option<&ServiceName>) -> Result<Vec<RouteStatus>> {
        let request = v1::ListRoutesRequest { service: service.map(ToString::to_string) };
        let answer = self.client.list_routes(bounded(request)).await?.into_inner();
        answer.routes.into_iter().map(|status| understood(status.try_into())).collect()
    }

    /// What gateways counted in the last `span`.
    pub(crate) async fn traffic(&mut self, span: Millis) -> Result<Traffic> {
        let request = v1::GetTrafficRequest { span_ms: span.0 };
        understood(self.client.get_traffic(bounded(request)).await?.into_inner().try_into())
    }

    /// Asks for a program of the agents to be rolled over nodes.
    pub(crate) async fn upgrade_agents(&mut self, request: v1::UpgradeAgentsRequest) -> Result<AgentUpgrade> {
        understood(self.client.upgrade_agents(bounded(request)).await?.into_inner().try_into())
    }

    /// How the latest upgrade of the agents stands.
    pub(crate) async fn agent_upgrade(&mut self) -> Result<AgentUpgrade> {
        let request = v1::GetAgentUpgradeRequest {};
        understood(self.client.get_agent_upgrade(bounded(request)).await?.into_inner().try_into())
    }

    /// Ends the latest upgrade of the agents.
    pub(crate) async fn cancel_agent_upgrade(&mut self) -> Result<AgentUpgrade> {
        let request = v1::CancelAgentUpgradeRequest {};
        understood(self.client.cancel_agent_upgrade(bounded(request)).await?.into_inner().try_into())
    }

    /// Makes a one-time token.
    pub(crate) async fn create_token(
        &mut self,
        request: v1::CreateTokenRequest,
    ) -> Result<v1::CreateTokenResponse> {
        Ok(self.client.create_token(bounded(request)).await?.into_inner())
    }

    /// Events, oldest first.
    pub(crate) async fn events(&mut self, query: &EventQuery) -> Result<tonic::Streaming<v1::Event>> {
        let request = v1::ListEventsRequest {
            after: query.after,
            last: query.last,
            follow: query.follow,
            service: query.service.as_ref().map(ToString::to_string),
            node: query.node.as_ref().map(ToString::to_string),
        };
        Ok(self.client.list_events(request).await?.into_inner())
    }

    /// Log lines, in batches.
    pub(crate) async fn logs(&mut self, request: v1::LogRequest) -> Result<tonic::Streaming<v1::LogLines>> {
        Ok(self.client.logs(request).await?.into_inner())
    }
}

/// Parses an event of a stream.
pub(crate) fn event(wire: v1::Event) -> Result<Event> {
    understood(wire.try_into())
}

/// Parses a status of a stream.
pub(crate) fn status(wire: v1::ServiceStatus) -> Result<ServiceStatus> {
    understood(wire.try_into())
}

/// A request that must be answered in time.
fn bounded<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    request.set_timeout(CALL_TIMEOUT);
    request
}

/// What a coordinator of this version sends can be parsed; one of another version may say what we cannot know.
fn understood<T>(parsed: Result<T, impl std::fmt::Display>) -> Result<T> {
    parsed.map_err(|error| {
        let what = format!("the coordinator's answer is not understood: {error}");
        Fault::new(what, "the coordinator is of another version: compare `baton version` on both hosts")
            .into()
    })
}
