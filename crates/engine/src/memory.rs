//! The memory of one service while it is decided: the stored one until a room writes to it, then a copy; and the mark
//! of a round, by which the next one is seen to change nothing.

use crate::progress::{RolloutProgress, ServiceProgress, Slot};
use baton_model::id::{NodeName, ReleaseNumber};
use baton_model::time::UnixMs;
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::ops::{Deref, DerefMut};

/// What is remembered of a service, copied at the first write. The copy is without the history, which no room reads
/// and which is long.
#[derive(Debug)]
pub(crate) struct Memory<'a>(Cow<'a, ServiceProgress>);

impl<'a> Memory<'a> {
    /// What is stored, or nothing yet.
    pub(crate) fn of(stored: Option<&'a ServiceProgress>) -> Self {
        Self(stored.map_or_else(|| Cow::Owned(ServiceProgress::default()), Cow::Borrowed))
    }

    /// Whether it says what is stored, its history aside.
    pub(crate) fn same(&self, stored: Option<&ServiceProgress>) -> bool {
        match (&self.0, stored) {
            (Cow::Borrowed(memory), Some(stored)) if std::ptr::eq(*memory, stored) => true,
            (memory, Some(stored)) => {
                stored.stable == memory.stable
                    && stored.last_slot == memory.last_slot
                    && stored.slots == memory.slots
                    && stored.rollout == memory.rollout
                    && stored.silent == memory.silent
            }
            (memory, None) => **memory == ServiceProgress::default(),
        }
    }

    /// The memory to be stored; its history is the caller's to fill in.
    pub(crate) fn into_owned(self) -> ServiceProgress {
        match self.0 {
            Cow::Borrowed(stored) => working_copy(stored),
            Cow::Owned(memory) => memory,
        }
    }
}

impl Deref for Memory<'_> {
    type Target = ServiceProgress;

    fn deref(&self) -> &ServiceProgress {
        &self.0
    }
}

impl DerefMut for Memory<'_> {
    fn deref_mut(&mut self) -> &mut ServiceProgress {
        if let Cow::Borrowed(stored) = self.0 {
            self.0 = Cow::Owned(working_copy(stored));
        }
        self.0.to_mut()
    }
}

fn working_copy(stored: &ServiceProgress) -> ServiceProgress {
    ServiceProgress {
        stable: stored.stable,
        last_slot: stored.last_slot,
        slots: stored.slots.clone(),
        rollout: stored.rollout.clone(),
        history: Vec::new(),
        silent: stored.silent.clone(),
    }
}

/// What a round left behind.
#[derive(Debug)]
pub(crate) struct Mark {
    stable: Option<ReleaseNumber>,
    last_slot: u64,
    slots: Vec<SlotMark>,
    rollout: Option<RolloutProgress>,
    silent: BTreeSet<NodeName>,
}

/// Everything of a slot but its node, which never changes.
type SlotMark = (u64, ReleaseNumber, u32, UnixMs, bool, Option<u64>);

impl Mark {
    /// Marks where the memory is now.
    pub(crate) fn of(memory: &ServiceProgress) -> Self {
        let ServiceProgress { stable, last_slot, slots, rollout, history: _, silent } = memory;
        Self {
            stable: *stable,
            last_slot: *last_slot,
            slots: slots.iter().map(slot_mark).collect(),
            rollout: rollout.clone(),
            silent: silent.clone(),
        }
    }

    /// Whether the memory is where it was marked.
    pub(crate) fn holds(&self, memory: &ServiceProgress) -> bool {
        self.stable == memory.stable
            && self.last_slot == memory.last_slot
            && self.slots.iter().copied().eq(memory.slots.iter().map(slot_mark))
            && self.rollout == memory.rollout
            && self.silent == memory.silent
    }
}

fn slot_mark((number, slot): (&u64, &Slot)) -> SlotMark {
    let Slot { node: _, release, attempt, assigned_at, retiring, replaces } = slot;
    (*number, *release, *attempt, *assigned_at, *retiring, *replaces)
}
