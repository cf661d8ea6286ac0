//! Who is who: certificates, one-time tokens, and the mutual TLS that every connection runs on.
//!
//! `baton coordinator init` makes the authority. A node, a gateway or an operator `join`s with a one-time [`Token`] that
//! pins the authority by its fingerprint, and from then on `connect`s with its own [`Identity`]. A certificate's
//! name is a SPIFFE id in its subject alternative name: `spiffe://<cluster>/node/<name>`,
//! `spiffe://<cluster>/gateway/<name>`, `spiffe://<cluster>/operator/<name>` or `spiffe://<cluster>/coordinator` (SPIFFE-ID, section 2).
//!
//! TLS 1.3 only, with ring. tonic's own TLS settings cannot leave TLS 1.2 out nor change a certificate while they
//! serve, so the configurations are made here (`server`, `channel`) and handed to tonic as connections.

mod channel;
mod error;
mod files;
mod join;
mod name;
mod pin;
mod renewal;
mod server;
mod tls;
mod token;

pub use channel::{CONNECT_TIMEOUT, connect, connect_at};
pub use error::IdentityError;
pub use files::{FILE_NAME, Identity, give_to_owner, write_private};
pub use join::{JoinAs, join, renew, request_certificate};
pub use name::{Peer, Subject, TlsIo, peer};
pub use renewal::renew_when_due;
pub use server::{Incoming, ServerTls, incoming, server_tls};
pub use tls::SERVER_NAME;
pub use token::{Role, Token};
