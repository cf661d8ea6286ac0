//! The first moments of an agent: which runs outlived the one before, and what is due about them.
//!
//! Every run is asked at the same time, so that a node full of instances is adopted as fast as one of them. An
//! instance with a run that lives but does not answer is held: nothing is decided about it until the shim answers.

use super::live::LiveRun;
use super::record::Managed;
use super::swap::Steered;
use super::{Driver, Inner};
use crate::clock;
use crate::journal::Draft;
use crate::runs::steer::Steering;
use crate::runs::{AdoptError, Adopted, Adoption, Listener, Runs};
use baton_engine::instance::{AdoptedRun, Event};
use baton_model::id::{InstanceId, RunNumber};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How often a shim that does not answer is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What was found of the runs of one instance.
#[derive(Debug, Default)]
pub(super) struct Found {
    alive: BTreeMap<RunNumber, (LiveRun, AdoptedRun)>,
    /// Runs that did not outlive the agent, and the sockets that were saved of them.
    gone: BTreeMap<RunNumber, Vec<Listener>>,
    /// Runs that live and do not answer.
    silent: Vec<PathBuf>,
}

impl Found {
    fn lives(&mut self, adopted: Adopted) {
        let Adopted { handle, state } = adopted;
        let run = AdoptedRun {
            release: handle.release(),
            pid: state.pid,
            ports: handle.ports().clone(),
            restarts: state.restarts,
            last_exit: state.last_exit,
            crash_loop: state.crash_loop,
        };
        self.alive.insert(handle.run(), (LiveRun::adopted(handle), run));
    }
}

impl Driver {
    /// Takes over what runs, tells every machine, and follows the plan on disk; the coordinator is not needed.
    ///
    /// # Errors
    /// The run directories cannot be listed.
    pub(crate) async fn start(&mut self) -> std::io::Result<()> {
        let began = clock::boot_now();
        let directories = self.parts.runs.list()?;
        let names: BTreeSet<String> = directories
            .iter()
            .filter_map(|directory| Some(directory.file_name()?.to_str()?.to_owned()))
            .collect();
        let asked = directories.into_iter().map(|directory| ask(self.parts.runs.clone(), directory));
        let mut found: BTreeMap<InstanceId, Found> = BTreeMap::new();
        for (directory, answer) in futures_util::future::join_all(asked).await {
            self.sort_in(&directory, answer, &mut found);
        }
        self.parts.provisions.prune(&names);
        let adopted: usize = found.values().map(|found| found.alive.len()).sum();
        let lost: usize = found.values().map(|found| found.gone.len()).sum();
        for id in found.keys() {
            // A run of an instance that is not remembered: its machine stops it as a stranger.
            self.instances.entry(id.clone()).or_insert_with(|| Managed::new(id.clone(), &self.parts.boot_id));
        }
        let ids: Vec<InstanceId> = self.instances.keys().cloned().collect();
        let booted = ids.iter().any(|id| self.is_of_another_boot(id));
        for id in ids {
            let found = found.remove(&id).unwrap_or_default();
            self.resume(&id, found);
        }
        self.follow_plan();
        // Instances that no plan ever named have nothing to wait for.
        if self.parts.plan.current().is_none() {
            let ids: Vec<InstanceId> = self.instances.keys().cloned().collect();
            ids.iter().for_each(|id| self.step(id, Event::Plan(None)));
        }
        let took = clock::boot_now().since(began);
        if adopted + lost > 0 {
            let of_lost = if booted { "ended with the host, which was booted" } else { "were gone" };
            self.parts.journal.record(
                Draft::info(
                    "adopted",
                    format!("took over {adopted} runs in {} ms; {lost} {of_lost}", took.0),
                )
                .with("count", adopted)
                .with("lost", lost)
                .with("booted", booted)
                .with("ms", took.0),
            );
        }
        self.settle();
        Ok(())
    }

    fn is_of_another_boot(&self, id: &InstanceId) -> bool {
        self.instances.get(id).is_some_and(|managed| managed.is_of_another_boot(&self.parts.boot_id))
    }

    fn sort_in(
        &self,
        directory: &Path,
        answer: Result<Adoption, AdoptError>,
        found: &mut BTreeMap<InstanceId, Found>,
    ) {
        let named = name_of(directory);
        match answer {
            Ok(Adoption::Adopted(adopted)) => {
                found.entry(adopted.handle.instance().clone()).or_default().lives(*adopted);
            }
            Ok(Adoption::Gone { record, reason, listeners }) => {
                let Some((id, run)) = record.map(|record| (record.instance, record.run)).or(named) else {
                    tracing::warn!(directory = %directory.display(), reason, "a folder among the runs is not one");
                    return;
                };
                if self.is_of_another_boot(&id) {
                    // Whatever can or cannot be read of it, this is why.
                    tracing::info!(instance = %id, %run, "a run ended with the host, which was booted since");
                } else {
                    tracing::warn!(instance = %id, %run, reason, "a run did not outlive the agent before");
                }
                found.entry(id).or_default().gone.insert(run, listeners);
            }
            Err(error) => {
                let error = super::told::told(&error);
                let draft = Draft::error("run-not-adopted", format!("{error}; it is asked again"));
                match named {
                    Some((id, _)) => {
                        self.parts.journal.record(draft.of(&id));
                        found.entry(id).or_default().silent.push(directory.to_owned());
                    }
                    None => self.parts.journal.record(draft),
                }
            }
        }
    }

