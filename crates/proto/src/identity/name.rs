//! The name inside a certificate, and the peer of a request.

use super::error::IdentityError;
use super::token::Role;
use baton_model::id::{GatewayName, NAME_MAX, NodeName};
use rustls_pki_types::CertificateDer;
use std::fmt;
use tokio::net::TcpStream;
use tokio_rustls::server::TlsStream;
use tonic::transport::server::{Connected, TlsConnectInfo};
use x509_parser::extensions::GeneralName;

/// Who a certificate names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An agent on a host.
    Node(NodeName),
    /// A process that carries traffic.
    Gateway(GatewayName),
    /// A person or a pipeline with the CLI.
    Operator(String),
    /// The coordinator itself.
    Coordinator,
}

impl Subject {
    /// Makes the subject of a role and a name that a person chose.
    ///
    /// # Errors
    /// Says what a name may be.
    pub fn new(role: Role, name: &str) -> Result<Self, IdentityError> {
        let bad = |_| {
            IdentityError::unusable(
                format!("the {role} name `{name}`"),
                format!(
                    "use 1 to {NAME_MAX} lower-case letters, digits and dashes, starting and ending with a letter or digit"
                ),
            )
        };
        Ok(match role {
            Role::Node => Self::Node(NodeName::new(name).map_err(bad)?),
            Role::Gateway => Self::Gateway(GatewayName::new(name).map_err(bad)?),
            // Operators' names follow the rule of node names: both end up in URIs, file names and messages.
            Role::Operator => Self::Operator(NodeName::new(name).map_err(bad)?.into()),
        })
    }

    /// Its SPIFFE id in a cluster.
    #[must_use]
    pub fn uri(&self, cluster: &str) -> String {
        match self {
            Self::Node(name) => format!("spiffe://{cluster}/node/{name}"),
            Self::Gateway(name) => format!("spiffe://{cluster}/gateway/{name}"),
            Self::Operator(name) => format!("spiffe://{cluster}/operator/{name}"),
            Self::Coordinator => format!("spiffe://{cluster}/coordinator"),
        }
    }

    /// Reads a SPIFFE id: the cluster, and who it names in it.
    #[must_use]
    pub fn parse_uri(uri: &str) -> Option<(String, Self)> {
        let (cluster, path) = uri.strip_prefix("spiffe://")?.split_once('/')?;
        let subject = match path.split_once('/') {
            None if path == "coordinator" => Self::Coordinator,
            Some(("node", name)) => Self::new(Role::Node, name).ok()?,
            Some(("gateway", name)) => Self::new(Role::Gateway, name).ok()?,
            Some(("operator", name)) => Self::new(Role::Operator, name).ok()?,
            None | Some(_) => return None,
        };
        Some((cluster.to_owned(), subject))
    }

    /// Reads the one SPIFFE id of a certificate: the cluster, and who it names in it.
    #[must_use]
    pub fn of_certificate(certificate: &CertificateDer<'_>) -> Option<(String, Self)> {
        let (_, parsed) = x509_parser::parse_x509_certificate(certificate).ok()?;
        let names = parsed.subject_alternative_name().ok()??;
        let mut uris = names.value.general_names.iter().filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None, // a foreign enum: the other kinds of names say nothing here
        });
        let uri = uris.next()?;
        // SPIFFE X509-SVID, section 2: exactly one URI.
        if uris.next().is_some() {
            return None;
        }
        Self::parse_uri(uri)
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::Gateway(name) => write!(f, "gateway {name}"),
            Self::Operator(name) => write!(f, "operator {name}"),
            Self::Coordinator => write!(f, "the coordinator"),
        }
    }
}

/// Who sent a request, as its verified certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Peer {
    /// An agent; it may act only as this node.
    Node(NodeName),
    /// A gateway; it may act only as this one.
    Gateway(GatewayName),
    /// An operator.
    Operator(String),
}

impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Node(name) => write!(f, "node {name}"),
            Self::Gateway(name) => write!(f, "gateway {name}"),
            Self::Operator(name) => write!(f, "operator {name}"),
        }
    }
}

/// Tells who sent `request`, by the client certificate that the TLS handshake has verified.
///
/// # Errors
/// `UNAUTHENTICATED` where the connection brought no certificate, `PERMISSION_DENIED` where it names no
/// node, gateway or operator.
pub fn peer<T>(request: &tonic::Request<T>) -> Result<Peer, tonic::Status> {
    type Info = TlsConnectInfo<<TcpStream as Connected>::ConnectInfo>;
    let certificates = request.extensions().get::<Info>().and_then(TlsConnectInfo::peer_certs);
    let Some(leaf) = certificates.as_deref().and_then(|chain| chain.first()) else {
        return Err(tonic::Status::unauthenticated(
            "this call needs a client certificate: join first (`baton agent join` for a node, `baton gateway join` for a gateway, `baton context add` for an operator)",
        ));
    };
    match Subject::of_certificate(leaf) {
        Some((_, Subject::Node(name))) => Ok(Peer::Node(name)),
        Some((_, Subject::Gateway(name))) => Ok(Peer::Gateway(name)),
        Some((_, Subject::Operator(name))) => Ok(Peer::Operator(name)),
        Some((_, Subject::Coordinator)) | None => {
            Err(tonic::Status::permission_denied("the client certificate names no node, gateway or operator"))
        }
    }
}

/// A connection whose handshake is done; tonic finds the client's certificate in it, and [`peer`] reads that.
pub type TlsIo = TlsStream<TcpStream>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uris_round_trip() {
        for subject in [
            Subject::new(Role::Node, "n1").unwrap(),
            Subject::new(Role::Gateway, "edge-1").unwrap(),
            Subject::new(Role::Operator, "ann").unwrap(),
            Subject::Coordinator,
        ] {
            let uri = subject.uri("home");
            assert_eq!(Subject::parse_uri(&uri), Some(("home".to_owned(), subject)), "{uri}");
        }
    }

    #[test]
    fn other_uris_name_nobody() {
        for uri in [
            "",
            "https://home/node/n1",
            "spiffe://home",
            "spiffe://home/node",
            "spiffe://home/node/",
            "spiffe://home/node/n1/x",
            "spiffe://home/root/n1",
            "spiffe://home/coordinator/x",
            "spiffe://home/node/N1",
            "spiffe://home/gateway",
            "spiffe://home/gateway/edge_1",
        ] {
            assert_eq!(Subject::parse_uri(uri), None, "{uri}");
        }
    }
}
