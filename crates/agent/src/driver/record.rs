//! One instance as the driver holds it: its machine, what is on disk of it, and its live runs.

use super::chronicle::Chronicle;
use super::launch::Launched;
use super::live::LiveRun;
use super::swap::{Closing, Kept};
use crate::artifacts::TreeKey;
use crate::config::StateDir;
use crate::durable;
use crate::journal::Journal;
use crate::runs::{Listener, RunEvent};
use baton_engine::instance::{Effect, Event, Instance};
use baton_model::id::{InstanceId, RunNumber};
use baton_model::spec::StopSignal;
use baton_model::time::{BootMs, Millis};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io;

/// What is written of an instance (`instance.json`).
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Record {
    pub(super) machine: Instance,
    /// The run that new connections were turned to in the latest swap; written before they are turned.
    #[serde(default)]
    pub(super) turned_to: Option<RunNumber>,
    /// Which artifact's tree each run that is not forgotten uses.
    #[serde(default)]
    pub(super) artifacts: BTreeMap<RunNumber, TreeKey>,
    /// The boot of the host in which it was last resumed or made; empty where an agent wrote it that kept none.
    #[serde(default)]
    boot_id: String,
}

/// A run whose shim is being started.
#[derive(Debug, Default)]
pub(super) struct Launching {
    /// What its shim told before its handle was here.
    pub(super) early: Vec<RunEvent>,
    /// It is to be stopped as soon as it is there.
    pub(super) stop: Option<(StopSignal, Millis)>,
}

/// One instance.
pub(super) struct Managed {
    record: Record,
    written: Vec<u8>,
    changed: bool,
    write_failed: bool,
    /// A run of it could not be spoken with yet: until then nothing is decided about it.
    pub(super) held: bool,
    pub(super) live: BTreeMap<RunNumber, LiveRun>,
    pub(super) launching: BTreeMap<RunNumber, Launching>,
    /// The sockets of a lost run, until its next run takes them.
    pub(super) kept: Option<Kept>,
    pub(super) chronicle: Chronicle,
    /// What it was last told of the services that it waits for.
    pub(super) told_unready: Option<Option<String>>,
    /// It was told that the plan no longer names it.
    pub(super) let_go: bool,
}

impl Managed {
    /// Nothing of it runs yet, in this boot of the host.
    pub(super) fn new(id: InstanceId, boot_id: &str) -> Self {
        let machine = Instance::new(id);
        let boot_id = boot_id.to_owned();
        Self::of(Record { machine, turned_to: None, artifacts: BTreeMap::new(), boot_id })
    }

    fn of(record: Record) -> Self {
        Self {
            record,
            written: Vec::new(),
            changed: false,
            write_failed: false,
            held: false,
            live: BTreeMap::new(),
            launching: BTreeMap::new(),
            kept: None,
            chronicle: Chronicle::default(),
            told_unready: None,
            let_go: false,
        }
    }

    pub(super) fn machine(&self) -> &Instance {
        &self.record.machine
    }

    /// Whether the host was booted since it was last resumed: nothing of it can be alive.
    pub(super) fn is_of_another_boot(&self, boot_id: &str) -> bool {
        !self.record.boot_id.is_empty() && self.record.boot_id != boot_id
    }

    /// It is resumed in this boot.
    pub(super) fn resumed_in(&mut self, boot_id: &str) {
        boot_id.clone_into(&mut self.record_mut().boot_id);
    }

    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// The record, to be changed; it is written before anything else is done.
    pub(super) fn record_mut(&mut self) -> &mut Record {
        self.changed = true;
        &mut self.record
    }

    /// Feeds the machine; its notes are journalled here, where the event that caused them is known.
    pub(super) fn step(&mut self, event: Event, now: BootMs, journal: &Journal) -> Vec<Effect> {
        self.changed = true;
        let facts = super::chronicle::facts(&event);
        let id = self.record.machine.id.clone();
        let effects = self.record.machine.step(event, now);
        let mut left = Vec::new();
        for effect in effects {
            match effect {
                Effect::Note { warning, kind, message } => {
                    self.chronicle.note(&id, warning, kind, message, &facts, now, journal);
                }
                Effect::Stage(_)
                | Effect::Start { .. }
                | Effect::Check { .. }
                | Effect::Steer { .. }
                | Effect::Drain { .. }
                | Effect::Stop { .. }
                | Effect::Restart { .. }
                | Effect::Mend { .. }
                | Effect::Reload { .. }
                | Effect::TellReady { .. }
                | Effect::Refresh { .. }
                | Effect::Forget(_) => left.push(effect),
            }
        }
        left
    }

