//! A shim that is gone while its workload lives.
