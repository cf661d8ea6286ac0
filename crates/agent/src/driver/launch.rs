//! Starts a run: the bytes are checked again, the ports made, the command built, and the shim started.

use super::confine;
use super::swap::{Kept, Steered};
use super::told::told;
use crate::artifacts::ArtifactStore;
use crate::config::{AgentFile, StateDir};
use crate::provisions::{Folders, Provisions};
use crate::runs::libraries::Loaders;
use crate::runs::sockets::{self, Listener, free_port, listen};
use crate::runs::steer::Steering;
use crate::runs::{
    Host, JournalOutput, Place, RunHandle, RunSpec, Runs, SocketError, StartError, UnixPlace, preflight,
};
use crate::workload::{Command, Surroundings};
use baton_model::id::{InstanceId, PortName, RunNumber};
use baton_model::plan::InstancePlan;
use baton_model::spec::PortKind;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// The longest wait for the sockets of an earlier run to be closed by its shim.
const CLOSED_WITHIN: Duration = Duration::from_secs(5);
const CLOSED_PAUSE: Duration = Duration::from_millis(10);

/// In an instance's folder, while a sandbox is tried.
const REHEARSAL: &str = "rehearsal";

/// A run that was started.
#[derive(Debug)]
pub(super) struct Launched {
    pub(super) handle: RunHandle,
    pub(super) beside: Option<RunNumber>,
    pub(super) steered: BTreeMap<String, Steered>,
    /// The lost run whose sockets it goes on with.
    pub(super) kept_from: Option<RunNumber>,
}

/// A run to be started, with everything it needs of the agent.
pub(super) struct Launch {
    pub(super) instance: InstanceId,
    pub(super) run: RunNumber,
    pub(super) plan: Box<InstancePlan>,
    /// The run that serves meanwhile, and its sockets.
    pub(super) beside: Option<(RunNumber, Vec<Listener>)>,
    /// What a lost run before it had open.
    pub(super) kept: Option<Kept>,
    /// Sockets of runs on their way out. Where a run must start before they are gone, it shares theirs.
    pub(super) leaving: Vec<Listener>,
    pub(super) state: Arc<StateDir>,
    pub(super) node: Arc<AgentFile>,
    pub(super) runs: Runs,
    pub(super) artifacts: Arc<ArtifactStore>,
    pub(super) provisions: Arc<Provisions>,
}

/// What was made for the run's ports.
#[derive(Default)]
struct Ports {
    numbers: BTreeMap<String, u16>,
    listeners: Vec<Listener>,
    steered: BTreeMap<String, Steered>,
}

impl Launch {
    /// Starts it; on an error nothing of it is left, and the text says what to do.
    pub(super) async fn start(mut self) -> Result<Launched, String> {
        let mut kept = self.kept.take();
        let InstancePlan { artifact, spec, .. } = &*self.plan;
        let verified = self.artifacts.verify(&spec.name, artifact).await.map_err(|error| told(&error))?;
        let ports = self.ports(kept.as_mut()).await?;
        let folders = self.lay_out(&ports.numbers).await?;
        let mut around = surroundings(
            &self.state,
            &self.node,
            &self.artifacts,
            &self.instance,
            &self.plan,
            ports.numbers.clone(),
        );
        around.folders = folders;
        let Command { program, args, mut env, cwd } =
            around.command(&spec.exec, spec).map_err(|error| told(&error))?;
        preflight(&program).map_err(|error| told(&error))?;
        std::fs::create_dir_all(&around.home)
            .map_err(|error| format!("cannot make {}: {error}", around.home.display()))?;
        let confinement = confine::resolve(spec, &around, &program, self.runs.host()).await?;
        confinement.name_user(&mut env);
        let request = RunSpec {
            instance: self.instance.clone(),
            run: self.run,
            release: self.plan.release,
            program,
            args,
            env,
            cwd: confinement.working_directory().cloned().unwrap_or(cwd),
            log_dir: self.state.run_log_dir(&self.instance, self.run),
            logs: spec.logs,
            journal: spec.logs.journald.then(|| self.journal()),
            restart: spec.restart.clone(),
            lifecycle: super::lifecycle::resolve(&around, spec)?,
            listeners: ports.listeners,
            ports: ports.numbers,
            seal: verified.seal,
            confinement,
        };
        let handle = match self.runs.start(request.clone()).await {
            // A start that an earlier agent died in: adoption has found no live shim there.
            Err(StartError::Exists(_)) => {
                self.runs.forget(&self.instance, self.run).await.map_err(|error| told(&error))?;
                self.runs.start(request).await
            }
            started => started,
        }
        .map_err(|error| told(&error))?;
        let (kept_from, was_beside) = kept.map_or((None, None), |kept| (Some(kept.from), kept.beside));
        let beside = self.beside.map(|(run, _)| run).or(was_beside);
        Ok(Launched { handle, beside, steered: ports.steered, kept_from })
    }

