//! What tests the house as a whole: the simulated world, and the harness of the end-to-end tests and benches.

pub mod harness;
pub mod world;
