//! What instances are given beside their artifact: files rendered from templates, and secrets.
//!
//! The coordinator sends, for each service of this node, where its instances are and the values of its secrets; the
//! templates are in the plan. Each run has a folder of files (`BATON_CONFIG_DIR`, in the state directory) and one of
//! secrets (`BATON_SECRETS_DIR`, in memory). [`files`] writes them, [`memory`] finds a place for secrets, [`vault`]
//! keeps their values.
//!
//! Peers and labels are kept on disk, so that a node that boots without its coordinator can render. Secrets are not: such
//! a node waits for them.

mod files;
mod memory;
mod vault;

pub use memory::forget_secrets;

use crate::config::{AgentFile, StateDir};
use crate::durable;
use crate::runs::confine;
use baton_model::configuration::{OnChange, Peer, Provision, SecretKey, signals_of};
use baton_model::id::{InstanceId, RunNumber, ServiceName};
use baton_model::plan::InstancePlan;
use baton_model::render::{self, Facts};
use baton_model::secret::Secret;
use baton_model::spec::StopSignal;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vault::Vault;

/// Anyone who may enter the folder may read a file; only the workload's user may read a secret.
const FILE_MODE: u32 = 0o444;
const SECRET_MODE: u32 = 0o400;

/// The folders of a run, where its release has anything to put there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Folders {
    pub(crate) config: Option<PathBuf>,
    pub(crate) secrets: Option<PathBuf>,
}

/// Why an instance cannot be given its files.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProvisionError {
    /// The template gives no text on this node.
    #[error("file `{file}` cannot be made here: {source}")]
    Template { file: String, source: render::RenderError },
    /// Secrets that this node does not have (yet).
    #[error(
        "it waits for {0}, which the coordinator has not sent since this host started; it goes on as soon as the coordinator is reached"
    )]
    Missing(String),
    /// There is no place for secrets.
    #[error(transparent)]
    NoMemory(#[from] memory::NoMemory),
    /// The user whose the files are to be is not known.
    #[error(transparent)]
    Owner(#[from] confine::Refusal),
    /// The file system refused.
    #[error("its files cannot be written to {folder}")]
    Io { folder: String, source: io::Error },
}

impl ProvisionError {
    /// Whether trying again may help.
    pub(crate) fn retryable(&self) -> bool {
        match self {
            Self::Missing(_) | Self::Io { .. } => true,
            Self::Template { .. } | Self::NoMemory(_) | Self::Owner(_) => false,
        }
    }
}

/// What is known of a service beside the plan, as it is kept on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Known {
    labels: BTreeMap<String, String>,
    peers: Vec<Peer>,
}

/// Everything this node was provided with. Shared by the driver and its tasks.
#[derive(Debug)]
pub(crate) struct Provisions {
    node: Arc<AgentFile>,
    path: PathBuf,
    config_root: PathBuf,
    /// The folder in memory, where there is one.
    memory: Result<PathBuf, memory::NoMemory>,
    inside: Mutex<Inside>,
    /// Held while files are made and written, so that what is written last was made last.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct Inside {
    known: BTreeMap<ServiceName, Known>,
    vault: Option<Vault>,
    /// What came since the last plan: it may be for the next one, which nothing here names yet.
    fresh: (BTreeSet<ServiceName>, BTreeSet<SecretKey>),
}

