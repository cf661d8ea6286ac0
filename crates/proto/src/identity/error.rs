//! What can go wrong with an identity, each with what to do about it.

use std::path::PathBuf;

/// Why an identity could not be read, obtained or used. Its text says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// A file could not be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// `read`, `write`, ...
        action: &'static str,
        /// Which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// There is no identity here yet.
    #[error("{} does not exist: this host has not joined; get a token with `baton node token` and run `baton agent join` (gateways: `baton gateway token`, `baton gateway join`; operators: `baton context add`)", path.display())]
    NotJoined {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// A certificate, key or file has content that cannot be used.
    #[error("{what} cannot be used: {detail}")]
    Unusable {
        /// What: a file's path, `the coordinator's answer`, ...
        what: String,
        /// Why, and what to do.
        detail: String,
    },
    /// The token's text is not one.
    #[error(
        "this is not a token: {0}; copy the whole line that `baton node token` or `baton gateway token` printed (it begins with `baton1.`)"
    )]
    Token(String),
    /// The address is not `HOST:PORT`.
    #[error("`{address}` is not an address; write HOST:PORT, as in `10.0.0.1:7443`")]
    NotAnAddress {
        /// What was written.
        address: String,
    },
    /// Nothing answered at the address.
    #[error(
        "cannot reach a coordinator at {address}: {detail}; check the address and that `baton coordinator run` listens there"
    )]
    Unreachable {
        /// `HOST:PORT`.
        address: String,
        /// What the system said.
        detail: String,
    },
    /// Something answered that is no coordinator, or one that speaks another TLS.
    #[error("what answers at {address} is not a Baton coordinator: {detail}; check the address and port")]
    NotACoordinator {
        /// `HOST:PORT`.
        address: String,
        /// What it did instead.
        detail: String,
    },
    /// The coordinator's certificate comes from another authority than ours.
    #[error(
        "the coordinator at {address} belongs to another authority: {detail}; if the address is right, someone may be in between, or the coordinator was made anew: get a new token from it and join again"
    )]
    WrongAuthority {
        /// `HOST:PORT`.
        address: String,
        /// What differs.
        detail: String,
    },
    /// The coordinator's certificate is of our authority but does not name a coordinator.
    #[error(
        "the certificate at {address} is of our authority but is not a coordinator's: {detail}; check the address"
    )]
    WrongName {
        /// `HOST:PORT`.
        address: String,
        /// What it names.
        detail: String,
    },
    /// The coordinator's own certificate has ended.
    #[error(
        "the certificate of the coordinator at {address} has expired or is not valid yet; check both hosts' clocks and restart the coordinator, which renews it"
    )]
    CoordinatorExpired {
        /// `HOST:PORT`.
        address: String,
    },
    /// Our certificate has ended.
    #[error(
        "the certificate of {who} has expired: {detail}; check this host's clock, then join again: make a token for exactly its name (`baton node token --name NAME`) and use it here with `baton agent join --force`; a gateway uses `baton gateway token --name NAME` and `baton gateway join --force`, an operator uses `baton context add --force`"
    )]
    Expired {
        /// Whose certificate.
        who: String,
        /// When, or who says so.
        detail: String,
    },
    /// The coordinator does not accept our certificate for another reason.
    #[error(
        "the coordinator at {address} does not accept our certificate ({detail}); it may have been made anew or this node removed: get a new token and join again with `--force`"
    )]
    NotAccepted {
        /// `HOST:PORT`.
        address: String,
        /// The TLS alert.
        detail: String,
    },
    /// The coordinator refused the request, or could not answer it now.
    #[error("the coordinator {}: {message}", if *retryable { "could not do it now, try again" } else { "refused" })]
    Refused {
        /// Its reason, which says what to do.
        message: String,
        /// Whether the same request may succeed later.
        retryable: bool,
    },
}

impl IdentityError {
    /// Whether the same call may succeed later without anyone doing anything.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Unreachable { .. } | Self::CoordinatorExpired { .. } => true,
            Self::Refused { retryable, .. } => *retryable,
            Self::File { .. }
            | Self::NotJoined { .. }
            | Self::Unusable { .. }
            | Self::Token(_)
            | Self::NotAnAddress { .. }
            | Self::NotACoordinator { .. }
            | Self::WrongAuthority { .. }
            | Self::WrongName { .. }
            | Self::Expired { .. }
            | Self::NotAccepted { .. } => false,
        }
    }

    pub(crate) fn unusable(what: impl Into<String>, detail: impl std::fmt::Display) -> Self {
        Self::Unusable { what: what.into(), detail: detail.to_string() }
    }
}
