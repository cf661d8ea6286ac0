//! A cluster on hosts: packages installed, a coordinator, nodes that have joined, and an operator beside them.

use crate::hosts::{Hosts, Said, repository, setting};
use baton_tests::harness::load::{Counted, Load, Plan};
use baton_tests::harness::{ServiceFile, baton_program, wait};
use serde_json::Value;
use std::fs::File;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Duration;
use tempfile::TempDir;

/// Everything comes within this, on a machine that is busy with other things, too.
pub(crate) const ROOM: Duration = Duration::from_secs(90);
/// The load of all tests, in requests a second.
pub(crate) const RATE: f64 = 200.0;
/// The port of the sample service.
pub(crate) const PORT: u16 = 8080;
/// The host of the coordinator.
pub(crate) const COORDINATOR: &str = "c1";

/// The cluster.
pub(crate) struct Fleet {
    pub(crate) hosts: Hosts,
    pub(crate) nodes: Vec<String>,
    pub(crate) gateways: Vec<String>,
    folder: TempDir,
}

/// Prints a figure of a test.
pub(crate) fn measured(what: &str, figure: impl std::fmt::Display) {
    println!("measured: {what}: {figure}");
}

/// The packages of one version: `old`, or `new` to upgrade to.
pub(crate) fn packages(version: &str, names: &[&str]) -> Vec<PathBuf> {
    let folder = PathBuf::from(setting("BATON_LAB_PACKAGES")).join(version);
    let find = |name: &&str| {
        let entries = std::fs::read_dir(&folder).expect("the packages were built");
        let mut paths = entries.map(|entry| entry.expect("a readable folder").path());
        let begins = format!("{name}_");
        let found =
            paths.find(|path| path.file_name().is_some_and(|it| it.to_string_lossy().starts_with(&begins)));
        found.unwrap_or_else(|| panic!("no package {name} in {}", folder.display()))
    };
    names.iter().map(find).collect()
}

/// Installs packages on a host as an operator does.
pub(crate) fn install(hosts: &Hosts, host: &str, version: &str, names: &[&str]) -> Said {
    let mut files = Vec::new();
    for package in packages(version, names) {
        let to = format!("/root/{}", package.file_name().expect("a file").to_string_lossy());
        hosts.push(host, &package, &to);
        files.push(to);
    }
    hosts.run(host, &format!("dpkg -i {}", files.join(" ")))
}

impl Fleet {
    /// A coordinator and so many nodes, each in a zone of its own, all connected.
    pub(crate) fn start(nodes: usize) -> Self {
        Self::start_with(nodes, false)
    }

    /// The same; see [`Hosts::boot`] for `own_disk`.
    pub(crate) fn start_with(nodes: usize, own_disk: bool) -> Self {
        Self::start_behind(nodes, 0, own_disk)
    }

    /// The same with so many gateways in front, all connected.
    pub(crate) fn start_behind(nodes: usize, gateways: usize, own_disk: bool) -> Self {
        let nodes: Vec<String> = (1..=nodes).map(|number| format!("n{number}")).collect();
        let gateways: Vec<String> = (1..=gateways).map(|number| format!("g{number}")).collect();
        let mut names = vec![COORDINATOR];
        names.extend(nodes.iter().chain(&gateways).map(String::as_str));
        let hosts = Hosts::boot(&names, own_disk);
        let folder = TempDir::with_prefix("baton-lab-").expect("a temporary folder");
        let fleet = Self { hosts, nodes, gateways, folder };
        fleet.install_all();
        let address = fleet.coordinator_address();
        let token = fleet.hosts.ask(
            COORDINATOR,
            &format!(
                "baton coordinator init --dir /var/lib/baton-coordinator --listen {address} --name lab && systemctl start baton-coordinator"
            ),
        );
        fleet.baton(&["context", "add", "lab", "--coordinator", &address, "--token", &token]).ok();
        for node in &fleet.nodes {
            fleet.join(node);
        }
        for gateway in &fleet.gateways {
            fleet.join_gateway(gateway);
        }
        fleet.await_connected();
        fleet.await_tables();
        fleet
    }

    fn install_all(&self) {
        std::thread::scope(|scope| {
            scope.spawn(|| install(&self.hosts, COORDINATOR, "old", &["baton", "baton-coordinator"]).ok());
            for node in &self.nodes {
                scope.spawn(move || install(&self.hosts, node, "old", &["baton", "baton-agent"]).ok());
            }
            for gateway in &self.gateways {
                scope.spawn(move || install(&self.hosts, gateway, "old", &["baton", "baton-gateway"]).ok());
            }
        });
    }

