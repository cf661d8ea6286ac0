//! Conversions between the model and the wire.
//!
//! Model to wire cannot fail: `From`. Wire to model is where everything is checked, once: `TryFrom` with one error,
//! [`WireError`], that names the field by its path. Checked here is what the model's types can hold: names, ports,
//! percentages, choices that are set, parts that are there. Whether a spec makes sense as a whole is asked by
//! [`baton_model::file::check_spec`].
//!
//! Where a receiver's clock or a whole node is part of it, the conversion is a function with that argument:
//! [`observed::instance_observed`], [`observed::instance_to_wire`], [`event::agent_event`].

pub mod configuration;
mod confinement;
pub mod event;
mod evidence;
mod exit;
mod field;
pub mod gateway;
mod lifecycle;
pub mod metrics;
pub mod node;
pub mod observed;
pub mod plan;
pub mod report;
pub mod rollout;
pub mod route;
pub mod spec;
pub mod status;
pub mod strategy;
pub mod traffic;
mod trial;
pub mod upgrade;

pub use field::WireError;

#[cfg(test)]
mod tests;
