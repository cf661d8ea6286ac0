//! The authority: who may call itself what. Makes certificates, from one-time tokens and from earlier certificates.
//!
//! ```text
//! create_token ─► token record (the secret's hash only, until used or expired)
//! join:  token ok? ─► name free? ─► use the token up (compare-and-set) ─► record the member ─► sign
//! renew: still a member? ─► sign
//! admit: still a member? (asked for every call, so that a removed member is out at once)
//! ```
//!
//! The name in a certificate comes from the token and the joiner's words, or from the certificate before it; never
//! from the fields of a certificate request. A name that has joined is taken, until it is [`Authority::forget`]-ed,
//! or until a token is used that was made for exactly this name: so a host whose certificate has ended can come
//! back, because an operator said its name.
//!
//! Times here are wall time: certificates are compared with other hosts' clocks.

mod error;
mod key;
mod member;
mod rotate;
mod sign;
#[cfg(test)]
mod tests;
mod token;

pub use error::AuthorityError;
pub use key::FILE_NAME;
pub use member::Member;
pub use rotate::keep_server_certificate;

use crate::store::Store;
use baton_model::id::Digest;
use baton_proto::identity::{Identity, Peer, Role, Subject, Token, request_certificate};
use key::AuthorityKey;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// A token that was asked for without saying for how long.
pub const TOKEN_TTL: Duration = Duration::from_secs(60 * 60);
/// No token is usable for longer.
pub const TOKEN_TTL_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// For how long certificates are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// Of nodes, gateways and operators.
    pub member: Duration,
    /// Of the coordinator itself; it makes a new one at every start and before the old one ends.
    pub server: Duration,
}

impl Default for Lifetimes {
    /// 90 days, renewed after two thirds of it, which leaves a host that is off for a month its identity.
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(24 * 60 * 60);
        Self { member: 90 * DAY, server: 90 * DAY }
    }
}

/// What a joiner asks for.
#[derive(Clone, Debug)]
pub struct JoinAsk<'a> {
    /// The token's text.
    pub token: &'a str,
    /// The name it wants.
    pub name: &'a str,
    /// Its certificate request in PEM; only its key is used.
    pub csr_pem: &'a str,
}

/// A certificate that was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// Whose it is.
    pub subject: Subject,
    /// The certificate in PEM.
    pub certificate_pem: String,
    /// The authority's certificate in PEM.
    pub authority_pem: String,
    /// When it ends.
    pub not_after: SystemTime,
}

/// The cluster's authority. Share it as `Arc<Authority>`.
pub struct Authority {
    key: AuthorityKey,
    lifetimes: Lifetimes,
    store: Arc<dyn Store>,
}

