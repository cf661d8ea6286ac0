//! The page's names stay.

use super::*;
use baton_metrics::page::documented;
use baton_model::id::{ReleaseNumber, RunNumber};
use baton_model::observed::LogDrops;

fn page() -> String {
    let id: InstanceId = "web.1".parse().unwrap();
    let observed = InstanceObserved {
        release: ReleaseNumber(4),
        state: InstanceState::Ready,
        ready_since: None,
        run: RunNumber(2),
        pid: Some(7),
        ports: Default::default(),
        restarts: 3,
        crash_loop: false,
        last_exit: None,
        reason: String::new(),
        swap: None,
        status: String::new(),
        reload: None,
        log_drops: LogDrops { lines: 5, ..LogDrops::default() },
    };
    let sample = InstanceMetrics { cpu: 0.25, memory_bytes: 4096, processes: 2 };
    let page = Page {
        observed: Snapshot { instances: [(id.clone(), (observed, None))].into(), ..Snapshot::default() },
        sample: NodeMetrics { cpu: 0.5, instances: [(id, sample)].into(), ..NodeMetrics::default() },
        connected: true,
        waiting: 6,
        dropped: 1,
    };
    page::text("baton_agent", page)
}

/// The names, labels and types of docs/metrics.md: dashboards and alerts of others depend on them.
#[test]
fn the_page_is_as_documented() {
    let page = page();
    assert_eq!(
        documented::missing(&page, include_str!("../../../../../docs/metrics.md")),
        Vec::<String>::new()
    );
    assert_eq!(documented::rows(&page).len(), 19, "{page}");
    for sample in [
        "baton_agent_connected 1",
        "baton_agent_events_dropped_total 1",
        "baton_agent_node_cpu_ratio 0.5",
        "baton_agent_instances{state=\"ready\"} 1",
        "baton_agent_instances{state=\"failed\"} 0",
        "baton_agent_instance_restarts_total{service=\"web\",release=\"4\",instance=\"web.1\"} 3",
        "baton_agent_instance_log_lines_dropped_total{service=\"web\",release=\"4\",instance=\"web.1\"} 5",
        "baton_agent_instance_cpu_cores{service=\"web\",release=\"4\",instance=\"web.1\"} 0.25",
    ] {
        assert!(page.lines().any(|line| line == sample), "{sample} is not in\n{page}");
    }
}
