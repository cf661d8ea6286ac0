//! placeholder

pub mod runs;
pub mod shim;
