//! The gateway: carries the requests of the fleet's services to the instances that the coordinator names.
//!
//! [`table`] takes in whole route tables; [`choose`] decides for each request which release and which instance gets
//! it; [`upstream`] is what is known of an instance, kept over revisions; [`health`] asks instances how they are;
//! [`evidence`] counts.

pub mod budget;
pub mod choose;
mod clock;
pub mod evidence;
pub mod hash;
pub mod health;
pub mod request;
pub mod table;
pub mod upstream;
