//! Under which name an artifact's tree lies on this node.
//!
//! A single file lies in its tree under its own name, and its digest is that of its bytes alone: two services may have the
//! same bytes under two names, and so may two releases of one. Each name has a tree of its own. An archive holds its
//! names itself, so there the digest says it all.

use super::manifest::{Item, Manifest};
use crate::durable;
use baton_model::artifact::{Artifact, ArtifactFormat};
use baton_model::id::Digest;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::io;
use std::path::Path;

/// The manifest of a single file is shorter than this, whatever its name.
const SINGLE_MANIFEST_MAX: u64 = 4 * 1024;

/// Names the tree of an artifact. It is written as a digest is, since an agent before this one knew it as one.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct TreeKey(pub(crate) Digest);

impl TreeKey {
    /// The key of the artifact on a node that no earlier agent has left a tree on.
    pub(super) fn of(artifact: &Artifact) -> Self {
        match &artifact.format {
            ArtifactFormat::File { name } => {
                let hash = Sha256::new().chain_update(artifact.digest.0).chain_update(b"\0file\0");
                Self(Digest(hash.chain_update(name).finalize().into()))
            }
            ArtifactFormat::Tar | ArtifactFormat::TarGzip | ArtifactFormat::TarZstd => Self(artifact.digest),
        }
    }
}

impl fmt::Display for TreeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for TreeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "tree:{}", self.0)
    }
}

/// Trees of single files that an earlier agent named by their digest alone, each with the name of its file. They are used
/// as long as they are there: what runs from them goes on, and starts again without a coordinator.
#[derive(Debug, Default)]
pub(super) struct EarlierTrees(BTreeMap<Digest, String>);

impl EarlierTrees {
    /// Those in the store's folder. No new ones are made, so they are looked for once.
    pub(super) fn find(dir: &Path) -> io::Result<Self> {
        let mut found = BTreeMap::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(digest) = name.to_str().and_then(|name| name.parse::<Digest>().ok()) else { continue };
            if let Some(file) = single_file(&entry.path().join("manifest.json"), digest) {
                found.insert(digest, file);
            }
        }
        Ok(Self(found))
    }

    /// The key of the artifact here.
    pub(super) fn key(&self, artifact: &Artifact) -> TreeKey {
        match &artifact.format {
            ArtifactFormat::File { name } if self.0.get(&artifact.digest) == Some(name) => {
                TreeKey(artifact.digest)
            }
            ArtifactFormat::File { .. }
            | ArtifactFormat::Tar
            | ArtifactFormat::TarGzip
            | ArtifactFormat::TarZstd => TreeKey::of(artifact),
        }
    }

    /// It is there no more.
    pub(super) fn forget(&mut self, key: &TreeKey) {
        self.0.remove(&key.0);
    }
}

/// The name of the one file that a tree holds whose content is all of the artifact. What cannot be read is none: it is
/// fetched anew.
fn single_file(manifest: &Path, digest: Digest) -> Option<String> {
    if fs::metadata(manifest).ok()?.len() > SINGLE_MANIFEST_MAX {
        return None;
    }
    let manifest: Manifest = durable::read_json(manifest).ok()??;
    let mut entries = manifest.entries.into_iter();
    match (entries.next()?, entries.next()) {
        ((path, Item::File { sha256, .. }), None) if sha256 == digest => Some(path.to_str()?.to_owned()),
        _ => None,
    }
}
