//! What coordinator, agents and gateways tell Prometheus, asked over HTTP while a cluster works.

use baton_metrics::page::documented;
use baton_tests::harness::openmetrics::{Family, fetch, parse};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile, wait};
use std::collections::BTreeMap;
use std::time::Duration;

const ROOM: Duration = Duration::from_secs(60);
const DOCS: &str = include_str!("../../../docs/metrics.md");

fn read(ip: &str) -> BTreeMap<String, Family> {
    let page = fetch(ip).expect("a page");
    assert_eq!(documented::missing(&page, DOCS), Vec::<String>::new(), "docs/metrics.md has not all of it");
    parse(&page).unwrap_or_else(|why| panic!("{why}\n{page}"))
}

/// Waits until a sample has this value.
fn wait_for(ip: &str, sample: &str, value: f64) {
    wait::until(sample, ROOM, || {
        let families = read(ip);
        let found = families.values().find_map(|family| family.samples.get(sample).copied());
        if found == Some(value) { Ok(()) } else { Err(format!("{found:?}")) }
    });
}

fn host(address: &str) -> String {
    address.rsplit_once(':').expect("a port").0.to_owned()
}

#[test]
fn every_role_has_a_page_that_is_documented_and_well_formed() {
    let extra = vec!["--gateways".to_owned(), "1".to_owned()];
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 1, extra, ..ClusterOptions::default() });
    let coordinator = host(cluster.ready["coordinator"]["address"].as_str().expect("an address"));
    let (agent, gateway) =
        (cluster.address(0), host(cluster.ready["gateways"][0]["http"].as_str().expect("an address")));
    let file = ServiceFile::web("web", 1)
        .with_ports("[ports.http]\nkind = \"dynamic\"\n")
        .with_env("NODE_ADDRESS", "${NODE_ADDRESS}")
        .with_section("route", "path = \"/\"\n");
    let _ = cluster.deploy(&file, "1.0").expect(0);

    for (sample, value) in [
        ("baton_coordinator_nodes{state=\"connected\"}", 1.0),
        ("baton_coordinator_rollouts_started_total", 1.0),
        ("baton_coordinator_rollouts_ended_total{outcome=\"succeeded\"}", 1.0),
        ("baton_coordinator_rollouts_ended_total{outcome=\"failed\"}", 0.0),
        ("baton_coordinator_rollout_running{service=\"web\"}", 0.0),
        ("baton_coordinator_instances_ready{service=\"web\"}", 3.0),
        ("baton_coordinator_service_health{service=\"web\",health=\"healthy\"}", 1.0),
        ("baton_coordinator_service_health{service=\"web\",health=\"down\"}", 0.0),
        ("baton_coordinator_gateway_connected{gateway=\"gateway-1\"}", 1.0),
    ] {
        wait_for(&coordinator, sample, value);
    }
    for (sample, value) in [
        ("baton_agent_connected", 1.0),
        ("baton_agent_instances{state=\"ready\"}", 3.0),
        ("baton_agent_instance_ready{service=\"web\",release=\"1\",instance=\"web.1\"}", 1.0),
        ("baton_agent_instance_processes{service=\"web\",release=\"1\",instance=\"web.1\"}", 1.0),
    ] {
        wait_for(&agent, sample, value);
    }
    wait_for(&gateway, "baton_gateway_upstream_well{service=\"web\",release=\"1\",instance=\"web.1\"}", 1.0);

    // A workload that dies is counted, and a coordinator that is new counts from 0.
    let (_, pid) = cluster.pids("web").into_iter().find(|(id, _)| id == "web.1").expect("it runs");
    cluster.kill(pid);
    wait_for(
        &agent,
        "baton_agent_instance_restarts_total{service=\"web\",release=\"1\",instance=\"web.1\"}",
        1.0,
    );
    let killed = cluster.role_pid("coordinator");
    cluster.kill(killed);
    wait::until("another coordinator's page", ROOM, || match cluster.role_pid_now("coordinator") {
        Some(pid) if pid != killed => fetch(&coordinator).map_err(|error| error.to_string()).map(drop),
        other => Err(format!("{other:?}")),
    });
    wait_for(&coordinator, "baton_coordinator_rollouts_started_total", 0.0);
    wait_for(&coordinator, "baton_coordinator_instances_ready{service=\"web\"}", 3.0);
    // Nodes and services are all that the number of series follows.
    let page = fetch(&coordinator).expect("a page");
    assert!(!page.contains("node-1"), "{page}");
}
