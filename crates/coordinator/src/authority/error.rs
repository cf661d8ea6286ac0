//! Why the authority refuses, each with what to do next.

use crate::records::RecordError;
use crate::store::StoreError;
use baton_proto::identity::{IdentityError, Role, Subject};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

/// Why a token, a name or a certificate request was refused, or why the authority itself cannot work.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// There is no authority in the folder.
    #[error("{} does not exist: make the cluster first with `baton coordinator init`", path.display())]
    Missing {
        /// Where it was looked for.
        path: PathBuf,
    },
    /// There is one already.
    #[error("{} exists already: this folder holds a cluster, and its authority is never replaced; give another `--dir`", path.display())]
    Exists {
        /// Where it is.
        path: PathBuf,
    },
    /// Its file could not be read or written.
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
    /// Its file has content that cannot be used.
    #[error("{} cannot be used: {detail}; restore it from a backup", path.display())]
    Damaged {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A name or a token's text is malformed.
    #[error(transparent)]
    Malformed(#[from] IdentityError),
    /// The token was made by another cluster, or before this one was made anew.
    #[error("this token belongs to another authority; make one here with `{}`", role.token_command())]
    TokenOfAnotherAuthority {
        /// Who was to join.
        role: Role,
    },
    /// No such token, or its secret is wrong; which of the two is not told.
    #[error(
        "token {id} is not known here: it was mistyped, or its record is gone; make a new one with `{}`",
        role.token_command()
    )]
    TokenUnknown {
        /// The token's id.
        id: String,
        /// Who was to join.
        role: Role,
    },
    /// It was used before.
    #[error(
        "token {id} was used {when} by {by}, and a token works once; make a new one with `{}`",
        role.token_command()
    )]
    TokenUsed {
        /// The token's id.
        id: String,
        /// Who was to join.
        role: Role,
        /// How long ago, for people.
        when: String,
        /// By whom.
        by: String,
    },
    /// Its time is over.
    #[error("token {id} expired {when}; make a new one with `{}`", role.token_command())]
    TokenExpired {
        /// The token's id.
        id: String,
        /// Who was to join.
        role: Role,
        /// How long ago, for people.
        when: String,
    },
    /// It was made for another name.
    #[error(
        "token {id} was made for `{bound}` and cannot be used for `{asked}`; join as `{bound}`, or make another token"
    )]
    TokenForAnotherName {
        /// The token's id.
        id: String,
        /// The name it was made for.
        bound: String,
        /// The name that was asked for.
        asked: String,
    },
    /// Another member has the name.
    #[error(
        "{subject} has joined already ({when}); choose another name, or, to let this host take its place, make a token for exactly this name with `--name`, or remove the other one first"
    )]
    NameTaken {
        /// Who has it.
        subject: Subject,
        /// How long ago it joined, for people.
        when: String,
    },
    /// The certificate is good but its holder was removed.
    #[error("{subject} is no longer a member: it was removed; to come back, join again with a new token")]
    NotAMember {
        /// Who was removed.
        subject: Subject,
    },
    /// The certificate request cannot be used.
    #[error("the certificate request cannot be used: {0}")]
    BadRequest(String),
    /// More tokens are open than are kept.
    #[error("{0} tokens are waiting to be used already; wait until some of them expire")]
    TooManyTokens(usize),
    /// The store failed, or a compare-and-set was lost to another change.
    #[error("the authority's records cannot be read or written")]
    Store(#[from] StoreError),
    /// A record in the store cannot be used.
    #[error("the authority's records cannot be used")]
    Record(#[from] RecordError),
    /// Signing failed, or the system gave no randomness.
    #[error("cannot make a certificate: {0}")]
    Signing(String),
}

impl AuthorityError {
    /// Whether the same request may succeed later without anyone doing anything.
    #[must_use]
    pub const fn retryable(&self) -> bool {
        match self {
            Self::Store(error) => error.retryable() || error.is_conflict(),
            Self::TooManyTokens(_) => true,
            Self::Missing { .. }
            | Self::Exists { .. }
            | Self::File { .. }
            | Self::Damaged { .. }
            | Self::Malformed(_)
            | Self::TokenOfAnotherAuthority { .. }
            | Self::TokenUnknown { .. }
            | Self::TokenUsed { .. }
            | Self::TokenExpired { .. }
            | Self::TokenForAnotherName { .. }
            | Self::NameTaken { .. }
            | Self::NotAMember { .. }
            | Self::BadRequest(_)
            | Self::Record(_)
            | Self::Signing(_) => false,
        }
    }
}

/// `then` as seen from `now`, for people: `3 minutes ago`.
pub(super) fn ago(then: SystemTime, now: SystemTime) -> String {
    let length = now.duration_since(then).unwrap_or(Duration::ZERO).as_secs();
    let (number, unit) = match length {
        0..60 => (length, "second"),
        60..3600 => (length / 60, "minute"),
        3600..86_400 => (length / 3600, "hour"),
        86_400.. => (length / 86_400, "day"),
    };
    format!("{number} {unit}{} ago", if number == 1 { "" } else { "s" })
}
