//! A wish for a place.

use baton_model::id::ReleaseNumber;

/// A wish for a fresh slot, granted by placement.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// What the fresh slot runs.
    pub(crate) release: ReleaseNumber,
    /// The slot whose place it takes.
    pub(crate) replaces: Option<u64>,
    /// The replaced slot retires at once, since its node is lost.
    pub(crate) lost: bool,
    /// Only the node at this place will do.
    pub(crate) only: Option<usize>,
    /// The stage, by index, whose cohort it joins.
    pub(crate) stage: Option<usize>,
    /// It is of the set beside the one that serves; so is what takes the place of such a slot.
    pub(crate) beside: bool,
}

impl Wish {
    /// A further instance of `release`, anywhere it fits.
    pub(crate) fn further(release: ReleaseNumber) -> Self {
        Self { release, replaces: None, lost: false, only: None, stage: None, beside: false }
    }
}