    /// What the system's journal is told with each line. A journal that has gone since the release was staged keeps no
    /// workload from running: what it does not take is counted.
    fn journal(&self) -> JournalOutput {
        let InstancePlan { release, version, spec, .. } = &*self.plan;
        let fields = vec![
            ("SYSLOG_IDENTIFIER", spec.name.to_string()),
            ("BATON_SERVICE", spec.name.to_string()),
            ("BATON_INSTANCE", self.instance.to_string()),
            ("BATON_NODE", self.node.name.to_string()),
            ("BATON_RELEASE", release.to_string()),
            ("BATON_VERSION", version.to_string()),
        ];
        JournalOutput { socket: self.runs.host().journal().to_owned(), fields }
    }

    /// Writes the run's files and secrets.
    async fn lay_out(&self, ports: &BTreeMap<String, u16>) -> Result<Folders, String> {
        if self.plan.spec.configuration.is_empty() {
            return Ok(Folders::default());
        }
        let (provisions, instance, run) = (Arc::clone(&self.provisions), self.instance.clone(), self.run);
        let (plan, ports) = (self.plan.clone(), ports.clone());
        let laid_out =
            tokio::task::spawn_blocking(move || provisions.lay_out(&instance, run, &plan, &ports)).await;
        laid_out.map_err(|error| told(&error))?.map_err(|error| told(&error))
    }

    async fn ports(&self, mut kept: Option<&mut Kept>) -> Result<Ports, String> {
        let mut ports = Ports::default();
        if let Some(kept) = &mut kept {
            ports.steered = std::mem::take(&mut kept.steered);
        }
        let open: &[Listener] = kept.as_ref().map_or(&[], |kept| &kept.listeners);
        for (name, port) in &self.plan.spec.ports {
            let number = match &port.kind {
                PortKind::Fixed { port } => Some(*port),
                PortKind::Dynamic => Some(free_port(self.node.address).map_err(|error| told(&error))?),
                PortKind::Socket { port } => {
                    let place = Place::Tcp(SocketAddr::new(self.node.address, *port));
                    self.socket(name, place, open, &mut ports).await?.map(|address| address.port())
                }
                PortKind::Udp { port } => {
                    let place = Place::Udp { udp: SocketAddr::new(self.node.address, *port) };
                    self.socket(name, place, open, &mut ports).await?.map(|address| address.port())
                }
                PortKind::Unix { path, mode } => {
                    let place = Place::Unix(UnixPlace {
                        path: path.into(),
                        own: format!("{path}.{}-{}", self.instance, self.run).into(),
                        mode: *mode,
                        owner: confine::owner(&self.plan.spec).await?,
                    });
                    let alive = self.beside.iter().flat_map(|(_, listeners)| listeners);
                    sockets::sweep(&place, alive.chain(open).chain(&self.leaving).cloned());
                    self.socket(name, place, open, &mut ports).await?;
                    None
                }
            };
            ports.numbers.extend(number.map(|number| (name.to_string(), number)));
        }
        Ok(ports)
    }

