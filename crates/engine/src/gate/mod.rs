//! Gates: the questions that must be answered yes before a stage goes on. A gate answers in values and changes
//! nothing; the rollout asks, and acts on the answers. Missing data is never a yes.
//!
//! - [`analysis`]: what does the evidence of the new release say to the thresholds?
//! - [`bound`]: is a measure within its bound?
//! - [`usage`]: and what its instances use of their nodes?
//! - [`missing`]: why is there no evidence?
//! - [`health`]: does an instance run the right release, and has it been ready for long enough?
//! - [`bake`]: has everything been healthy for the stage's bake time?
//! - [`hold`]: has an operator paused the rollout, or must one approve the stage?

pub(crate) mod analysis;
pub(crate) mod bake;
mod bound;
pub(crate) mod health;
pub(crate) mod hold;
pub(crate) mod missing;
mod usage;
