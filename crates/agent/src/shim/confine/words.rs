//! What a failed step of a confinement means, for the operator.

/// The part of `[limits]` or `[sandbox]` that a step belongs to, by the number that a failure has.
pub(crate) const fn failure_in_words(step: u8) -> &'static str {
    match step {
        1 => "sandbox.nice could not be set",
        2 => "limits.open_files or limits.core could not be set",
        3 => "the workload got no mounts of its own (sandbox.private_tmp, read_only, hidden)",
        4 => "sandbox.private_tmp, read_only or hidden could not be mounted: is every path still there?",
        5 => "sandbox.private_tmp, read_only or hidden could not be set on a mount",
        6 => "the workload's output could not be given to its user",
        7 | 9 => "sandbox.capabilities could not be set",
        8 => "sandbox.user or group could not be taken",
        10 => "sandbox.umask could not be set",
        11 => "sandbox.no_new_privileges could not be set",
        12 => "the workload could not be put into its control group, so its limits would not hold",
        _ => "the sandbox could not be entered",
    }
}
