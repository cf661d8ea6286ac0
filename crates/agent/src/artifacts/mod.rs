//! The content-addressed store of artifacts on this node (invariant `verified-bytes`).
//!
//! ```text
//! artifacts/<key>/tree/          the unpacked content: files read-only, set-id bits dropped
//! artifacts/<key>/manifest.json  SHA-256 and mode of every file in it
//! artifacts/<key>.part           what has been fetched so far; a fetch goes on where it stopped
//! artifacts/<key>.unpacking/     work in progress, renamed to <key>/ when complete and synced
//! ```
//!
//! The key ([`key`]) is the digest of an archive, and that of the digest and the name of a single file.
//!
//! The way of an artifact: space is checked ([`space`]), the bytes are fetched and hashed ([`fetch`]), unpacked
//! into a folder beside ([`unpack`]), and renamed into place. Before each start that the agent leads, the tree is
//! checked against its manifest ([`manifest`]); what is damaged is fetched anew. [`retain`] keeps the newest
//! releases of each service and removes the rest.

pub(crate) mod fetch;
pub(crate) mod key;
pub(crate) mod manifest;
pub(crate) mod retain;
pub(crate) mod space;
pub(crate) mod store;
pub(crate) mod unpack;

pub(crate) use key::TreeKey;
pub(crate) use store::ArtifactStore;

use baton_engine::instance::Trouble;
use baton_model::id::Digest;
use std::io;

/// Why an artifact is not usable on this node.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ArtifactError {
    /// The disk would be too full; found out before anything was written.
    #[error(
        "not enough space for artifact {}: {} are needed ({} of them kept free), {} are free on {path}; free some space or use a larger disk",
        digest.short(),
        space::told(*needed),
        space::told(*reserve),
        space::told(*free)
    )]
    NoSpace {
        /// Which artifact.
        digest: Digest,
        /// What it needs at most, with the reserve.
        needed: u64,
        /// What always stays free.
        reserve: u64,
        /// What is free.
        free: u64,
        /// Where.
        path: String,
    },
    /// The coordinator could not be asked, or stopped answering.
    #[error("artifact {} could not be fetched from the coordinator: {reason}", digest.short())]
    Unavailable {
        /// Which artifact.
        digest: Digest,
        /// What went wrong.
        reason: String,
    },
    /// The bytes received are not those that were announced.
    #[error("artifact {} arrived damaged: {reason}; it was discarded", digest.short())]
    Damaged {
        /// Which artifact.
        digest: Digest,
        /// In what way.
        reason: String,
    },
    /// It can never be used: pack and deploy it again.
    #[error("artifact {} was refused: {reason}", digest.short())]
    Refused {
        /// Which artifact.
        digest: Digest,
        /// Why, and what to do.
        reason: String,
    },
    /// The disk of this node refused.
    #[error("artifact {}: cannot {what}: {source}", digest.short())]
    Io {
        /// Which artifact.
        digest: Digest,
        /// What was tried, and where.
        what: String,
        /// Why not.
        source: io::Error,
    },
}

impl ArtifactError {
    /// Whether trying again, unchanged, may help.
    #[must_use]
    pub(crate) fn trouble(&self) -> Trouble {
        match self {
            Self::NoSpace { .. } => Trouble::Lasting,
            Self::Unavailable { .. } | Self::Damaged { .. } | Self::Io { .. } => Trouble::Passing,
            Self::Refused { .. } => Trouble::Final,
        }
    }
}
