//! The few lines of procfs that samples need; see proc(5).

use std::fs;
use std::io::Read as _;
use std::sync::OnceLock;

/// Processor time of the machine, in ticks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct CpuTimes {
    idle: u64,
    total: u64,
}

impl CpuTimes {
    /// Share in use since an earlier reading, 0 to 1.
    pub(super) fn share_since(&self, earlier: &Self) -> f64 {
        let total = self.total.saturating_sub(earlier.total);
        let idle = self.idle.saturating_sub(earlier.idle).min(total);
        if total == 0 { 0.0 } else { (total - idle) as f64 / total as f64 }
    }
}

/// Bytes through all interfaces but loopback since boot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) received: u64,
    pub(super) sent: u64,
}

/// Memory of the machine.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Memory {
    pub(super) total_bytes: u64,
    pub(super) available_bytes: u64,
}

/// One process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) cpu_ticks: u64,
    pub(super) resident_bytes: u64,
    /// Each of them may have children of its own.
    pub(super) threads: u64,
    /// Page faults that needed no disk. A process that forks has some, as its pages are shared from then on.
    pub(super) faults: u64,
    /// When it began, in ticks since boot: with its number, that is who it is.
    pub(super) started: u64,
}

pub(super) fn cpu_times() -> Option<CpuTimes> {
    parse_cpu(&fs::read_to_string("/proc/stat").ok()?)
}

fn parse_cpu(stat: &str) -> Option<CpuTimes> {
    let line = stat.lines().next()?.strip_prefix("cpu ")?;
    // user nice system idle iowait irq softirq steal; guest time is in user already.
    let times: Vec<u64> = line.split_ascii_whitespace().take(8).map_while(|n| n.parse().ok()).collect();
    Some(CpuTimes { idle: times.get(3)? + times.get(4).unwrap_or(&0), total: times.iter().sum() })
}

pub(super) fn traffic() -> Option<Traffic> {
    Some(parse_traffic(&fs::read_to_string("/proc/net/dev").ok()?))
}

fn parse_traffic(dev: &str) -> Traffic {
    let mut traffic = Traffic::default();
    for line in dev.lines().skip(2) {
        let Some((name, counters)) = line.split_once(':') else { continue };
        if name.trim() == "lo" {
            continue;
        }
        let mut counters = counters.split_ascii_whitespace().map(|n| n.parse().unwrap_or(0));
        traffic.received += counters.next().unwrap_or(0);
        // Seven more of receiving, then the bytes sent.
        traffic.sent += counters.nth(7).unwrap_or(0);
    }
    traffic
}

pub(super) fn memory() -> Option<Memory> {
    Some(parse_memory(&fs::read_to_string("/proc/meminfo").ok()?))
}

fn parse_memory(meminfo: &str) -> Memory {
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
        kib.unwrap_or(0) * 1024
    };
    Memory { total_bytes: field("MemTotal"), available_bytes: field("MemAvailable") }
}

pub(super) fn load1() -> Option<f64> {
    fs::read_to_string("/proc/loadavg").ok()?.split_ascii_whitespace().next()?.parse().ok()
}

pub(super) fn resident_bytes(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = statm.split_ascii_whitespace().nth(1)?.parse().ok()?;
    Some(pages * page_bytes())
}

/// One process; `None` when it is gone.
pub(super) fn process(pid: u32) -> Option<Process> {
    parse_process(&read_short(&format!("/proc/{pid}/stat"))?)
}

/// A file of procfs, with three system calls where [`fs::read_to_string`] makes five: a node of hundreds of instances
/// reads thousands of them in each sample.
fn read_short(path: &str) -> Option<String> {
    let mut file = fs::File::open(path).ok()?;
    let mut start = [0; 1024];
    let len = file.read(&mut start).ok()?;
    let mut text = std::str::from_utf8(&start[..len]).ok()?.to_owned();
    if len == start.len() {
        file.read_to_string(&mut text).ok()?;
    }
    Some(text)
}

fn parse_process(stat: &str) -> Option<Process> {
    // The second field is the program's name in parentheses, and may hold spaces and parentheses itself.
    let (_, rest) = stat.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok());
    Some(Process {
        cpu_ticks: field(14)? + field(15)?,
        resident_bytes: field(24)? * page_bytes(),
        threads: field(20)?,
        faults: field(10)?,
        started: field(22)?,
    })
}

/// The processes that a process with so many threads has started and that are its children now.
pub(super) fn children(pid: u32, threads: u64) -> Vec<u32> {
    let of_thread = |path: &str| -> Vec<u32> {
        let list = read_short(path).unwrap_or_default();
        list.split_ascii_whitespace().filter_map(|n| n.parse().ok()).collect()
    };
    if threads <= 1 {
        return of_thread(&format!("/proc/{pid}/task/{pid}/children"));
    }
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else { return Vec::new() };
    tasks.flatten().flat_map(|task| of_thread(&task.path().join("children").to_string_lossy())).collect()
}

pub(super) fn ticks_per_second() -> f64 {
    static TICKS: OnceLock<f64> = OnceLock::new();
    *TICKS.get_or_init(|| system_value(nix::unistd::SysconfVar::CLK_TCK, 100) as f64)
}

fn page_bytes() -> u64 {
    static PAGE: OnceLock<u64> = OnceLock::new();
    *PAGE.get_or_init(|| system_value(nix::unistd::SysconfVar::PAGE_SIZE, 4096))
}

fn system_value(name: nix::unistd::SysconfVar, usual: u64) -> u64 {
    nix::unistd::sysconf(name).ok().flatten().and_then(|value| u64::try_from(value).ok()).unwrap_or(usual)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_read_as_proc_5_describes_them() {
        let earlier = parse_cpu("cpu  100 0 100 700 100 0 0 0 0 0\ncpu0 1 2 3\n").unwrap();
        let later = parse_cpu("cpu  150 0 150 800 100 0 0 0 7 0\n").unwrap();
        assert_eq!(later.share_since(&earlier), 0.5);
        assert_eq!(earlier.share_since(&earlier), 0.0);

        let dev = "Inter-|   Receive                                                |  Transmit\n \
                   face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs\n    \
                   lo: 9 9 0 0 0 0 0 0 9 9 0 0 0 0 0 0\n  eth0:1000 10 0 0 0 0 0 0 2000 20 0 0 0 0 0 0\n";
        assert_eq!(parse_traffic(dev), Traffic { received: 1000, sent: 2000 });

        let memory = parse_memory("MemTotal:       16 kB\nMemFree: 1 kB\nMemAvailable:    4 kB\n");
        assert_eq!(memory, Memory { total_bytes: 16 * 1024, available_bytes: 4 * 1024 });

        let stat =
            "7 (a) b (c) S 1 7 7 0 -1 4194560 1 2 3 4 30 12 0 0 20 0 1 0 99 1000 5 18446744073709551615 1";
        let process = parse_process(stat).unwrap();
        let expected =
            Process { cpu_ticks: 42, resident_bytes: 5 * page_bytes(), threads: 1, faults: 1, started: 99 };
        assert_eq!(process, expected);
    }
}
