//! What nodes report: instances in every state with every end, and figures.

use super::samples::{NOW, id};
use baton_model::id::{InstanceId, ReleaseNumber, RunNumber};
use baton_model::metrics::{InstanceMetrics, NodeMetrics};
use baton_model::observed::{
    Exit, HookEnd, InstanceObserved, InstanceState, LogDrops, ReloadObserved, ReloadPhase, SwapObserved,
    SwapPhase,
};
use baton_model::time::UnixMs;
use std::collections::BTreeMap;

pub(super) fn sample() -> InstanceMetrics {
    InstanceMetrics { cpu: 1.5, memory_bytes: 1 << 40, processes: 3 }
}

pub(super) fn metrics() -> Vec<NodeMetrics> {
    let one = NodeMetrics {
        cpu: 0.25,
        load1: 12.5,
        memory_used_bytes: 1,
        memory_total_bytes: 2,
        disk_free_bytes: 3,
        disk_total_bytes: 4,
        network_rx_bytes_per_s: 0.0,
        network_tx_bytes_per_s: 1e9,
        agent_memory_bytes: 5,
        instances: BTreeMap::from([(id("web.1"), sample())]),
    };
    vec![NodeMetrics::default(), one]
}

/// Every way in which a workload ends.
pub(super) fn exits() -> Vec<Exit> {
    let hooks = [HookEnd::Code(3), HookEnd::Signal(9), HookEnd::Exec(2), HookEnd::Timeout];
    let mut exits = vec![
        Exit::Code(-1),
        Exit::Signal(9),
        Exit::Exec(2),
        Exit::CoreDump(11),
        Exit::HostDown,
        Exit::OutOfMemory,
        Exit::Watchdog,
        Exit::WatchdogTriggered,
        Exit::NotLive,
        Exit::StartDeadline,
        Exit::StopDeadline,
    ];
    exits.extend(hooks.map(Exit::BeforeStart));
    exits
}

/// One instance for each state; between them every phase of a swap and every kind of exit.
pub(super) fn instances() -> Vec<(InstanceId, InstanceObserved)> {
    let states = [
        InstanceState::Absent,
        InstanceState::Fetching,
        InstanceState::Staged,
        InstanceState::Starting,
        InstanceState::Ready,
        InstanceState::Draining,
        InstanceState::Stopped,
        InstanceState::Failed,
    ];
    let reloads = [ReloadPhase::Running, ReloadPhase::Done, ReloadPhase::Failed];
    let phases = [
        SwapPhase::Staging,
        SwapPhase::StoppingOld,
        SwapPhase::Confirming,
        SwapPhase::DrainingOld,
        SwapPhase::Reverting,
        SwapPhase::Refreshing,
        SwapPhase::Failed,
    ];
    let exits = exits();
    let numbered = states.into_iter().enumerate();
    numbered
        .map(|(n, state)| {
            let swap = phases.get(n).map(|phase| SwapObserved {
                to: ReleaseNumber(2),
                attempt: 1,
                phase: *phase,
                reason: "because".to_owned(),
            });
            let instance = InstanceObserved {
                release: ReleaseNumber(1),
                state,
                ready_since: (state == InstanceState::Ready).then_some(UnixMs(NOW.0 - 5000)),
                run: RunNumber(n as u64),
                pid: (n > 2).then_some(4242),
                ports: BTreeMap::from([("http".to_owned(), 1), ("admin".to_owned(), u16::MAX)]),
                restarts: 7,
                crash_loop: n % 2 == 0,
                last_exit: exits.get(n).copied(),
                reason: String::new(),
                swap,
                status: format!("serves {n}"),
                reload: reloads.get(n).map(|phase| ReloadObserved {
                    number: u64::MAX,
                    phase: *phase,
                    reason: "its command failed".to_owned(),
                }),
                log_drops: LogDrops { lines: n as u64, bytes: u64::MAX, journal_lines: n as u64 / 2 },
            };
            (id(&format!("web.{}", n + 1)), instance)
        })
        .collect()
}
