//! What tests ask of a cluster with gateways: where they listen, what they serve by, how a rollout stands.

use super::{Cluster, wait};
use serde_json::Value;
use std::net::SocketAddr;
use std::time::Duration;

/// A step, a bake and its analysis take a few seconds on an idle machine; tests share two cores.
const ROOM: Duration = Duration::from_secs(120);

impl Cluster {
    /// Where the gateways listen for HTTP.
    ///
    /// # Panics
    /// When the cluster has none.
    #[must_use]
    pub fn gateways(&self) -> Vec<SocketAddr> {
        let all = self.ready["gateways"].as_array().expect("gateways");
        let address = |it: &Value| it["http"].as_str().expect("an address").parse().expect("an address");
        all.iter().map(address).collect()
    }

    /// Waits until every gateway serves by the newest route of the service, and returns the route.
    #[must_use]
    pub fn routed(&self, service: &str) -> Value {
        self.routed_as(service, "every gateway to serve by the newest route", |_| true)
    }

    /// Waits until the newest route of the service is as asked, and every gateway serves by it.
    #[must_use]
    pub fn routed_as(&self, service: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        let expected = self.gateways().len();
        wait::until(what, ROOM, || {
            let status = self.asked(&["route", "show", service])?;
            let served = status["gateways"].as_object().cloned().unwrap_or_default();
            let newest = served.values().filter(|it| **it == status["route"]["revision"]).count();
            if newest == expected && is_so(&status["route"]) {
                Ok(status["route"].clone())
            } else {
                Err(format!("{newest} of {expected}: {status:#}"))
            }
        })
    }

    /// Kills the process of a role, and waits until the cluster has started another.
    pub fn replace(&self, role: &str) {
        let killed = self.role_pid(role);
        self.kill(killed);
        wait::until(&format!("another process of {role}"), ROOM, || match self.role_pid_now(role) {
            Some(pid) if pid != killed => Ok(()),
            other => Err(format!("{other:?}")),
        });
    }

    /// Runs a read with `--json`. A coordinator that is being started, or a machine that stands still, gives no answer.
    ///
    /// # Errors
    /// What the command said.
    pub fn asked(&self, args: &[&str]) -> Result<Value, String> {
        let ran = self.baton(&[args, &["--json"]].concat());
        if ran.code == 0 { Ok(ran.json()) } else { Err(ran.stderr) }
    }

    /// Waits until the current rollout of the service is as asked, and returns it.
    #[must_use]
    pub fn rollout(&self, service: &str, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
        wait::until(what, ROOM, || {
            let rollout = self.asked(&["rollout", "status", service])?;
            if is_so(&rollout) { Ok(rollout) } else { Err(format!("{rollout:#}")) }
        })
    }

    /// Waits until the current rollout has ended in this way, and returns it.
    #[must_use]
    pub fn ended(&self, service: &str, outcome: &str) -> Value {
        self.rollout(service, &format!("a rollout that is {outcome}"), |rollout| {
            rollout["outcome"] == outcome
        })
    }

    /// The messages of the service's events of one kind, oldest first.
    #[must_use]
    pub fn told(&self, service: &str, kind: &str) -> Vec<String> {
        let ran = self.baton(&["events", "--last", "0", "--service", service, "--json"]).expect(0);
        let events = ran.stdout.lines().map(|line| serde_json::from_str::<Value>(line).expect("an event"));
        let of_kind = events.filter(|event| event["kind"] == kind);
        of_kind.map(|event| event["message"].as_str().expect("a message").to_owned()).collect()
    }
}
