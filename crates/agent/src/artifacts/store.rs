//! The store's front: artifacts by key, brought in when they are needed and checked before they are used.

use super::fetch::{self, io_error};
use super::key::EarlierTrees;
use super::manifest::{Checked, Manifest};
use super::retain::Uses;
use super::unpack::{UnpackError, unpack};
use super::{ArtifactError, TreeKey, space};
use crate::durable;
use crate::journal::{Draft, Journal};
use crate::runs::Seal;
use baton_model::artifact::Artifact;
use baton_model::id::{Digest, ServiceName};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::watch;
use tonic::transport::Channel;

/// A connection to the coordinator that is not back by then makes a fetch fail; the instance's brain tries again.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);

/// All artifacts of this node. One at a time is worked on per key.
#[derive(Debug)]
pub(crate) struct ArtifactStore {
    dir: PathBuf,
    link: watch::Receiver<Option<Channel>>,
    journal: Journal,
    busy: Mutex<BTreeMap<TreeKey, Arc<Bench>>>,
    /// Counts what is asked and what is begun, to know which came first.
    moments: AtomicU64,
    uses: Mutex<Uses>,
    earlier: Mutex<EarlierTrees>,
}

/// Where one at a time works on an artifact, and the latest check of it while others still wait for one.
type Bench = tokio::sync::Mutex<Option<Latest>>;

/// A check that found the artifact good.
#[derive(Debug)]
struct Latest {
    /// The moment when it began.
    began: u64,
    seal: Seal,
}

/// An artifact whose every byte was checked.
#[derive(Debug)]
pub(crate) struct Verified {
    /// What its files are like, for the shim.
    pub(crate) seal: Seal,
    /// It was damaged or missing, and fetched for this.
    pub(crate) fetched: bool,
}

