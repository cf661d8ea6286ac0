//! The service file: TOML as a person writes it.
//!
//! placeholder: written by the owner of this room
