//! The memory of one service while it is decided: the stored one until a room writes to it, then a copy.
//!
//! A room asks for it mutably only when it changes something: by that a round is seen to have changed nothing, and most
//! services, which are at rest, are never copied.

use crate::progress::ServiceProgress;
use std::borrow::Cow;
use std::ops::{Deref, DerefMut};

/// What is remembered of a service, copied at the first write. The copy is without the history, which no room reads
/// and which is long.
#[derive(Debug)]
pub(crate) struct Memory<'a> {
    progress: Cow<'a, ServiceProgress>,
    /// Written to since the mark.
    written: bool,
}

impl<'a> Memory<'a> {
    /// What is stored, or nothing yet.
    pub(crate) fn of(stored: Option<&'a ServiceProgress>) -> Self {
        let progress = stored.map_or_else(|| Cow::Owned(ServiceProgress::default()), Cow::Borrowed);
        Self { progress, written: false }
    }

    /// From here on [`Memory::written`] counts.
    pub(crate) fn mark(&mut self) {
        self.written = false;
    }

    /// Whether a room has written to it since the mark.
    pub(crate) fn written(&self) -> bool {
        self.written
    }

    /// Whether it says what is stored, its history aside.
    pub(crate) fn same(&self, stored: Option<&ServiceProgress>) -> bool {
        match (&self.progress, stored) {
            (Cow::Borrowed(memory), Some(stored)) if std::ptr::eq(*memory, stored) => true,
            (memory, Some(stored)) => {
                stored.stable == memory.stable
                    && stored.last_slot == memory.last_slot
                    && stored.slots == memory.slots
                    && stored.rollout == memory.rollout
                    && stored.silent == memory.silent
                    && stored.warm == memory.warm
                    && stored.route == memory.route
            }
            (memory, None) => **memory == ServiceProgress::default(),
        }
    }

    /// The memory to be stored; its history is the caller's to fill in.
    pub(crate) fn into_owned(self) -> ServiceProgress {
        match self.progress {
            Cow::Borrowed(stored) => working_copy(stored),
            Cow::Owned(memory) => memory,
        }
    }
}

impl Deref for Memory<'_> {
    type Target = ServiceProgress;

    fn deref(&self) -> &ServiceProgress {
        &self.progress
    }
}

impl DerefMut for Memory<'_> {
    fn deref_mut(&mut self) -> &mut ServiceProgress {
        self.written = true;
        if let Cow::Borrowed(stored) = self.progress {
            self.progress = Cow::Owned(working_copy(stored));
        }
        self.progress.to_mut()
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
        warm: stored.warm,
        route: stored.route.clone(),
    }
}