impl ArtifactStore {
    /// Opens the store in `dir` and removes what an earlier agent had not finished. `link` gives the connection.
    ///
    /// # Errors
    /// What the file system says.
    pub(crate) fn open(
        dir: &Path,
        link: watch::Receiver<Option<Channel>>,
        journal: Journal,
    ) -> io::Result<Self> {
        fs::create_dir_all(dir)?;
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            if name.to_string_lossy().ends_with(".unpacking") || name.to_string_lossy().ends_with(".damaged")
            {
                fs::remove_dir_all(entry.path())?;
            }
        }
        let uses = durable::read_json(&dir.join("uses.json"))?.unwrap_or_default();
        Ok(Self {
            earlier: Mutex::new(EarlierTrees::find(dir)?),
            dir: dir.to_owned(),
            link,
            journal,
            busy: Mutex::default(),
            moments: AtomicU64::new(0),
            uses: Mutex::new(uses),
        })
    }

    /// Where the content of an artifact is, once [`ArtifactStore::bring_in`] has succeeded.
    pub(crate) fn tree(&self, artifact: &Artifact) -> PathBuf {
        self.tree_of(self.key(artifact))
    }

    /// By what the tree of an artifact is kept, and not removed while it is in use.
    pub(crate) fn key(&self, artifact: &Artifact) -> TreeKey {
        self.earlier.lock().unwrap_or_else(PoisonError::into_inner).key(artifact)
    }

    /// Makes sure that the artifact is unpacked here: fetches it unless it is.
    ///
    /// # Errors
    /// [`ArtifactError`]; whatever ran before is untouched.
    pub(crate) async fn bring_in(
        &self,
        service: &ServiceName,
        artifact: &Artifact,
    ) -> Result<(), ArtifactError> {
        let key = self.key(artifact);
        let busy = self.busy(key);
        let _alone = busy.lock().await;
        if !self.manifest_path(key).exists() {
            self.fetch_and_unpack(artifact, key).await?;
        }
        self.used(service, key);
        Ok(())
    }

    /// Checks every byte of the artifact; what is damaged is fetched anew, and checked again. Whoever waits while one
    /// check goes on shares the next: two hundred instances that start at once cost two checks. A check that began before
    /// it was asked for counts for nothing.
    ///
    /// # Errors
    /// [`ArtifactError`]: then it must not be started.
    pub(crate) async fn verify(
        &self,
        service: &ServiceName,
        artifact: &Artifact,
    ) -> Result<Verified, ArtifactError> {
        let asked = self.moment();
        let key = self.key(artifact);
        let busy = self.busy(key);
        let mut alone = busy.lock().await;
        if let Some(latest) = alone.as_ref().filter(|latest| latest.began > asked) {
            return Ok(Verified { seal: latest.seal.clone(), fetched: false });
        }
        let began = self.moment();
        let damage = match self.check(key).await {
            Ok(Checked::Good { removed, seal }) => {
                self.tell_removed(service, artifact.digest, &removed);
                *alone = Some(Latest { began, seal: seal.clone() });
                return Ok(Verified { seal, fetched: false });
            }
            Ok(Checked::Damaged(damage)) => Some(damage),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => Some(error.to_string()),
        };
        if let Some(damage) = damage {
            self.journal.record(
                Draft::warning(
                    "artifact-damaged",
                    format!(
                        "artifact {} of {service} is damaged on this node ({damage}); it is fetched anew",
                        artifact.digest.short()
                    ),
                )
                .with("service", service)
                .with("digest", artifact.digest),
            );
        }
        self.fetch_and_unpack(artifact, key).await?;
        match self.check(key).await {
            Ok(Checked::Good { seal, .. }) => Ok(Verified { seal, fetched: true }),
            Ok(Checked::Damaged(damage)) => Err(ArtifactError::Io {
                digest: artifact.digest,
                what: "read back what was just written".to_owned(),
                source: io::Error::other(format!("{damage}: is the disk failing?")),
            }),
            Err(source) => Err(io_error(artifact.digest, "read", &self.tree_of(key))(source)),
        }
    }

    fn tell_removed(&self, service: &ServiceName, digest: Digest, removed: &[PathBuf]) {
        if removed.is_empty() {
            return;
        }
        self.journal.record(
            Draft::warning(
                "artifact-cleaned",
                format!(
                    "files that are not part of artifact {} of {service} were removed from its folder: {}; \
                     a workload should write to its HOME",
                    digest.short(),
                    named(removed)
                ),
            )
            .with("service", service),
        );
    }

    /// Removes what neither a service nor a running instance needs any more.
    pub(crate) fn collect_garbage(&self, services: &BTreeSet<ServiceName>, in_use: &BTreeSet<TreeKey>) {
        let uses = {
            let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
            if uses.keep_services(services) {
                self.write_uses(&uses);
            }
            uses.clone()
        };
        let Ok(entries) = fs::read_dir(&self.dir) else { return };
        for entry in entries.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let Ok(key) = name.trim_end_matches(".part").parse().map(TreeKey) else { continue };
            // Whoever works on it will use it.
            if uses.keeps(&key, in_use) || self.is_busy(&key) {
                continue;
            }
            self.earlier.lock().unwrap_or_else(PoisonError::into_inner).forget(&key);
            let removed = if entry.path().is_dir() {
                fs::remove_dir_all(entry.path())
            } else {
                fs::remove_file(entry.path())
            };
            match removed {
                Ok(()) => {
                    tracing::info!(key = key.0.short(), "removed an artifact that is no longer needed")
                }
                Err(error) => {
                    tracing::warn!(%error, key = key.0.short(), "an artifact could not be removed")
                }
            }
        }
    }

    async fn check(&self, key: TreeKey) -> io::Result<Checked> {
        let (manifest, tree) = (self.manifest_path(key), self.tree_of(key));
        blocking(move || {
            let manifest: Manifest =
                durable::read_json(&manifest)?.ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
            manifest.check(&tree)
        })
        .await
    }

    async fn fetch_and_unpack(&self, artifact: &Artifact, key: TreeKey) -> Result<(), ArtifactError> {
        let part = self.dir.join(format!("{key}.part"));
        let fetched = fs::metadata(&part).map_or(0, |part| part.len());
        let free = space::of(&self.dir).map_err(io_error(artifact.digest, "ask the disk of", &self.dir))?;
        space::check(artifact, fetched, free.free_bytes, &self.dir)?;
        let result = async {
            fetch::fetch(self.connection(artifact.digest).await?, artifact, &part).await?;
            let (artifact, part, dir) = (artifact.clone(), part.clone(), self.dir.clone());
            blocking(move || install(&artifact, key, &part, &dir)).await
        }
        .await;
        if let Err(error) = &result {
            let discard = match error {
                // The disk is full or failing: give back what the fetch took, for those who run.
                ArtifactError::Io { .. } | ArtifactError::Refused { .. } => true,
                ArtifactError::NoSpace { .. }
                | ArtifactError::Unavailable { .. }
                | ArtifactError::Damaged { .. } => false,
            };
            if discard {
                let _ = fs::remove_file(&part);
            }
        }
        result
    }

    async fn connection(&self, digest: Digest) -> Result<Channel, ArtifactError> {
        let mut link = self.link.clone();
        let connected = tokio::time::timeout(CONNECTION_WAIT, link.wait_for(Option::is_some)).await;
        match connected {
            Ok(Ok(channel)) => channel.clone(),
            Ok(Err(_)) | Err(_) => None,
        }
        .ok_or_else(|| ArtifactError::Unavailable {
            digest,
            reason: "this node is not connected to it; it is tried again".to_owned(),
        })
    }

    fn tree_of(&self, key: TreeKey) -> PathBuf {
        self.dir.join(key.to_string()).join("tree")
    }

    fn manifest_path(&self, key: TreeKey) -> PathBuf {
        self.dir.join(key.to_string()).join("manifest.json")
    }

    fn moment(&self) -> u64 {
        self.moments.fetch_add(1, Ordering::Relaxed)
    }

    fn busy(&self, key: TreeKey) -> Arc<Bench> {
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        // Locks that nobody holds or waits for are dropped here, so that the map stays as small as the work.
        busy.retain(|_, lock| Arc::strong_count(lock) > 1);
        Arc::clone(busy.entry(key).or_default())
    }

    fn is_busy(&self, key: &TreeKey) -> bool {
        let busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        busy.get(key).is_some_and(|lock| Arc::strong_count(lock) > 1)
    }

    fn used(&self, service: &ServiceName, key: TreeKey) {
        let mut uses = self.uses.lock().unwrap_or_else(PoisonError::into_inner);
        if uses.used(service, key) {
            self.write_uses(&uses);
        }
    }

    fn write_uses(&self, uses: &Uses) {
        if let Err(error) = durable::replace_json(&self.dir.join("uses.json"), uses) {
            tracing::warn!(%error, "which artifacts are used could not be written; one may be fetched again later");
        }
    }
}

