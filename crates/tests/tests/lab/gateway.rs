//! Gateways on hosts: the package and its unit, under load from outside. [`care`] is what an operator does to one,
//! [`faults`] what happens to it and behind it, [`strategies`] how it moves requests; here is what they ask of a fleet.

mod care;
mod faults;
mod strategies;

use crate::fleet::{Fleet, RATE, ROOM, beside_the_hosts, measured, web};
use baton_tests::harness::load::{Counted, Load, Plan};
use baton_tests::harness::{ServiceFile, wait};
use serde_json::Value;
use std::net::SocketAddr;

/// Where the packaged configuration has a gateway listen.
const HTTP: u16 = 80;
/// A client's connection is used for so many requests; then it makes a fresh one.
const KEPT: u32 = 5;

/// The sample service, one instance on each of two nodes, behind all gateways.
fn routed() -> ServiceFile {
    web(2).with_section("route", "path = \"/\"\n")
}

/// What a load counted, in a line.
fn line(counted: &Counted) -> String {
    format!(
        "{} requests, {} failed, p99 {:.0} ms, slowest {:.0} ms",
        counted.sent,
        counted.failed,
        counted.quantile_ms(0.99),
        counted.quantile_ms(1.0)
    )
}

/// Prints what a load counted, and holds it to have failed nothing.
#[track_caller]
fn none_failed(what: &str, counted: &Counted) {
    measured(what, line(counted));
    assert_eq!(counted.failed, 0, "{what}: {:#?}", counted.failures);
}

impl Fleet {
    /// Makes a gateway of a host, as docs/install.md tells it.
    pub(crate) fn join_gateway(&self, gateway: &str) {
        let token = self.baton(&["gateway", "token", "--name", gateway]).ok();
        self.hosts.ask(
            gateway,
            &format!(
                "baton gateway join --dir /var/lib/baton-gateway --coordinator {} --token {} --name {gateway} && systemctl start baton-gateway",
                self.coordinator_address(),
                token.trim()
            ),
        );
    }

    /// Waits until every gateway is connected and serves by the newest table.
    #[track_caller]
    pub(crate) fn await_tables(&self) {
        wait::until("the newest table at every gateway", ROOM, || {
            let ran = self.baton(&["gateway", "ls", "--json"]);
            let all: Value = serde_json::from_str(&ran.stdout).map_err(|_| ran.stderr.clone())?;
            let is_new = |it: &&Value| it["connected"] == true && it["state"]["table"] == it["table"];
            let count = all.as_array().map_or(0, |all| all.iter().filter(is_new).count());
            if count == self.gateways.len() { Ok(()) } else { Err(all.to_string()) }
        });
    }

    /// The process of a gateway's unit, `0` where none runs.
    fn gateway(&self, host: &str) -> String {
        self.hosts.property(host, "baton-gateway", "MainPID")
    }

    /// Waits until a gateway's unit has another process than this one, and returns it.
    #[track_caller]
    fn await_another(&self, host: &str, before: &str) -> String {
        wait::until("another process of the gateway", ROOM, || match self.gateway(host) {
            pid if pid != before && pid != "0" => Ok(pid),
            pid => Err(pid),
        })
    }

    /// Waits until a process of a host has ended.
    #[track_caller]
    fn await_end(&self, host: &str, pid: &str) {
        wait::until("end of the process before", ROOM, || {
            match self.hosts.run(host, &format!("kill -0 {pid}")).code {
                0 => Err(format!("{pid} is there")),
                _ => Ok(()),
            }
        });
    }

    /// The load of all tests through these gateways, from beside the hosts.
    fn through(&self, gateways: &[&str]) -> Load {
        let target = |host: &&str| -> SocketAddr {
            format!("{}:{HTTP}", self.hosts.address(host)).parse().expect("an address")
        };
        let targets = gateways.iter().map(target).collect();
        let plan = Plan { targets, connections: 8, rate: Some(RATE), requests_per_connection: KEPT };
        let load = beside_the_hosts(move || Load::start(&plan));
        self.await_sent(&load, 100);
        load
    }

    /// Lets a load go on for a while, then stops it.
    fn after_more(&self, load: Load) -> Counted {
        self.await_sent(&load, load.sent() + 200);
        load.stop()
    }
}
