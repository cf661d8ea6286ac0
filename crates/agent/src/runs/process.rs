//! What `/proc` says of processes: identity, descendants.