/// Without the key.
impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("cluster", &self.cluster()).finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes the authority of a new cluster and keeps it in the folder `dir`, readable by its owner only.
    ///
    /// # Errors
    /// When there is one already, which is never replaced, or the cluster's name cannot be used.
    pub fn init(dir: &Path, cluster: &str, now: SystemTime) -> Result<(), AuthorityError> {
        AuthorityKey::make(cluster, now)?.save_new(dir)
    }

    /// Reads the authority from the folder `dir`; its tokens and members are in `store`.
    ///
    /// # Errors
    /// Names the file that is missing or cannot be used.
    pub fn open(dir: &Path, store: Arc<dyn Store>, lifetimes: Lifetimes) -> Result<Self, AuthorityError> {
        Ok(Self { key: AuthorityKey::load(dir)?, lifetimes, store })
    }

    /// The cluster's name.
    #[must_use]
    pub fn cluster(&self) -> &str {
        self.key.cluster()
    }

    /// SHA-256 of the authority's certificate, which tokens pin.
    #[must_use]
    pub fn fingerprint(&self) -> Digest {
        self.key.fingerprint()
    }

    /// Makes a one-time token and answers until when it can be used. Only its hash is kept.
    ///
    /// # Errors
    /// When the name cannot be one, or the store fails.
    pub async fn create_token(
        &self,
        role: Role,
        name: Option<&str>,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<(Token, SystemTime), AuthorityError> {
        let name = name.map(|name| Subject::new(role, name).map(|_| name.to_owned())).transpose()?;
        let ttl = if ttl.is_zero() { TOKEN_TTL } else { ttl.min(TOKEN_TTL_MAX) };
        token::create(&*self.store, role, name, self.fingerprint(), ttl, now).await
    }

    /// Trades a token for a certificate. Refusals leave the token as it was.
    ///
    /// # Errors
    /// Says what is wrong with the token, the name or the request, and what to do.
    pub async fn join(&self, ask: JoinAsk<'_>, now: SystemTime) -> Result<Issued, AuthorityError> {
        let token: Token = ask.token.parse()?;
        if token.authority != self.fingerprint() {
            return Err(AuthorityError::TokenOfAnotherAuthority { role: token.role });
        }
        let subject = Subject::new(token.role, ask.name)?;
        let public_key = sign::requested_key(ask.csr_pem)?;
        let valid = token::check(&*self.store, &token, ask.name, now).await?;
        let seat = member::seat(&*self.store, &subject, valid.names(ask.name), now).await?;
        valid.use_up(&*self.store, &subject, now).await?;
        seat.take(&*self.store, &token.id_text(), now).await?;
        self.sign(subject, &public_key, now)
    }

    /// Gives a member a fresh certificate of the same name.
    ///
    /// # Errors
    /// [`AuthorityError::NotAMember`] when it was removed; otherwise what is wrong with the request.
    pub async fn renew(&self, peer: &Peer, csr_pem: &str, now: SystemTime) -> Result<Issued, AuthorityError> {
        let public_key = sign::requested_key(csr_pem)?;
        self.admit(peer).await?;
        self.sign(member::subject_of(peer)?, &public_key, now)
    }

    /// Whether the holder of a valid certificate is still a member; ask it for every session and call.
    ///
    /// # Errors
    /// [`AuthorityError::NotAMember`] when it was removed.
    pub async fn admit(&self, peer: &Peer) -> Result<(), AuthorityError> {
        member::admit(&*self.store, peer).await
    }

    /// Removes a member: its certificate is worth nothing from now on, and its name is free. Idempotent.
    ///
    /// # Errors
    /// When the store fails.
    pub async fn forget(&self, peer: &Peer) -> Result<(), AuthorityError> {
        member::forget(&*self.store, peer).await
    }

    /// Makes an operator without a token: the first one, on the coordinator's own host.
    ///
    /// # Errors
    /// When the name cannot be one or is taken, or the store fails.
    pub async fn enroll_operator(&self, name: &str, now: SystemTime) -> Result<Identity, AuthorityError> {
        let subject = Subject::new(Role::Operator, name)?;
        let seat = member::seat(&*self.store, &subject, false, now).await?;
        seat.take(&*self.store, "init", now).await?;
        let (key_pem, csr_pem) = request_certificate()?;
        let issued = self.sign(subject, &sign::requested_key(&csr_pem)?, now)?;
        Ok(Identity { certificate_pem: issued.certificate_pem, key_pem, authority_pem: issued.authority_pem })
    }

    /// Makes a fresh certificate for the coordinator itself; it is kept nowhere.
    ///
    /// # Errors
    /// When the key cannot sign.
    pub fn server_identity(&self, now: SystemTime) -> Result<Identity, AuthorityError> {
        let (key_pem, csr_pem) = request_certificate()?;
        let issued = self.sign(Subject::Coordinator, &sign::requested_key(&csr_pem)?, now)?;
        Ok(Identity { certificate_pem: issued.certificate_pem, key_pem, authority_pem: issued.authority_pem })
    }

    fn sign(
        &self,
        subject: Subject,
        public_key: &rcgen::PublicKey,
        now: SystemTime,
    ) -> Result<Issued, AuthorityError> {
        let lifetime = match &subject {
            Subject::Node(_) | Subject::Gateway(_) | Subject::Operator(_) => self.lifetimes.member,
            Subject::Coordinator => self.lifetimes.server,
        };
        let (certificate_pem, not_after) = sign::certificate(&self.key, &subject, public_key, lifetime, now)?;
        Ok(Issued {
            subject,
            certificate_pem,
            authority_pem: self.key.certificate_pem().to_owned(),
            not_after,
        })
    }
}