    /// Makes a node of a host, as docs/install.md tells it.
    pub(crate) fn join(&self, node: &str) {
        let token = self.baton(&["node", "token", "--name", node]).ok();
        let (address, coordinator) = (self.hosts.address(node), self.coordinator_address());
        self.hosts.ask(
            node,
            &format!(
                "baton agent join --dir /var/lib/baton-agent --coordinator {coordinator} --token {} --name {node} --address {address} --label zone={node} && systemctl start baton-agent",
                token.trim()
            ),
        );
    }

    pub(crate) fn coordinator_address(&self) -> String {
        format!("{}:7443", self.hosts.address(COORDINATOR))
    }

    /// Runs `baton` as the operator, from beside the hosts.
    pub(crate) fn baton(&self, args: &[&str]) -> Said {
        let output = self.baton_command(args).output().expect("baton runs");
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// The same, to be spawned.
    pub(crate) fn baton_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(repository().join("tests/lab/hosts.sh"));
        command.arg("client").arg(baton_program()).args(args).stdin(Stdio::null());
        command.env("BATON_CONFIG_DIR", self.folder.path().join("config"));
        command
    }

    /// A document of a read.
    #[track_caller]
    pub(crate) fn json(&self, args: &[&str]) -> Value {
        serde_json::from_str(&self.baton(&[args, &["--json"]].concat()).ok()).expect("JSON")
    }

