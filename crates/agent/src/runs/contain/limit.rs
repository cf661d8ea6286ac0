//! A run's limits, as its control group has them (cgroup-v2.rst of the kernel's documentation).

use super::delegation::{IO_WEIGHTS, hand_down};
use baton_model::confinement::Limits;
use std::path::Path;
use std::{fs, io};

/// The period of `cpu.max`, in microseconds; the kernel's default.
const CPU_PERIOD_US: u64 = 100_000;

/// Goes with `memory.max`: 0. Without it the kernel swaps out what is above the limit, as long as there is swap; the
/// instance is not killed at its limit but slowed with all that share the disk. The file is not there in a kernel
/// without swap, or that does not count it, and then there is nothing to limit.
const SWAP: &str = "memory.swap.max";

/// BFQ knows weights of up to this.
const BFQ_WEIGHT_MAX: u32 = 1_000;

/// Whether any of the limits is a control group's.
pub(super) fn needs_group(limits: &Limits) -> bool {
    !limits.controllers().is_empty()
}

/// Limits the processes of `work`, which is directly below `group`. Weights are those of `group`: what they share out is
/// shared among the groups of all runs, and `work` has none beside it but the shim's.
///
/// # Errors
/// The kernel refused one, with its file; nothing may run there then.
pub(super) fn limit(group: &Path, work: &Path, limits: &Limits) -> io::Result<()> {
    if !needs_group(limits) {
        return Ok(());
    }
    let named = |file: &str, error: io::Error| io::Error::new(error.kind(), format!("{file}: {error}"));
    hand_down(group, limits.controllers().into_iter().map(|(controller, _)| controller))
        .map_err(|error| named("cgroup.subtree_control", error))?;
    let both = [(work, values(limits)), (group, weights(limits)), (group, io_weights(group, limits)?)];
    for (folder, values) in &both {
        for (file, value) in values {
            fs::write(folder.join(file), value)
                .map_err(|error| named(&format!("{file} = {value}"), error))?;
        }
    }
    let swap = work.join(SWAP);
    if limits.memory_max.is_some() && swap.exists() {
        fs::write(swap, "0").map_err(|error| named("memory.swap.max = 0", error))?;
    }
    Ok(())
}

/// Files and what is written into them.
fn values(limits: &Limits) -> Vec<(&'static str, String)> {
    let mut values = Vec::new();
    let mut add = |file, value: Option<String>| values.extend(value.map(|value| (file, value)));
    add("memory.high", limits.memory_high.map(|bytes| bytes.to_string()));
    add("memory.max", limits.memory_max.map(|bytes| bytes.to_string()));
    // A workload of which one process was taken away is in no state that anyone knows: all of it, or none.
    add("memory.oom.group", limits.memory_max.map(|_| "1".to_owned()));
    let quota_us = |percent: u32| u64::from(percent) * CPU_PERIOD_US / 100;
    add("cpu.max", limits.cpu_percent.map(|percent| format!("{} {CPU_PERIOD_US}", quota_us(percent))));
    add("pids.max", limits.pids_max.map(|most| most.to_string()));
    values
}

/// The same, for the share of what all runs want at once.
fn weights(limits: &Limits) -> Vec<(&'static str, String)> {
    let cpu = limits.cpu_weight.map(|weight| ("cpu.weight", weight.to_string()));
    cpu.into_iter().collect()
}

/// The same for disks, for each file that `group` has.
///
/// # Errors
/// It has none.
fn io_weights(group: &Path, limits: &Limits) -> io::Result<Vec<(&'static str, String)>> {
    let Some(weight) = limits.io_weight else { return Ok(Vec::new()) };
    let value = |file| match file {
        "io.bfq.weight" => bfq_weight(weight).to_string(),
        _ => format!("default {weight}"),
    };
    let there = IO_WEIGHTS.into_iter().filter(|file| group.join(file).exists());
    let values: Vec<_> = there.map(|file| (file, value(file))).collect();
    if values.is_empty() {
        let text = format!("none of {} is in {}", IO_WEIGHTS.join(", "), group.display());
        return Err(io::Error::new(io::ErrorKind::NotFound, text));
    }
    Ok(values)
}

/// 100 of both scales is the same, and so is the most (as systemd turns `IOWeight=` into it).
fn bfq_weight(weight: u32) -> u32 {
    const IO_WEIGHT_MAX: u32 = 10_000;
    match weight.checked_sub(100) {
        None => weight,
        Some(above) => (100 + above * (BFQ_WEIGHT_MAX - 100) / (IO_WEIGHT_MAX - 100)).min(BFQ_WEIGHT_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_written_as_the_kernel_reads_them() {
        let limits = Limits {
            memory_high: Some(400 << 20),
            memory_max: Some(512 << 20),
            cpu_percent: Some(150),
            cpu_weight: Some(200),
            pids_max: Some(64),
            io_weight: Some(50),
            open_files: Some(1024),
            core_bytes: Some(0),
        };
        let folder = tempfile::tempdir().unwrap();
        let work = folder.path().join("work");
        fs::create_dir(&work).unwrap();
        let error = limit(folder.path(), &work, &limits).unwrap_err().to_string();
        assert!(error.contains("none of io.weight, io.bfq.weight is in"), "{error}");
        // As the kernel makes them.
        for file in IO_WEIGHTS {
            fs::write(folder.path().join(file), "default 100").unwrap();
        }
        limit(folder.path(), &work, &limits).unwrap();
        assert!(!work.join(SWAP).exists(), "a kernel without it has nothing to limit");
        fs::write(work.join(SWAP), "max").unwrap();
        limit(folder.path(), &work, &Limits { memory_max: None, ..limits.clone() }).unwrap();
        assert_eq!(fs::read_to_string(work.join(SWAP)).unwrap(), "max");
        limit(folder.path(), &work, &limits).unwrap();
        let read = |path: &Path| fs::read_to_string(path).unwrap();
        assert_eq!(read(&folder.path().join("cgroup.subtree_control")), "+memory +cpu +pids +io");
        for (file, expect) in [
            ("memory.high", "419430400"),
            ("memory.max", "536870912"),
            ("memory.oom.group", "1"),
            ("memory.swap.max", "0"),
            ("cpu.max", "150000 100000"),
            ("pids.max", "64"),
        ] {
            assert_eq!(read(&work.join(file)), expect, "{file}");
        }
        for (file, expect) in [("cpu.weight", "200"), ("io.weight", "default 50"), ("io.bfq.weight", "50")] {
            assert_eq!(read(&folder.path().join(file)), expect, "{file}");
        }
    }

    #[test]
    fn weights_of_both_schedulers_mean_the_same() {
        let both = [(1, 1), (100, 100), (101, 100), (200, 109), (10_000, 1_000)];
        assert_eq!(both.map(|(weight, _)| (weight, bfq_weight(weight))), both);
    }

    #[test]
    fn rlimits_alone_need_no_group() {
        let limits = Limits { open_files: Some(64), ..Limits::default() };
        assert!(!needs_group(&limits));
        limit(Path::new("/no/such/group"), Path::new("/no/such/group/work"), &limits).unwrap();
        let error = limit(
            Path::new("/no/such/group"),
            Path::new("/no/such/group/work"),
            &Limits { pids_max: Some(1), ..limits },
        );
        assert!(error.unwrap_err().to_string().contains("cgroup.subtree_control"));
    }
}
