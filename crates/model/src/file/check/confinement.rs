//! What can be wrong with limits and sandbox, as far as it can be told without the node.

use super::Findings;
use crate::confinement::{Limits, Sandbox};
use crate::file::value::shorten;
use crate::spec::ServiceSpec;

const MIB: u64 = 1 << 20;
/// Less is not enough for any program: it would be killed as it starts.
const MEMORY_MIN: u64 = MIB;
/// A processor's share below this is less than the kernel hands out in one period.
const CPU_PERCENT_MIN: u32 = 1;
/// A thousand processors.
const CPU_PERCENT_MAX: u32 = 100_000;
/// `cpu.weight` and `io.weight` (cgroup-v2.rst of the kernel's documentation).
const WEIGHT_MAX: u32 = 10_000;
/// `PID_MAX_LIMIT` of a 64-bit kernel.
const PIDS_MAX: u32 = 4 * 1024 * 1024;
/// Standard descriptors, sockets that are handed over, and those that a C library needs to start.
const OPEN_FILES_MIN: u64 = 64;
/// `sysctl_nr_open_max` of a 64-bit kernel.
const OPEN_FILES_MAX: u64 = 0x3fff_ffc0;
/// Most paths of a sandbox; each is a mount at every start.
const PATHS_MAX: usize = 64;
/// `PATH_MAX` of Linux, with its NUL.
const PATH_BYTES_MAX: usize = 4095;
/// Longest name of a user or group (useradd(8)).
const ACCOUNT_BYTES_MAX: usize = 32;
/// What a private `/tmp` brings with it.
const PRIVATE: [&str; 2] = ["/tmp", "/var/tmp"];

pub(super) fn check(spec: &ServiceSpec, findings: &mut Findings) {
    limits(&spec.limits, findings);
    sandbox(&spec.sandbox, findings);
}

fn limits(limits: &Limits, findings: &mut Findings) {
    let mut fits = true;
    for (field, value) in
        [("limits.memory_high", limits.memory_high), ("limits.memory_max", limits.memory_max)]
    {
        if value.is_some_and(|bytes| bytes < MEMORY_MIN) {
            fits = false;
            findings.add(
                &[field],
                format!("`{field}` is less than any program needs"),
                "write \"1MiB\" or more; a small server needs about \"64MiB\"",
            );
        }
    }
    if let (Some(high), Some(max)) = (limits.memory_high, limits.memory_max)
        && fits
        && high > max
    {
        findings.add(
            &["limits.memory_high", "limits.memory_max"],
            format!("`limits.memory_high` of {high} bytes is more than `limits.memory_max` of {max}"),
            "the workload is slowed at `memory_high` so that it need not be killed at `memory_max`; write less",
        );
    }
    if let Some(percent) = limits.cpu_percent
        && !(CPU_PERCENT_MIN..=CPU_PERCENT_MAX).contains(&percent)
    {
        findings.add(
            &["limits.cpu"],
            format!("`limits.cpu` of {percent}% is no share that can be given"),
            format!("write \"{CPU_PERCENT_MIN}%\" to \"{CPU_PERCENT_MAX}%\"; \"100%\" is one processor"),
        );
    }
    for (field, value, most) in [
        ("limits.cpu_weight", limits.cpu_weight, WEIGHT_MAX),
        ("limits.io_weight", limits.io_weight, WEIGHT_MAX),
        ("limits.pids_max", limits.pids_max, PIDS_MAX),
    ] {
        if let Some(value) = value {
            findings.range(field, value, 1, most);
        }
    }
    if let Some(files) = limits.open_files {
        findings.range("limits.open_files", files, OPEN_FILES_MIN, OPEN_FILES_MAX);
    }
}

fn sandbox(sandbox: &Sandbox, findings: &mut Findings) {
    account("sandbox.user", sandbox.user.as_deref(), findings);
    account("sandbox.group", sandbox.group.as_deref(), findings);
    paths("sandbox.read_only", &sandbox.read_only, findings);
    paths("sandbox.hidden", &sandbox.hidden, findings);
    contradictions(sandbox, findings);
    if let Some(folder) = &sandbox.working_directory {
        working_directory(folder, sandbox, findings);
    }
    if let Some(mask) = sandbox.umask {
        // A file always holds one that fits; by wire comes any number.
        findings.range("sandbox.umask", mask, 0, 0o777);
    }
    if let Some(nice) = sandbox.nice {
        findings.range("sandbox.nice", nice, -20, 19);
    }
}

