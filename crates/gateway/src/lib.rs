//! The gateway: carries the requests of the fleet's services to the instances that the coordinator names.
//!
//! [`Gateway`] is its life; a worker on each processor accepts, serves and forwards with connections of its own.
//!
//! [`table`] takes in whole route tables; [`choose`] decides for each request which release and which instance gets
//! it; [`upstream`] is what is known of an instance, kept over revisions; [`health`] asks instances how they are;
//! [`evidence`] counts; [`control`] is the tie to the coordinator.

mod accept;
mod access;
mod alarm;
mod app;
mod body;
pub mod budget;
pub mod choose;
mod clock;
pub mod config;
pub mod control;
mod crew;
mod descriptors;
pub mod evidence;
#[cfg(test)]
mod fixture;
pub mod hash;
pub mod health;
mod joined;
mod listen;
mod mirror;
pub mod network;
mod notify;
mod pool;
pub mod request;
mod role;
mod serve;
pub mod table;
mod tcp;
pub mod upstream;
mod worker;

pub use app::{Drained, Gateway, GatewayError};
pub use config::{ConfigError, GatewayConfig};
pub use listen::{CertificateError, Place, Purpose as PlacePurpose};
pub use role::{RunError, RunOptions, refuse, run};
