//! How much may break now: how many ready instances our own actions may still take. Counted once per service and
//! spent in turn by every room, so that two rooms together cannot take what each alone might.
//!
//! - The **floor** is `min_available` of what is wanted, rounded up. While two releases meet, the lower of their two
//!   floors holds, since neither promises more until it is the only one. A first release promises nothing yet.
//! - An instance counts for the floor when it is **secure**: ready, on a node that is heard, and nothing we asked for
//!   can take it out of service. What faults took is gone from this count too, and then we wait.
//! - A change without a fixed port costs nothing here: the old process serves until the new one is ready, also when
//!   the change fails. It is bounded by its batch. A change with a fixed port stops the old process first and costs one.
//! - What is out of service already costs nothing to change: it may be what heals it.
//! - Beside the floor, no more than `max_unavailable` are out at a time; at least one, or nothing could ever change.

use baton_model::spec::Amount;

/// What one decision may take from one service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Budget {
    /// Instances wanted.
    pub wanted: u32,
    /// The least that our own actions keep ready.
    pub floor: u32,
    /// Instances that are ready.
    pub ready: u32,
    /// Ready instances that nothing we asked for takes out of service.
    pub secure: u32,
    left: u32,
}

/// The instances of a service that are to stay, counted by what they do now.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counted {
    /// They are ready.
    pub(crate) ready: u32,
    /// They are ready, and nothing we asked for takes them out of service.
    pub(crate) secure: u32,
    /// Their nodes are heard.
    pub(crate) reachable: u32,
}

impl Budget {
    /// What may be taken where `wanted` instances are asked for and `counted` are there.
    pub(crate) fn of(wanted: u32, floor: u32, max_unavailable: Amount, counted: Counted) -> Self {
        let Counted { ready, secure, reachable } = counted;
        let out = reachable.saturating_sub(secure);
        let most = max_unavailable.floor_of(wanted).max(1);
        let left = secure.saturating_sub(floor).min(most.saturating_sub(out));
        Self { wanted, floor, ready, secure, left }
    }

    /// Takes one secure instance out of service; `false` when none may be taken now.
    pub(crate) fn take(&mut self) -> bool {
        let allowed = self.left > 0;
        self.left = self.left.saturating_sub(1);
        allowed
    }

    /// Why nothing may be taken, for people.
    pub(crate) fn refusal(&self) -> String {
        format!(
            "{} of {} wanted instances are ready and settled, and {} must stay ready: it waits for more of them; \
             if none can come, lower `min_available` or add replicas",
            self.secure, self.wanted, self.floor
        )
    }
}
