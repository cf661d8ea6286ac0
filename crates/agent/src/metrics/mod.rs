//! Samples of the node and of each instance, from procfs.
//!
//! A sample reads a handful of files and, per instance, those of its processes ([`tree`]), so that an idle node costs
//! next to nothing. [`page`] shows them to scrapers.

pub(crate) mod page;
mod procfs;
mod tree;

use crate::artifacts::space;
use crate::clock;
use crate::driver::ShimPids;
use baton_model::id::InstanceId;
use baton_model::metrics::{InstanceMetrics, NodeMetrics};
use baton_model::time::BootMs;
use procfs::{CpuTimes, Traffic};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::watch;
use tree::Tree;

/// Takes a sample at once and then every `every`, for whoever watches.
pub(crate) async fn keep(
    state_dir: PathBuf,
    every: Duration,
    shims: watch::Receiver<ShimPids>,
    samples: watch::Sender<Option<NodeMetrics>>,
) {
    let mut sampler = Sampler::new(state_dir);
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let shims = shims.borrow().clone();
        samples.send_replace(Some(sampler.sample(&shims, clock::boot_now())));
    }
}

/// The machine's memory.
pub(crate) fn memory_bytes() -> u64 {
    procfs::memory().map_or(0, |memory| memory.total_bytes)
}

/// What the rates of the next sample are computed from.
#[derive(Debug)]
struct Sampler {
    state_dir: PathBuf,
    at: BootMs,
    cpu: CpuTimes,
    traffic: Traffic,
    /// The processes of each instance.
    instances: BTreeMap<InstanceId, Tree>,
}

impl Sampler {
    fn new(state_dir: PathBuf) -> Self {
        Self {
            state_dir,
            at: clock::boot_now(),
            cpu: procfs::cpu_times().unwrap_or_default(),
            traffic: procfs::traffic().unwrap_or_default(),
            instances: BTreeMap::new(),
        }
    }

    /// What cannot be read is zero: a sample is never worth an error.
    fn sample(&mut self, shims: &ShimPids, now: BootMs) -> NodeMetrics {
        let seconds = now.since(self.at).duration().as_secs_f64();
        let cpu = procfs::cpu_times().unwrap_or_default();
        let traffic = procfs::traffic().unwrap_or_default();
        let memory = procfs::memory().unwrap_or_default();
        let space = space::of(&self.state_dir).ok();
        let rate =
            |new: u64, old: u64| if seconds > 0.0 { new.saturating_sub(old) as f64 / seconds } else { 0.0 };
        let metrics = NodeMetrics {
            cpu: cpu.share_since(&self.cpu),
            load1: procfs::load1().unwrap_or_default(),
            memory_used_bytes: memory.total_bytes.saturating_sub(memory.available_bytes),
            memory_total_bytes: memory.total_bytes,
            disk_free_bytes: space.map_or(0, |space| space.free_bytes),
            disk_total_bytes: space.map_or(0, |space| space.total_bytes),
            network_rx_bytes_per_s: rate(traffic.received, self.traffic.received),
            network_tx_bytes_per_s: rate(traffic.sent, self.traffic.sent),
            agent_memory_bytes: procfs::resident_bytes(std::process::id()).unwrap_or_default(),
            instances: self.instances(shims, seconds),
        };
        (self.at, self.cpu, self.traffic) = (now, cpu, traffic);
        metrics
    }

    fn instances(&mut self, shims: &ShimPids, seconds: f64) -> BTreeMap<InstanceId, InstanceMetrics> {
        let mut metrics = BTreeMap::new();
        let before = std::mem::take(&mut self.instances);
        for (id, shims) in shims {
            let earlier = before.get(id);
            let tree = Tree::look(shims, earlier);
            let ticks = earlier.map_or(0, |earlier| tree.ticks_since(earlier));
            let cpu = if seconds > 0.0 { ticks as f64 / procfs::ticks_per_second() / seconds } else { 0.0 };
            let (memory_bytes, processes) = (tree.resident_bytes(), tree.processes());
            metrics.insert(id.clone(), InstanceMetrics { cpu, memory_bytes, processes });
            self.instances.insert(id.clone(), tree);
        }
        metrics
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    #[test]
    fn a_busy_process_below_its_shim_is_counted() {
        // A shell is the shim, a second one with two children the workload.
        let mut child = std::process::Command::new("/bin/sh")
            .args(["-c", "sh -c 'sleep 30 & sleep 30 & echo ready; while :; do :; done'; exit 0"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 6]).unwrap();
        let id: InstanceId = "web.1".parse().unwrap();
        let shims = ShimPids::from([(id.clone(), vec![child.id()])]);
        let mut sampler = Sampler::new(Path::new("/").to_owned());
        let began = clock::boot_now();
        let first = sampler.sample(&shims, began);
        // Until it has had some of a processor, which is counted in hundredths of a second.
        let second = loop {
            std::thread::sleep(Duration::from_millis(300));
            let next = sampler.sample(&shims, clock::boot_now());
            if next.instances[&id].cpu > 0.02 || clock::boot_now().0 > began.0 + 60_000 {
                break next;
            }
        };
        for pid in Tree::look(&[child.id()], None).pids() {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap()),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
        child.kill().unwrap();
        child.wait().unwrap();

        assert_eq!(first.instances[&id].cpu, 0.0, "one sample gives no rate");
        let instance = second.instances[&id];
        assert_eq!(instance.processes, 3);
        assert!(instance.memory_bytes > 0);
        assert!(instance.cpu > 0.02 && instance.cpu < 4.0, "{}", instance.cpu);
        assert!((0.0..=1.0).contains(&second.cpu), "{}", second.cpu);
        assert!(second.memory_used_bytes > 0 && second.memory_used_bytes < second.memory_total_bytes);
        assert!(second.agent_memory_bytes > 0);
        assert!(second.disk_total_bytes > 0);
    }
}
