//! What a decision is made from.

use crate::progress::Progress;
use baton_model::desired::Desired;
use baton_model::id::InstanceId;
use baton_model::observed::Observed;
use baton_model::time::UnixMs;
use std::collections::BTreeSet;

/// Everything a decision sees.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// What operators want.
    pub desired: &'a Desired,
    /// What agents report.
    pub observed: &'a Observed,
    /// What was remembered by the decision before.
    pub progress: &'a Progress,
    /// Instances whose latest assignment their node has not confirmed: what is seen of them may be older than it.
    pub unconfirmed: &'a BTreeSet<InstanceId>,
    /// The time of the decision.
    pub now: UnixMs,
}

/// No instance awaits a confirmation.
pub static ALL_CONFIRMED: BTreeSet<InstanceId> = BTreeSet::new();
