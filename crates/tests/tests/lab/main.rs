//! Baton on hosts: Debian with a real systemd, the packages installed by dpkg, a network that can be cut, power that can
//! be lost. `cargo xtask lab` builds the packages and runs these, as root; each prints what it measured.
//!
//! The hosts are those of `tests/lab/hosts.sh`. Every test has its own, and one runs at a time.

mod agent;
mod coordinator;
mod disk;
mod documented;
mod fleet;
mod gateway;
mod hosts;
mod install;
mod network;
mod packages;
mod power;
mod secrets;
mod supervisors;
