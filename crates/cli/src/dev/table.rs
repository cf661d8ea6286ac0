//! The processes of this host, as /proc has them.

use std::collections::BTreeMap;

/// One process, as /proc/PID/stat has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    /// Its parent's pid.
    pub(super) parent: u32,
    /// It has ended and was not reaped.
    pub(super) zombie: bool,
    /// In clock ticks since boot; with the pid it names a process for good.
    pub(super) start: u64,
}

/// Whether the process is a shim, by its command line.
pub(super) fn is_shim(pid: u32) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).nth(1) == Some(b"shim")
}

/// All processes that can be seen, by pid.
pub(super) fn table() -> BTreeMap<u32, Process> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return BTreeMap::new() };
    entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid: u32| {
            Some((pid, parse(&std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?))
        })
        .collect()
}

/// Reads a line of proc_pid_stat(5); the command in parentheses may hold anything, so it is skipped from behind.
fn parse(stat: &str) -> Option<Process> {
    let fields: Vec<&str> = stat.get(stat.rfind(')')? + 2..)?.split(' ').collect();
    // Field 3 of the manual is the first here.
    Some(Process {
        zombie: *fields.first()? == "Z",
        parent: fields.get(1)?.parse().ok()?,
        start: fields.get(19)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_line_is_read_whatever_the_command_is_called() {
        let line = "17 (a) b (c) Z 4 17 17 0 -1 4194560 1 0 0 0 0 0 0 0 20 0 1 0 987 0 0";
        assert_eq!(parse(line), Some(Process { parent: 4, zombie: true, start: 987 }));
        assert_eq!(parse("17 (x"), None);
    }
}
