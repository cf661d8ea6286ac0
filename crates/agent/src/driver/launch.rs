//! Starts a run: the bytes are checked again, the ports made, the command built, and the shim started.

use super::swap::{Kept, Steered};
use crate::artifacts::ArtifactStore;
use crate::config::{AgentFile, StateDir};
use crate::runs::sockets::{Listener, free_port, listen};
use crate::runs::steer::Steering;
use crate::runs::{RunHandle, RunSpec, Runs, StartError, preflight};
use crate::workload::{Command, Surroundings};
use baton_model::id::{InstanceId, RunNumber};
use baton_model::plan::InstancePlan;
use baton_model::spec::PortKind;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

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
        let ports = self.ports(kept.as_mut())?;
        let around = surroundings(
            &self.state,
            &self.node,
            &self.artifacts,
            &self.instance,
            &self.plan,
            ports.numbers.clone(),
        );
        let Command { program, args, env, cwd } =
            around.command(&spec.exec, spec).map_err(|error| told(&error))?;
        preflight(&program).map_err(|error| told(&error))?;
        std::fs::create_dir_all(&around.home)
            .map_err(|error| format!("cannot make {}: {error}", around.home.display()))?;
        let request = RunSpec {
            instance: self.instance.clone(),
            run: self.run,
            release: self.plan.release,
            program,
            args,
            env,
            cwd,
            log_dir: self.state.run_log_dir(&self.instance, self.run),
            logs: spec.logs,
            restart: spec.restart.clone(),
            listeners: ports.listeners,
            ports: ports.numbers,
            seal: verified.seal,
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

    fn ports(&self, mut kept: Option<&mut Kept>) -> Result<Ports, String> {
        let mut ports = Ports::default();
        if let Some(kept) = &mut kept {
            ports.steered = std::mem::take(&mut kept.steered);
        }
        for (name, port) in &self.plan.spec.ports {
            let number = match port.kind {
                PortKind::Fixed { port } => port,
                PortKind::Dynamic => free_port(self.node.address).map_err(|error| told(&error))?,
                PortKind::Socket { port } => {
                    let address = SocketAddr::new(self.node.address, port);
                    let old = self.beside.iter().flat_map(|(_, listeners)| listeners);
                    let listener = match old.into_iter().find(|listener| listener.address == address) {
                        Some(old) => {
                            let (steering, mut listener) =
                                Steering::begin(old).map_err(|error| told(&error))?;
                            // A release may give the port another name.
                            listener.name = name.clone();
                            ports.steered.insert(name.to_string(), Steered::new(steering, old.clone()));
                            listener
                        }
                        None => {
                            let kept = kept.as_ref().map_or(&[][..], |kept| &kept.listeners);
                            match kept
                                .iter()
                                .chain(&self.leaving)
                                .find(|it| it.address == address && it.listens())
                            {
                                Some(open) => Listener { name: name.clone(), ..open.clone() },
                                None => listen(name.clone(), address).map_err(|error| told(&error))?,
                            }
                        }
                    };
                    let number = listener.address.port();
                    ports.listeners.push(listener);
                    number
                }
            };
            ports.numbers.insert(name.to_string(), number);
        }
        Ok(ports)
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
        tree: artifacts.tree(&plan.artifact.digest),
        home: state.home_dir(instance),
    }
}

/// Whether the release could be started here, as far as its files say: asked when it is staged, so that a wrong
/// artifact is known before the old release is touched.
pub(super) fn rehearse(
    state: &StateDir,
    node: &AgentFile,
    artifacts: &ArtifactStore,
    instance: &InstanceId,
    plan: &InstancePlan,
) -> Result<(), String> {
    let ports = plan.spec.ports.keys().map(|name| (name.to_string(), 0)).collect();
    let around = surroundings(state, node, artifacts, instance, plan, ports);
    let command = around.command(&plan.spec.exec, &plan.spec).map_err(|error| told(&error))?;
    preflight(&command.program).map_err(|error| told(&error))
}

/// An error with its causes, in one line.
pub(crate) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