impl Provisions {
    /// Takes up what an earlier agent had.
    ///
    /// # Errors
    /// Those of the file system. That there is no place for secrets is told when a release needs one.
    pub(crate) fn open(state: &StateDir, node: Arc<AgentFile>) -> io::Result<Self> {
        let config_root = state.root().join("config");
        memory::make(&config_root)?;
        let memory = memory::open(&memory::candidates(), state.root());
        let vault = memory.as_deref().ok().map(Vault::open).transpose()?;
        let path = state.root().join("provisions.json");
        let known = durable::read_json(&path)?.unwrap_or_default();
        Ok(Self {
            node,
            path,
            config_root,
            memory,
            inside: Mutex::new(Inside { known, vault, fresh: Default::default() }),
            writing: Mutex::new(()),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Inside> {
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes in what the coordinator sent for a service: it takes the place of what was known.
    ///
    /// # Errors
    /// Those of the file system; it is in use all the same while this agent lives.
    pub(crate) fn take(&self, service: ServiceName, provision: Provision) -> io::Result<()> {
        let Provision { labels, peers, secrets } = provision;
        let mut inside = self.lock();
        inside.fresh.0.insert(service.clone());
        inside.fresh.1.extend(secrets.keys().cloned());
        let known = Known { labels, peers };
        let news = inside.known.get(&service) != Some(&known);
        inside.known.insert(service, known);
        let kept = inside.vault.as_mut().map_or(Ok(()), |vault| vault.add(secrets));
        if news {
            durable::replace_json(&self.path, &inside.known)?;
        }
        kept
    }

    /// A plan was taken in: what came before it is for it, or for nothing.
    pub(crate) fn plan_came(&self) {
        self.lock().fresh = Default::default();
    }

    /// Forgets services that are not here any more, and secrets that no release of an instance names.
    pub(crate) fn retain<'p>(
        &self,
        services: &BTreeSet<ServiceName>,
        plans: impl Iterator<Item = &'p InstancePlan>,
    ) {
        let mut needed: BTreeSet<SecretKey> =
            plans.flat_map(|plan| plan.spec.configuration.secrets.values()).map(|used| used.key()).collect();
        let mut inside = self.lock();
        let (fresh_services, fresh_keys) = inside.fresh.clone();
        needed.extend(fresh_keys);
        let before = inside.known.len();
        inside.known.retain(|service, _| services.contains(service) || fresh_services.contains(service));
        let forgotten = inside.vault.as_mut().map_or(Ok(()), |vault| vault.retain(&needed));
        let written = if inside.known.len() == before {
            Ok(())
        } else {
            durable::replace_json(&self.path, &inside.known)
        };
        if let Err(error) = forgotten.and(written) {
            tracing::warn!(%error, "what this node was provided with could not be forgotten yet");
        }
    }

    /// The folders of a run of this release.
    pub(crate) fn folders(&self, instance: &InstanceId, run: RunNumber, plan: &InstancePlan) -> Folders {
        let configuration = &plan.spec.configuration;
        let config = (!configuration.files.is_empty()).then(|| self.config_folder(instance, run));
        let secrets =
            (!configuration.secrets.is_empty()).then(|| self.secrets_folder(instance, run)).flatten();
        Folders { config, secrets }
    }

    fn config_folder(&self, instance: &InstanceId, run: RunNumber) -> PathBuf {
        self.config_root.join(format!("{instance}-{run}"))
    }

    fn secrets_folder(&self, instance: &InstanceId, run: RunNumber) -> Option<PathBuf> {
        let root = self.memory.as_ref().ok()?;
        Some(root.join("runs").join(format!("{instance}-{run}")))
    }

    /// Whether a run of this release could be given its files here: asked before the old release is touched.
    pub(crate) fn rehearse(&self, instance: &InstanceId, plan: &InstancePlan) -> Result<(), ProvisionError> {
        let ports = plan.spec.ports.keys().map(|name| (name.to_string(), 0)).collect();
        self.texts(instance, RunNumber(0), plan, &ports)?;
        self.values(plan)?;
        confine::owner(&plan.spec.sandbox)?;
        Ok(())
    }

    /// Writes the files and secrets of a run, all or none, in place of what is there.
    pub(crate) fn lay_out(
        &self,
        instance: &InstanceId,
        run: RunNumber,
        plan: &InstancePlan,
        ports: &BTreeMap<String, u16>,
    ) -> Result<Folders, ProvisionError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let folders = self.folders(instance, run, plan);
        let (texts, values) = (self.texts(instance, run, plan, ports)?, self.values(plan)?);
        let owner = confine::owner(&plan.spec.sandbox)?;
        let config = self.config_folder(instance, run);
        if !texts.is_empty() || config.exists() {
            let files = texts.iter().map(|(name, text)| (*name, text.as_bytes())).collect();
            put(&config, &files, FILE_MODE, owner)?;
        }
        if let Some(folder) = self.secrets_folder(instance, run).filter(|f| !values.is_empty() || f.exists())
        {
            let files = values.iter().map(|(name, value)| (*name, value.expose())).collect();
            // Others may pass through these, to the folder that is theirs.
            for parent in folder.ancestors().skip(1).take(2).collect::<Vec<_>>().into_iter().rev() {
                memory::make(parent)
                    .map_err(|source| ProvisionError::Io { folder: parent.display().to_string(), source })?;
            }
            put(&folder, &files, SECRET_MODE, owner)?;
        }
        Ok(folders)
    }

    /// What tells a run of the files that have another text now than on disk; `None` where none has.
    pub(crate) fn differing(
        &self,
        instance: &InstanceId,
        run: RunNumber,
        plan: &InstancePlan,
        ports: &BTreeMap<String, u16>,
    ) -> Option<Vec<StopSignal>> {
        if plan.spec.configuration.files.is_empty() {
            return None;
        }
        let texts = match self.texts(instance, run, plan, ports) {
            Ok(texts) => texts,
            Err(error) => {
                tracing::warn!(%instance, %error, "the files of an instance stay as they are");
                return None;
            }
        };
        let folder = self.config_folder(instance, run);
        let changed = |(name, text): &(&&str, &String)| {
            fs::read(folder.join(**name)).map_or(true, |present| present != text.as_bytes())
        };
        let asked: Vec<OnChange> = texts
            .iter()
            .filter(changed)
            .filter_map(|(name, _)| Some(plan.spec.configuration.files.get(*name)?.on_change))
            .collect();
        (!asked.is_empty()).then(|| signals_of(&asked))
    }

    /// Removes the folders of a run.
    pub(crate) fn forget(&self, instance: &InstanceId, run: RunNumber) {
        let folders = [Some(self.config_folder(instance, run)), self.secrets_folder(instance, run)];
        folders.iter().flatten().for_each(|folder| remove(folder));
        // With the last run that has secrets their folders go; others are not empty.
        if let Ok(root) = &self.memory {
            let _ = fs::remove_dir(root.join("runs")).and_then(|()| fs::remove_dir(root));
        }
    }

    /// Removes the folders of runs that are not among these (`<instance>-<run>`): what an earlier agent died over.
    pub(crate) fn prune(&self, runs: &BTreeSet<String>) {
        let roots = [Some(self.config_root.clone()), self.memory.as_ref().ok().map(|root| root.join("runs"))];
        for entry in roots.iter().flatten().flat_map(fs::read_dir).flatten().flatten() {
            if !entry.file_name().to_str().is_some_and(|name| runs.contains(name)) {
                remove(&entry.path());
            }
        }
    }

    /// The texts of a release's files, by name.
    fn texts<'p>(
        &self,
        instance: &InstanceId,
        run: RunNumber,
        plan: &'p InstancePlan,
        ports: &BTreeMap<String, u16>,
    ) -> Result<BTreeMap<&'p str, String>, ProvisionError> {
        let files = &plan.spec.configuration.files;
        if files.is_empty() {
            return Ok(BTreeMap::new());
        }
        let facts = self.facts(instance, run, plan, ports);
        let text = |(name, file): (&'p String, &baton_model::configuration::ConfigFile)| {
            let text = render::render(&file.template, &facts)
                .map_err(|source| ProvisionError::Template { file: name.clone(), source })?;
            Ok((name.as_str(), text))
        };
        files.iter().map(text).collect()
    }

