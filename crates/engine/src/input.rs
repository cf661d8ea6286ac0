//! What a decision is made from.

use crate::progress::Progress;
use baton_model::desired::Desired;
use baton_model::observed::Observed;
use baton_model::time::UnixMs;

/// Everything a decision sees.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// What operators want.
    pub desired: &'a Desired,
    /// What agents report.
    pub observed: &'a Observed,
    /// What was remembered by the decision before.
    pub progress: &'a Progress,
    /// The time of the decision.
    pub now: UnixMs,
}