fn account(field: &str, name: Option<&str>, findings: &mut Findings) {
    let Some(name) = name else { return };
    let number = !name.is_empty() && name.bytes().all(|b| b.is_ascii_digit());
    // The highest number means "no change" to the kernel (setresuid(2)).
    if number && name.parse::<u32>().is_ok_and(|number| number != u32::MAX) {
        return;
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.');
    let right = !number
        && name.len() <= ACCOUNT_BYTES_MAX
        && name.bytes().all(plain)
        && name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !right {
        findings.add(
            &[field],
            format!("`{field}` is `{}`, which is neither a name nor a number", shorten(name)),
            "write the name as the nodes have it, such as \"www-data\", or its number",
        );
    }
}

fn paths(field: &str, paths: &std::collections::BTreeSet<String>, findings: &mut Findings) {
    if paths.len() > PATHS_MAX {
        findings.add(
            &[field],
            format!("`{field}` has {} paths", paths.len()),
            format!("write at most {PATHS_MAX}; name the folder above them"),
        );
    }
    for path in paths {
        if path.len() > PATH_BYTES_MAX || path.contains('\0') {
            findings.add(
                &[field],
                format!("`{field}` has a path that Linux cannot hold"),
                format!("write at most {PATH_BYTES_MAX} bytes, without a NUL character"),
            );
        } else if let Some(plain) = plain_path(path) {
            if plain != *path {
                findings.add(
                    &[field],
                    format!("`{field}` has `{}`, which is not written plainly", shorten(path)),
                    format!("write \"{plain}\""),
                );
            }
        } else {
            findings.add(
                &[field],
                format!("`{field}` has `{}`, which is not an absolute path", shorten(path)),
                "begin with `/`, and write no `..`",
            );
        }
    }
    if field == "sandbox.hidden" && paths.contains("/") {
        findings.add(
            &[field],
            "`sandbox.hidden` has `/`, and a workload that sees nothing cannot run",
            "name the folders to hide, such as \"/root\"",
        );
    }
}

/// The path without `.`, doubled and trailing slashes; `None` where it is relative or climbs.
fn plain_path(path: &str) -> Option<String> {
    let parts: Vec<&str> =
        path.strip_prefix('/')?.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
    (!parts.contains(&"..")).then(|| format!("/{}", parts.join("/")))
}

/// Whether `path` is `folder` or below it.
fn is_within(path: &str, folder: &str) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || folder == "/")
}

fn contradictions(sandbox: &Sandbox, findings: &mut Findings) {
    for path in sandbox.read_only.intersection(&sandbox.hidden) {
        findings.add(
            &["sandbox.read_only", "sandbox.hidden"],
            format!("`{}` is both read-only and hidden", shorten(path)),
            "name it in one of the two; what is hidden cannot be read",
        );
    }
    for (field, paths) in [("sandbox.read_only", &sandbox.read_only), ("sandbox.hidden", &sandbox.hidden)] {
        let taken = paths.iter().find(|path| PRIVATE.iter().any(|own| is_within(path, own)));
        if let Some(path) = taken.filter(|_| sandbox.private_tmp) {
            findings.add(
                &[field, "sandbox.private_tmp"],
                format!(
                    "`{field}` has `{}`, but with `private_tmp` the workload has one of its own",
                    shorten(path)
                ),
                "take it out, or write `private_tmp = false`",
            );
        }
    }
}

fn working_directory(folder: &str, sandbox: &Sandbox, findings: &mut Findings) {
    const FIELD: &str = "sandbox.working_directory";
    if folder.is_empty() || folder.contains('\0') || folder.split('/').any(|part| part == "..") {
        findings.add(
            &[FIELD],
            format!("`{FIELD}` is `{}`, which is not a folder it can start in", shorten(folder)),
            "write a folder inside the artifact, without `..`, or an absolute path on the node",
        );
    }
    if let Some(hidden) = sandbox.hidden.iter().find(|hidden| is_within(folder, hidden)) {
        findings.add(
            &[FIELD, "sandbox.hidden"],
            format!("`{FIELD}` is inside `{}`, which is hidden from the workload", shorten(hidden)),
            "start in another folder, or take the path out of `hidden`",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_made_plain_or_refused() {
        for (path, plain) in [
            ("/etc", Some("/etc")),
            ("/", Some("/")),
            ("//etc/./x/", Some("/etc/x")),
            ("etc", None),
            ("/etc/../root", None),
            ("", None),
        ] {
            assert_eq!(plain_path(path).as_deref(), plain, "{path}");
        }
    }

    #[test]
    fn a_path_is_within_a_folder_by_whole_names() {
        assert!(is_within("/var/tmp/x", "/var/tmp") && is_within("/tmp", "/tmp") && is_within("/x", "/"));
        assert!(!is_within("/var/tmpfiles", "/var/tmp") && !is_within("/var", "/var/tmp"));
    }
}