    fn facts(
        &self,
        instance: &InstanceId,
        run: RunNumber,
        plan: &InstancePlan,
        ports: &BTreeMap<String, u16>,
    ) -> Facts {
        let known = self.lock().known.get(&instance.service).cloned();
        let known = known.unwrap_or_else(|| Known { labels: self.node.labels.clone(), peers: Vec::new() });
        let own = Peer {
            instance: instance.clone(),
            node: self.node.name.clone(),
            address: self.node.address.to_string(),
            ports: ports.clone(),
        };
        // Of itself this node knows more than the coordinator: the ports of the very run.
        let mut peers: Vec<Peer> =
            known.peers.into_iter().filter(|peer| peer.instance != *instance).collect();
        peers.push(own);
        peers.sort_by(|a, b| a.instance.cmp(&b.instance));
        let shown = |folder: Option<PathBuf>| folder.map_or_else(String::new, |it| it.display().to_string());
        Facts {
            node: self.node.name.clone(),
            address: self.node.address.to_string(),
            labels: known.labels,
            instance: instance.clone(),
            version: plan.version.clone(),
            release: plan.release,
            ports: ports.clone(),
            peers,
            config_dir: shown(Some(self.config_folder(instance, run))),
            secrets_dir: shown(self.secrets_folder(instance, run)),
        }
    }

    /// The secrets of a release, by file name.
    fn values<'p>(&self, plan: &'p InstancePlan) -> Result<BTreeMap<&'p str, Secret>, ProvisionError> {
        let secrets = &plan.spec.configuration.secrets;
        if secrets.is_empty() {
            return Ok(BTreeMap::new());
        }
        self.memory.clone()?;
        let inside = self.lock();
        let (mut values, mut missing) = (BTreeMap::new(), Vec::new());
        for (name, used) in secrets {
            match inside.vault.as_ref().and_then(|vault| vault.get(&used.key())) {
                Some(value) => {
                    values.insert(name.as_str(), value.clone());
                }
                None => missing.push(format!("secret `{}` (revision {})", used.secret, used.revision)),
            }
        }
        if missing.is_empty() { Ok(values) } else { Err(ProvisionError::Missing(missing.join(", "))) }
    }
}

fn put(
    folder: &Path,
    files: &BTreeMap<&str, &[u8]>,
    mode: u32,
    owner: files::Owner,
) -> Result<(), ProvisionError> {
    files::replace_all(folder, files, mode, owner)
        .map_err(|source| ProvisionError::Io { folder: folder.display().to_string(), source })
}

fn remove(folder: &Path) {
    if let Err(error) = fs::remove_dir_all(folder)
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(%error, folder = %folder.display(), "the files of a run could not be removed");
    }
}