    /// Whether something is not on disk yet.
    pub(super) fn is_changed(&self) -> bool {
        self.changed
    }

    /// The record as it is to be written, if it differs from what is on disk.
    pub(super) fn unwritten(&mut self) -> Option<io::Result<Vec<u8>>> {
        if !self.changed {
            return None;
        }
        match serde_json::to_vec(&self.record) {
            Ok(bytes) if bytes == self.written => {
                self.wrote(bytes);
                None
            }
            bytes => Some(bytes.map_err(io::Error::other)),
        }
    }

    /// These bytes are on disk.
    pub(super) fn wrote(&mut self, bytes: Vec<u8>) {
        self.written = bytes;
        self.changed = false;
        self.write_failed = false;
    }

    /// Whether a failed write is the first in a row.
    pub(super) fn write_failure_is_news(&mut self) -> bool {
        !std::mem::replace(&mut self.write_failed, true)
    }

    /// Whether nothing of it is left, in the machine's eyes and in ours.
    pub(super) fn is_gone(&self) -> bool {
        !self.held && self.record.machine.is_gone() && self.live.is_empty() && self.launching.is_empty()
    }

    pub(super) fn end_checks(&mut self, run: RunNumber) {
        if let Some(live) = self.live.get_mut(&run) {
            live.checks = None;
        }
    }

    /// Takes what the swap away from `run` has left open, if there is anything to close.
    pub(super) fn close_swap_from(&mut self, run: RunNumber) -> Option<Closing> {
        self.live.values_mut().find(|live| live.beside == Some(run)).and_then(LiveRun::take_closing)
    }

    /// Keeps the sockets of a run whose shim was lost, if it is the one that serves.
    pub(super) fn keep_sockets_of(&mut self, run: RunNumber, now: BootMs) {
        if self.record.machine.observe(now).is_some_and(|(seen, _)| seen.run == run) {
            self.kept = self.live.get_mut(&run).and_then(LiveRun::take_kept);
        }
    }

    /// Keeps the sockets that outlived a run and its shim, if it is the one that serves.
    pub(super) fn keep_rescued(&mut self, run: RunNumber, listeners: Vec<Listener>, now: BootMs) {
        let serves = self.record.machine.observe(now).is_some_and(|(seen, _)| seen.run == run);
        if serves && !listeners.is_empty() {
            self.kept = Some(Kept { from: run, listeners, beside: None, steered: BTreeMap::new() });
        }
    }

    /// The sockets of its live runs, less those of a candidate: those are closed with it.
    pub(super) fn leaving_listeners(&self) -> Vec<Listener> {
        let settled = self.live.values().filter(|live| live.steered.is_empty());
        settled.flat_map(|live| live.handle.listeners().to_vec()).collect()
    }

    /// The sockets of a run that is to be forgotten, less those that another run goes on with.
    pub(super) fn unused_sockets(&self, of: &LiveRun) -> Vec<Listener> {
        let live = self.live.values().flat_map(|live| live.handle.listeners());
        let kept = self.kept.iter().flat_map(|kept| &kept.listeners);
        let used: BTreeSet<u64> = live.chain(kept).map(|listener| listener.inode).collect();
        let listeners = of.handle.listeners().iter();
        listeners.filter(|listener| !used.contains(&listener.inode)).cloned().collect()
    }

    /// A run is there. Whoever was beside the lost run whose sockets it took is beside this one.
    /// Gives what a swap has left to close, where the old run was gone before.
    pub(super) fn launched(&mut self, run: RunNumber, launched: Launched) -> Option<Closing> {
        for other in self.live.values_mut().filter(|_| launched.kept_from.is_some()) {
            if other.beside == launched.kept_from {
                other.beside = Some(run);
            }
        }
        let mut live = LiveRun::launched(launched);
        let old_is_gone = live.beside.is_some_and(|old| !self.live.contains_key(&old));
        let closing = if old_is_gone { live.take_closing() } else { None };
        self.live.insert(run, live);
        closing
    }

    pub(super) fn shim_pids(&self) -> Vec<u32> {
        self.live.values().map(|live| live.handle.state().shim_pid).collect()
    }
}

/// Every instance that an earlier agent kept.
pub(super) fn load_all(state: &StateDir) -> io::Result<BTreeMap<InstanceId, Managed>> {
    let mut instances = BTreeMap::new();
    for entry in std::fs::read_dir(state.instances_dir())? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let Ok(id) = name.parse::<InstanceId>() else { continue };
        if let Some(record) = durable::read_json::<Record>(&state.instance_path(&id))? {
            instances.insert(id, Managed::of(record));
        }
    }
    Ok(instances)
}