/// Unpacks beside, puts it on the disk and renames it into place: after a power cut the node starts what it was told to
/// run, and there may be no coordinator then to fetch anything from.
fn install(artifact: &Artifact, key: TreeKey, part: &Path, dir: &Path) -> Result<(), ArtifactError> {
    let digest = artifact.digest;
    let beside = dir.join(format!("{key}.unpacking"));
    let result = (|| {
        let tree = beside.join("tree");
        fs::create_dir_all(&tree).map_err(io_error(digest, "make", &tree))?;
        let manifest = unpack(artifact, part, &tree).map_err(|error| match error {
            UnpackError::Refused(reason) => ArtifactError::Refused { digest, reason },
            UnpackError::Io { what, source } => ArtifactError::Io { digest, what, source },
        })?;
        let path = beside.join("manifest.json");
        durable::replace_json(&path, &manifest).map_err(io_error(digest, "write", &path))?;
        durable::sync_tree(&beside).map_err(io_error(digest, "put on the disk", &beside))?;
        let place = dir.join(key.to_string());
        let damaged = dir.join(format!("{key}.damaged"));
        if place.exists() {
            // A damaged tree may still be in use by a running workload: it keeps its open files and its folder.
            fs::rename(&place, &damaged).map_err(io_error(digest, "move away", &place))?;
        }
        fs::rename(&beside, &place).map_err(io_error(digest, "move into place", &place))?;
        durable::sync_folder(dir).map_err(io_error(digest, "put on the disk", dir))?;
        let _ = fs::remove_dir_all(&damaged);
        let _ = fs::remove_file(part);
        Ok(())
    })();
    if result.is_err() {
        let _ = fs::remove_dir_all(&beside);
    }
    result
}

/// Runs disk work on the blocking pool.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // The task is never aborted, so it can only have panicked: that is our mistake, and goes on up.
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

fn named(paths: &[PathBuf]) -> String {
    /// Enough to recognise what writes there.
    const SHOWN: usize = 3;
    let mut text: Vec<String> = paths.iter().take(SHOWN).map(|path| path.display().to_string()).collect();
    if paths.len() > SHOWN {
        text.push(format!("and {} more", paths.len() - SHOWN));
    }
    text.join(", ")
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