    /// Writes the service file and returns its path.
    pub(crate) fn write(&self, name: &str, file: &ServiceFile) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, file.text()).expect("the test's folder can be written");
        path.display().to_string()
    }

    /// Deploys and watches to the end.
    pub(crate) fn deploy(&self, file: &ServiceFile, version: &str) -> Said {
        let path = self.write("service.toml", file);
        self.baton(&["deploy", &path, "--version", version, "--watch", "--timeout", "180s"])
    }

    /// A folder for the test's own files.
    pub(crate) fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    /// Waits until the coordinator has a session with every node, and places instances on it.
    #[track_caller]
    pub(crate) fn await_connected(&self) {
        wait::until("connected nodes", ROOM, || {
            let ran = self.baton(&["node", "ls", "--json"]);
            let nodes: Value = serde_json::from_str(&ran.stdout).map_err(|_| ran.stderr.clone())?;
            let connected = |node: &Value| node["connected"] == true && node["reported"] == true;
            let count =
                nodes.as_array().map_or(0, |nodes| nodes.iter().filter(|node| connected(node)).count());
            if count == self.nodes.len() { Ok(()) } else { Err(nodes.to_string()) }
        });
    }

    /// Waits until the coordinator has a session with the node as it runs now, since its last boot.
    #[track_caller]
    pub(crate) fn await_boot(&self, node: &str) {
        let boot = self.hosts.ask(node, "cat /proc/sys/kernel/random/boot_id");
        wait::until("session of this boot", ROOM, || {
            let ran = self.baton(&["node", "show", node, "--json"]);
            let shown: Value = serde_json::from_str(&ran.stdout).map_err(|_| ran.stderr.clone())?;
            let heard = shown["reported"] == true && shown["facts"]["boot_id"] == boot.trim();
            if heard { Ok(()) } else { Err(format!("boot {boot}: {shown}")) }
        });
    }

    /// The instances of a service.
    pub(crate) fn instances(&self, service: &str) -> Vec<Value> {
        self.json(&["service", "show", service])["instances"].as_array().cloned().unwrap_or_default()
    }

    /// Node and process of every instance, in order; waits until `count` are ready.
    #[track_caller]
    pub(crate) fn ready(&self, service: &str, count: usize) -> Vec<(String, u64)> {
        wait::until("ready instances", ROOM, || {
            let ran = self.baton(&["service", "show", service, "--json"]);
            let shown: Value = serde_json::from_str(&ran.stdout).map_err(|_| ran.stderr.clone())?;
            let instances = shown["instances"].as_array().cloned().unwrap_or_default();
            let ready = |it: &&Value| it["observed"]["state"] == "ready";
            let mut found: Vec<(String, u64)> = instances
                .iter()
                .filter(ready)
                .filter_map(|it| Some((it["node"].as_str()?.to_owned(), it["observed"]["pid"].as_u64()?)))
                .collect();
            found.sort();
            if found.len() == count && instances.len() == count { Ok(found) } else { Err(shown.to_string()) }
        })
    }

    /// Processes of the sample service on a host, by the host's own numbering: what really runs there.
    pub(crate) fn processes(&self, node: &str) -> Vec<u64> {
        let pids = self.hosts.run(node, "pgrep -f '[b]aton sample-web'").stdout;
        let mut pids: Vec<u64> = pids.lines().filter_map(|line| line.parse().ok()).collect();
        pids.sort_unstable();
        pids
    }

    /// Starts the load of all tests on the sample service of these nodes, from beside the hosts.
    pub(crate) fn load(&self, nodes: &[&str]) -> Load {
        self.load_at(nodes, PORT)
    }

    /// The same on another port.
    pub(crate) fn load_at(&self, nodes: &[&str], port: u16) -> Load {
        let target = |node: &&str| -> SocketAddr {
            format!("{}:{port}", self.hosts.address(node)).parse().expect("an address")
        };
        let plan = Plan {
            targets: nodes.iter().map(target).collect(),
            connections: 8,
            rate: Some(RATE),
            requests_per_connection: 1,
        };
        beside_the_hosts(move || Load::start(&plan))
    }

    /// The restart of something that must disturb nobody: under load, `act` happens, the agent comes back as a new
    /// process, and the workloads' processes are the same as before. Returns what the load counted.
    #[track_caller]
    pub(crate) fn undisturbed(&self, what: &str, node: &str, act: impl FnOnce()) -> Counted {
        let before = self.processes(node);
        assert!(!before.is_empty(), "the sample service runs on {node}");
        let agent = self.agent(node);
        let load = self.load(&[node]);
        self.await_sent(&load, 200);
        let begun = std::time::Instant::now();
        act();
        let new = wait::until("new agent", ROOM, || match self.agent(node) {
            pid if pid != agent && pid != "0" => Ok(pid),
            pid => Err(format!("agent {pid}")),
        });
        let back = begun.elapsed();
        self.await_connected();
        let connected = begun.elapsed();
        self.await_sent(&load, load.sent() + 200);
        let counted = load.stop();
        measured(
            what,
            format!(
                "agent {agent} -> {new} in {} ms, connected after {} ms; workload {before:?} -> {:?}; {} requests, {} failed, slowest {:.1} ms",
                back.as_millis(),
                connected.as_millis(),
                self.processes(node),
                counted.sent,
                counted.failed,
                counted.quantile_ms(1.0)
            ),
        );
        assert_eq!(self.processes(node), before, "a workload was touched");
        assert_eq!(counted.failed, 0, "{:?}", counted.failures);
        counted
    }

    /// The agent's process on a host, `0` where none runs.
    pub(crate) fn agent(&self, node: &str) -> String {
        self.hosts.property(node, "baton-agent", "MainPID")
    }

    /// Waits until a load has sent so many requests.
    pub(crate) fn await_sent(&self, load: &Load, count: u64) {
        wait::until("requests", ROOM, || {
            if load.sent() >= count { Ok(()) } else { Err(load.sent().to_string()) }
        });
    }
}

/// Does something in the network that is beside the hosts; threads that it starts stay there.
pub(crate) fn beside_the_hosts<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let path = format!("/run/netns/{}-cl", setting("LAB_ID"));
    let there = move || {
        let namespace = File::open(&path).unwrap_or_else(|error| panic!("opening {path}: {error}"));
        let kind = Some(rustix::thread::LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(std::os::fd::AsFd::as_fd(&namespace), kind)
            .expect("root may enter the lab's network");
        act()
    };
    std::thread::spawn(there).join().expect("nothing panics there")
}

/// The sample service: the web server that the packages' own program is, on a socket of Baton's.
pub(crate) fn web(replicas: u32) -> ServiceFile {
    ServiceFile::web("web", PORT)
        .with_program(repository().join("crates/tests/fixtures/web"), r#"["/usr/bin/baton", "sample-web"]"#)
        .with_env("RELEASE", "${VERSION}")
        .with_env("INSTANCE", "${INSTANCE}")
        .with_section("placement", &format!("replicas = {replicas}\nlost_after = \"60s\"\n"))
}