    /// The socket of one port: beside that of the run that serves, else the one that is open already, else a new one.
    async fn socket(
        &self,
        name: &PortName,
        place: Place,
        open: &[Listener],
        ports: &mut Ports,
    ) -> Result<Option<SocketAddr>, String> {
        let mut old = self.beside.iter().flat_map(|(_, listeners)| listeners);
        let same = |listener: &&Listener| listener.place.is_same(&place);
        let listener = if let Some(old) = old.find(same) {
            let (steering, listener) = begin(old, &place).await.map_err(|error| told(&error))?;
            ports.steered.insert(name.to_string(), Steered::new(steering, old.clone()));
            listener
        } else if let Some(open) = open.iter().chain(&self.leaving).filter(same).find(|it| it.listens()) {
            open.clone()
        } else {
            listen(name.clone(), place).map_err(|error| told(&error))?
        };
        let address = listener.address();
        // A release may give the port another name.
        ports.listeners.push(Listener { name: name.clone(), ..listener });
        Ok(address)
    }
}

/// A UDP socket leaves its group only when the shim of an ended run has closed it, a moment after the run was told gone.
async fn begin(old: &Listener, at: &Place) -> Result<(Steering, Listener), SocketError> {
    let deadline = Instant::now() + CLOSED_WITHIN;
    loop {
        match Steering::begin(old, at) {
            Err(SocketError::Crowded(..)) if Instant::now() < deadline => {
                tokio::time::sleep(CLOSED_PAUSE).await;
            }
            begun => return begun,
        }
    }
}

/// Where and as what a run of `plan` runs.
pub(super) fn surroundings(
    state: &StateDir,
    node: &AgentFile,
    artifacts: &ArtifactStore,
    instance: &InstanceId,
    plan: &InstancePlan,
    ports: BTreeMap<String, u16>,
) -> Surroundings {
    Surroundings {
        node: node.name.clone(),
        address: node.address,
        instance: instance.clone(),
        version: plan.version.clone(),
        ports,
        sockets: unix_paths(plan),
        tree: artifacts.tree(&plan.artifact),
        folders: Folders::default(),
        home: state.home_dir(instance),
    }
}

fn unix_paths(plan: &InstancePlan) -> BTreeMap<String, String> {
    let ports = plan.spec.ports.iter();
    let paths = ports.filter_map(|(name, port)| match &port.kind {
        PortKind::Unix { path, .. } => Some((name.to_string(), path.clone())),
        PortKind::Socket { .. } | PortKind::Udp { .. } | PortKind::Dynamic | PortKind::Fixed { .. } => None,
    });
    paths.collect()
}

/// Whether the release could be started here, as far as its files, its limits and its sandbox say: asked when it is
/// staged, so that what is wrong is known before the old release is touched.
pub(super) async fn rehearse(
    state: &StateDir,
    node: &AgentFile,
    artifacts: &ArtifactStore,
    (host, loaders): (&Arc<Host>, &Loaders),
    instance: &InstanceId,
    plan: &InstancePlan,
) -> Result<(), String> {
    let ports = plan.spec.ports.keys().map(|name| (name.to_string(), 0)).collect();
    let around = surroundings(state, node, artifacts, instance, plan, ports);
    let command = around.command(&plan.spec.exec, &plan.spec).map_err(|error| told(&error))?;
    let loader = preflight(&command.program).map_err(|error| told(&error))?;
    let tree = artifacts.tree(&plan.artifact);
    if let Some(loader) = loader.filter(|loader| !loader.starts_with(&tree)) {
        let asked = loaders.check(&loader, &command.program, &command.env, &command.cwd);
        asked.await.map_err(|error| told(&error))?;
    }
    if plan.spec.logs.journald {
        host.reach_journal().map_err(|error| told(&error))?;
    }
    let scratch = state.instance_dir(instance).join(REHEARSAL);
    confine::rehearse(&plan.spec, &around, &command.program, host, scratch).await?;
    super::lifecycle::resolve(&around, &plan.spec).map(drop)
}
