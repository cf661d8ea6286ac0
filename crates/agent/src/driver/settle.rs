//! After each round of events: what changed is written, and only then what is due is done and told.

use super::record::Managed;
use super::snapshot::Snapshot;
use super::{BATCH_MAX, Driver, Due, ShimPids};
use crate::journal::Draft;
use crate::{clock, durable, logs};
use baton_model::id::InstanceId;
use baton_model::time::Millis;
use std::collections::BTreeSet;
use std::io;
use std::path::Path;

/// A state that could not be written is tried again after this.
const WRITE_AGAIN: Millis = Millis(1_000);

impl Driver {
    /// Writes what changed, does what is due, and tells the rest of the agent.
    pub(super) fn settle(&mut self) {
        // An effect that fails at once feeds the machine again; what that asks for is done in the next round.
        for _ in 0..BATCH_MAX {
            self.tell_dependencies();
            self.write_changed();
            let due = std::mem::take(&mut self.due);
            let (now, later): (Vec<_>, Vec<_>) = due.into_iter().partition(|(id, _)| self.is_written(id));
            self.due = later;
            if now.is_empty() {
                break;
            }
            for (id, due) in now {
                match due {
                    Due::Effect(effect) => self.carry_out(&id, effect),
                    Due::Acknowledge { run, seq } => self.acknowledge(&id, run, seq),
                }
            }
        }
        self.forget_gone();
        self.publish();
    }

    fn is_written(&self, id: &InstanceId) -> bool {
        self.instances.get(id).is_none_or(|managed| !managed.is_changed())
    }

    /// Writes what has changed, of all instances at once: after a boot that is every one of them.
    pub(super) fn write_changed(&mut self) {
        self.write_again = None;
        let state = &self.parts.state;
        let mut changed = Vec::new();
        let mut failed = Vec::new();
        for (id, managed) in &mut self.instances {
            let Some(bytes) = managed.unwritten() else { continue };
            match bytes.and_then(|bytes| std::fs::create_dir_all(state.instance_dir(id)).map(|()| bytes)) {
                Ok(bytes) => changed.push((id.clone(), state.instance_path(id), bytes)),
                Err(error) => failed.push((id.clone(), error)),
            }
        }
        let files: Vec<(&Path, &[u8])> =
            changed.iter().map(|(_, path, bytes)| (path.as_path(), bytes.as_slice())).collect();
        let answers = durable::replace_all(&files);
        for ((id, _, bytes), answer) in changed.into_iter().zip(answers) {
            match (answer, self.instances.get_mut(&id)) {
                (Ok(()), Some(managed)) => managed.wrote(bytes),
                (Ok(()), None) => {}
                (Err(error), _) => failed.push((id, error)),
            }
        }
        failed.into_iter().for_each(|(id, error)| self.tell_not_written(&id, &error));
    }

    fn tell_not_written(&mut self, id: &InstanceId, error: &io::Error) {
        self.write_again = Some(clock::boot_now().plus(WRITE_AGAIN));
        if !self.instances.get_mut(id).is_some_and(Managed::write_failure_is_news) {
            return;
        }
        let message = format!(
            "the state of {id} cannot be written to {}: {error}; nothing is changed about it until it can (its shim keeps it \
             alive): free some space there",
            self.parts.state.root().display()
        );
        self.parts.journal.record(Draft::error("state-not-written", message).of(id));
    }

    /// Removes what is left of instances that are not wanted and of which nothing runs.
    fn forget_gone(&mut self) {
        let wanted = self.parts.plan.current();
        let gone: Vec<InstanceId> = self
            .instances
            .iter()
            .filter(|(id, managed)| {
                managed.is_gone() && !wanted.is_some_and(|plan| plan.instances.contains_key(id))
            })
            .map(|(id, _)| id.clone())
            .collect();
        for id in &gone {
            let folder = self.parts.state.instance_dir(id);
            if let Err(error) = std::fs::remove_dir_all(&folder)
                && error.kind() != std::io::ErrorKind::NotFound
            {
                tracing::warn!(%error, instance = %id, "what is left of an instance could not be removed");
            }
            self.instances.remove(id);
            self.parts
                .journal
                .record(Draft::info("instance-removed", format!("{id} is gone from this node")).of(id));
        }
        if !gone.is_empty() {
            self.forget_provisions();
            self.let_go();
            self.collect_garbage();
            let logs = self.parts.state.logs_dir();
            let present: BTreeSet<InstanceId> = self.instances.keys().cloned().collect();
            tokio::task::spawn_blocking(move || logs::prune_removed(&logs, &present));
        }
    }

    fn publish(&mut self) {
        let now = clock::boot_now();
        let snapshot = Snapshot::of(self.parts.plan.generation(), &self.instances, now);
        for (id, managed) in &mut self.instances {
            managed.chronicle.follow(id, snapshot.instances.get(id), now, &self.parts.journal);
        }
        self.observed.send_if_modified(|before| {
            let changed = *before != snapshot;
            *before = snapshot;
            changed
        });
        let shims: ShimPids =
            self.instances.iter().map(|(id, managed)| (id.clone(), managed.shim_pids())).collect();
        self.shims.send_if_modified(|before| {
            let changed = *before != shims;
            *before = shims;
            changed
        });
    }
}