    /// Tells a machine which of its runs live; holds it while one of them cannot be asked.
    fn resume(&mut self, id: &InstanceId, found: Found) {
        let Some(managed) = self.instances.get_mut(id) else { return };
        if !found.silent.is_empty() {
            managed.held = true;
            let (runs, inner, id) = (self.parts.runs.clone(), self.inner.clone(), id.clone());
            tokio::spawn(async move {
                let found = ask_until_answered(runs, found).await;
                let _ = inner.send(Inner::AdoptedLate { instance: id, found }).await;
            });
            return;
        }
        managed.held = false;
        let mut alive = BTreeMap::new();
        for (run, (live, state)) in found.alive {
            managed.live.insert(run, live);
            alive.insert(run, state);
        }
        recover_swap(managed);
        let (runs, mut gone, of) = (self.parts.runs.clone(), found.gone, id.clone());
        for (run, listeners) in &mut gone {
            managed.keep_rescued(*run, std::mem::take(listeners), clock::boot_now());
        }
        let booted = self.is_of_another_boot(id);
        self.step(id, Event::Resumed { alive, booted });
        if let Some(managed) = self.instances.get_mut(id) {
            managed.resumed_in(&self.parts.boot_id);
            let known: BTreeSet<RunNumber> = managed.live.keys().copied().collect();
            managed.record_mut().artifacts.retain(|run, _| known.contains(run));
        }
        for run in gone.into_keys() {
            let (runs, of) = (runs.clone(), of.clone());
            tokio::spawn(async move {
                if let Err(error) = runs.forget(&of, run).await {
                    tracing::warn!(%error, instance = %of, %run, "what is left of a run could not be removed");
                }
            });
        }
    }

    pub(super) fn take_adopted_late(&mut self, id: &InstanceId, found: Found) {
        self.resume(id, found);
        let plan = self.parts.plan.current().and_then(|plan| plan.instances.get(id)).cloned();
        self.step(id, Event::Plan(plan.map(Box::new)));
    }
}

async fn ask(runs: Runs, directory: PathBuf) -> (PathBuf, Result<Adoption, AdoptError>) {
    let answer = runs.adopt(&directory).await;
    (directory, answer)
}

/// A live shim is asked for as long as it takes: while it lives, so may its workload, and nothing else is safe.
async fn ask_until_answered(runs: Runs, mut found: Found) -> Found {
    while let Some(directory) = found.silent.pop() {
        match runs.adopt(&directory).await {
            Ok(Adoption::Adopted(adopted)) => {
                found.lives(*adopted);
            }
            Ok(Adoption::Gone { listeners, .. }) => {
                found.gone.extend(name_of(&directory).map(|(_, run)| (run, listeners)));
            }
            Err(_) => {
                found.silent.push(directory);
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }
    found
}

/// Two live runs on one address were in the middle of a swap: the later one is the candidate, or has just won.
fn recover_swap(managed: &mut Managed) {
    let numbers: Vec<RunNumber> = managed.live.keys().copied().collect();
    let turned_to = managed.record().turned_to;
    for (i, new) in numbers.iter().enumerate().skip(1) {
        for old in &numbers[..i] {
            let pairs: Vec<_> = {
                let (Some(old), Some(new)) = (managed.live.get(old), managed.live.get(new)) else { continue };
                let of_new = new.handle.listeners().iter();
                of_new
                    .filter_map(|new| {
                        let same = |old: &&crate::runs::Listener| {
                            old.place.is_same(&new.place) && old.inode != new.inode
                        };
                        Some((old.handle.listeners().iter().find(same)?.clone(), new.clone()))
                    })
                    .collect()
            };
            let flipped = turned_to == Some(*new);
            for (old_socket, new_socket) in pairs {
                match Steering::recover(&old_socket, &new_socket, flipped) {
                    Ok(steering) => {
                        let mut steered = Steered::new(steering, old_socket);
                        if flipped {
                            steered.relay_late();
                        }
                        if let Some(live) = managed.live.get_mut(new) {
                            live.beside = Some(*old);
                            live.steered.insert(new_socket.name.to_string(), steered);
                        }
                    }
                    Err(error) => {
                        tracing::error!(%error, place = %new_socket.place, "a swap's sockets could not be recovered");
                    }
                }
            }
        }
    }
}

/// The instance and run that a directory is named after: `<service>.<slot>-<run>`.
fn name_of(directory: &Path) -> Option<(InstanceId, RunNumber)> {
    let (instance, run) = directory.file_name()?.to_str()?.rsplit_once('-')?;
    Some((instance.parse().ok()?, RunNumber(run.parse().ok()?)))
}
