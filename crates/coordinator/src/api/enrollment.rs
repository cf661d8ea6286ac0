//! Who joins: one-time tokens become certificates, and certificates become fresh ones.

use super::status::Refusal;
use super::{ATTEMPTS_MAX, contended, nodes};
use crate::authority::{Issued, JoinAsk};
use crate::events::event;
use crate::records;
use crate::state::Coordinator;
use baton_engine::cycle::Versioned;
use baton_model::desired::{Gateway, Node};
use baton_model::event::Severity;
use baton_model::id::{GatewayName, NodeName, Revision};
use baton_proto::identity::{Role, Token, peer};
use baton_proto::v1::{self, enrollment_server::Enrollment};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tonic::{Request, Response, Status};

/// The service of those who join.
pub(crate) struct EnrollmentApi(pub(crate) Arc<Coordinator>);

#[tonic::async_trait]
impl Enrollment for EnrollmentApi {
    async fn join(&self, request: Request<v1::JoinRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        Ok(Response::new(join(&self.0, request.into_inner()).await?))
    }

    async fn renew(&self, request: Request<v1::RenewRequest>) -> Result<Response<v1::JoinResponse>, Status> {
        let caller = peer(&request)?;
        let renewed = self.0.authority.renew(&caller, &request.into_inner().csr_pem, SystemTime::now()).await;
        Ok(Response::new(answer(&self.0, renewed.map_err(Refusal::from)?)))
    }
}

async fn join(coordinator: &Coordinator, request: v1::JoinRequest) -> Result<v1::JoinResponse, Refusal> {
    let token: Token = request
        .token
        .parse()
        .map_err(|error: baton_proto::identity::IdentityError| Refusal::Invalid(error.to_string()))?;
    // Everything that can be wrong is found before the token is used up.
    let joining = match token.role {
        Role::Operator => Joining::Operator,
        Role::Gateway => Joining::Gateway(Gateway {
            name: GatewayName::new(request.name.clone())?,
            joined_at: coordinator.clock.now(),
        }),
        Role::Node => Joining::Node(joining(coordinator, &request)?),
    };
    let ask = JoinAsk { token: &request.token, name: &request.name, csr_pem: &request.csr_pem };
    let issued = coordinator.authority.join(ask, SystemTime::now()).await?;
    let mut event =
        event(coordinator.clock.now(), Severity::Info, "joined", format!("{} joined", issued.subject));
    match joining {
        Joining::Operator => {}
        Joining::Gateway(gateway) => {
            coordinator.records.set(&records::gateway(&gateway.name), &gateway).await?;
            event.fields.insert("gateway".to_owned(), gateway.name.into());
        }
        Joining::Node(node) => {
            record(coordinator, &node).await?;
            event.node = Some(node.name);
        }
    }
    coordinator.journal.record(vec![event]);
    Ok(answer(coordinator, issued))
}

/// Who joins, as it would be recorded.
enum Joining {
    Operator,
    Gateway(Gateway),
    Node(Node),
}

/// The node that a join would make.
fn joining(coordinator: &Coordinator, request: &v1::JoinRequest) -> Result<Node, Refusal> {
    let name = NodeName::new(request.name.clone())?;
    let address: IpAddr = request.address.parse().map_err(|_| {
        Refusal::Invalid(format!(
            "`{}` is not an IP address; give the one this node's services are reached at (`--address`)",
            request.address
        ))
    })?;
    nodes::check_labels(&request.labels)?;
    Ok(Node {
        name,
        address: address.to_string(),
        labels: request.labels.clone(),
        cordoned: false,
        draining: false,
        joined_at: coordinator.clock.now(),
    })
}

/// Keeps the node. One that joins again under a token for its name takes the place of the earlier one.
async fn record(coordinator: &Coordinator, node: &Node) -> Result<(), Refusal> {
    let key = records::node(&node.name);
    for _ in 0..ATTEMPTS_MAX {
        let (revision, joining) = match coordinator.records.get::<Node>(&key).await? {
            Some(Versioned { revision, value }) => {
                (revision, Node { cordoned: value.cordoned, draining: value.draining, ..node.clone() })
            }
            None => (Revision(0), node.clone()),
        };
        match coordinator.records.put(&key, revision, &joining).await {
            Ok(_) => {
                // Its agent may begin with a fresh state folder: its events are numbered from 1 again.
                coordinator.journal.forget(node.name.clone()).await;
                return Ok(());
            }
            Err(error) if error.is_conflict() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(contended(&format!("node `{}`", node.name)))
}

fn answer(coordinator: &Coordinator, issued: Issued) -> v1::JoinResponse {
    v1::JoinResponse {
        certificate_pem: issued.certificate_pem,
        authority_pem: issued.authority_pem,
        not_after_unix_s: issued.not_after.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        cluster: coordinator.cluster.clone(),
    }
}

/// Makes a one-time token.
pub(super) async fn create_token(
    coordinator: &Coordinator,
    by: &str,
    request: v1::CreateTokenRequest,
) -> Result<v1::CreateTokenResponse, Refusal> {
    let role: Role = request.role.parse().map_err(|_| {
        Refusal::Invalid(format!(
            "`{}` is not a role; make a token for a `node`, a `gateway` or an `operator`",
            request.role
        ))
    })?;
    let ttl = Duration::from_secs(request.ttl_s);
    let (token, expires) =
        coordinator.authority.create_token(role, request.name.as_deref(), ttl, SystemTime::now()).await?;
    let named = request.name.map(|name| format!(" named {name}")).unwrap_or_default();
    let message = format!("{by} made a token for {}{named}", role.noun());
    coordinator.journal.record(vec![event(coordinator.clock.now(), Severity::Info, "token-made", message)]);
    let expires_at_ms = expires.duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    Ok(v1::CreateTokenResponse {
        token: token.to_string(),
        expires_at_ms: u64::try_from(expires_at_ms).unwrap_or(u64::MAX),
    })
}
