//! The connection to a shim.
