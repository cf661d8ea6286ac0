//! What a release is made of.

use crate::id::Digest;
use serde::{Deserialize, Serialize};

/// How the bytes of an artifact are laid out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum ArtifactFormat {
    /// One file, kept under this name, executable.
    File {
        /// Its file name, without a path.
        name: String,
    },
    /// A tar archive.
    Tar,
    /// A tar archive compressed with gzip.
    TarGzip,
    /// A tar archive compressed with zstd; a folder is packed into this, deterministically.
    TarZstd,
}

/// The identity of an artifact: its bytes, by digest, and how to unpack them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Artifact {
    /// SHA-256 of the bytes as stored and sent.
    pub digest: Digest,
    /// Length of those bytes.
    pub size_bytes: u64,
    /// How to unpack them.
    pub format: ArtifactFormat,
    /// Upper bound of the space the unpacked content takes; the node checks for it before it fetches.
    pub unpacked_bytes: u64,
}
