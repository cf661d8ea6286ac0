//! A cluster of `baton dev`: separate processes on loopback addresses, ended with the test.

use super::service::ServiceFile;
use super::wait;
use serde_json::Value;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A cluster is up well within this on an idle machine; tests share two cores.
const START_ROOM: Duration = Duration::from_secs(120);
/// Stopping waits for every workload's own stop.
const STOP_ROOM: Duration = Duration::from_secs(60);

/// How a cluster differs from the usual one.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Agents.
    pub nodes: u32,
    /// Further arguments of `baton dev`.
    pub extra: Vec<String>,
    /// Further variables of its environment, which its agents inherit.
    pub env: Vec<(String, String)>,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self { nodes: 3, extra: Vec::new(), env: Vec::new() }
    }
}

/// A running cluster.
#[derive(Debug)]
pub struct Cluster {
    dev: Child,
    /// What `baton dev` printed when it was ready.
    pub ready: Value,
    folder: TempDir,
}

/// How a command of the CLI ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// Its exit code.
    pub code: i32,
    /// What it printed for programs.
    pub stdout: String,
    /// What it said to people.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Ran {
    /// The same, if it ended with `code`.
    ///
    /// # Panics
    /// With everything it said, if it did not.
    #[must_use]
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, code, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self
    }

    /// The document it printed.
    ///
    /// # Panics
    /// If it is not JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("not JSON ({error}):\n{}\n{}", self.stdout, self.stderr))
    }
}

/// The `baton` program: the one that `BATON_PROGRAM` names, or else one that is built now if it is not up to date: as it
/// is packaged where this test or bench is optimised, so that what is measured is what is installed.
///
/// # Panics
/// When it can't be built.
#[must_use]
pub fn baton_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        if let Some(named) = std::env::var_os("BATON_PROGRAM") {
            return named.into();
        }
        let me = std::env::current_exe().expect("a test knows its own path");
        let folder =
            me.ancestors().find(|dir| dir.join("deps").is_dir()).expect("tests run from a target folder");
        let optimised = folder.file_name().is_some_and(|profile| profile == "release" || profile == "dist");
        if optimised {
            return packaged("baton");
        }
        let status = cargo()
            .args(["build", "--quiet", "--workspace", "--bin", "baton"])
            .status()
            .expect("cargo can be run");
        assert!(status.success(), "the baton program could not be built");
        folder.join("baton")
    })
}

/// Builds a program of this workspace as it is packaged, if it is not up to date.
///
/// # Panics
/// When it can't be built.
#[must_use]
pub fn packaged(program: &str) -> PathBuf {
    let ran = cargo()
        .args(["run", "--quiet", "--package", "xtask", "--", "dist", program])
        .stderr(Stdio::inherit())
        .output()
        .expect("cargo can be run");
    assert!(ran.status.success(), "{program} could not be built as it is packaged");
    PathBuf::from(String::from_utf8_lossy(&ran.stdout).trim())
}

fn cargo() -> Command {
    let mut cargo = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.current_dir(env!("CARGO_MANIFEST_DIR"));
    cargo
}

impl Cluster {
    /// Three nodes, thrown away at the end.
    #[must_use]
    pub fn start() -> Self {
        Self::start_with(&ClusterOptions::default())
    }

    /// Starts `baton dev` and waits until it says that it is ready.
    ///
    /// # Panics
    /// When it does not become ready.
    #[must_use]
    pub fn start_with(options: &ClusterOptions) -> Self {
        let folder = TempDir::with_prefix("baton-e2e-").expect("a temporary folder");
        let mut dev = Command::new(baton_program())
            .args(["dev", "--json-ready", "--nodes", &options.nodes.to_string()])
            .arg("--dir")
            .arg(folder.path().join("cluster"))
            .args(&options.extra)
            .envs(options.env.iter().cloned())
            .env("BATON_CONFIG_DIR", folder.path().join("config"))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::from(std::fs::File::create(folder.path().join("dev.log")).expect("a log file")))
            .spawn()
            .expect("baton dev starts");
        let stdout = dev.stdout.take().expect("piped");
        let (send, receive) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            let mut lines = BufReader::new(stdout).lines();
            let _ = send.send(lines.next());
            lines.for_each(drop);
        });
        let Ok(Some(Ok(line))) = receive.recv_timeout(START_ROOM) else {
            let said = std::fs::read_to_string(folder.path().join("dev.log")).unwrap_or_default();
            let _ = dev.kill();
            panic!("baton dev was not ready within {START_ROOM:?}; it said:\n{said}");
        };
        let ready = serde_json::from_str(&line).expect("one JSON line");
        Self { dev, ready, folder }
    }

    /// A folder for the test's own files, thrown away with the cluster.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs `baton` as the operator of this cluster.
    #[must_use]
    pub fn baton(&self, args: &[&str]) -> Ran {
        let begun = Instant::now();
        let output = self.command(args).output().expect("baton runs");
        Ran {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
            took: begun.elapsed(),
        }
    }

    /// The command `baton ARGS` of this cluster's operator, to be spawned by the test.
    #[must_use]
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(baton_program());
        command.args(args).env("BATON_CONFIG_DIR", self.config_dir()).stdin(Stdio::null());
        command
    }

    /// Where this cluster's contexts are.
    #[must_use]
    pub fn config_dir(&self) -> PathBuf {
        self.ready["config_dir"].as_str().map(PathBuf::from).expect("config_dir")
    }

    /// Runs a read with `--json` and returns its document.
    #[must_use]
    #[track_caller]
    pub fn json(&self, args: &[&str]) -> Value {
        let mut all = args.to_vec();
        all.push("--json");
        self.baton(&all).expect(0).json()
    }

    /// Writes the service file and deploys it, watching to the end.
    #[must_use]
    pub fn deploy(&self, file: &ServiceFile, version: &str) -> Ran {
        let path = self.write(&format!("service-{version}.toml"), &file.text());
        self.baton(&["deploy", &path, "--version", version, "--watch", "--timeout", "120s"])
    }

    /// Writes a file into the test's folder and returns its path.
    #[must_use]
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("the test's folder can be written");
        path.display().to_string()
    }

    /// The instances of a service, as `service show --json` has them.
    #[must_use]
    #[track_caller]
    pub fn instances(&self, service: &str) -> Vec<Value> {
        self.json(&["service", "show", service])["instances"].as_array().cloned().unwrap_or_default()
    }

    /// The process ids of a service's workloads, by instance.
    #[must_use]
    pub fn pids(&self, service: &str) -> Vec<(String, u64)> {
        self.instances(service)
            .iter()
            .filter_map(|it| Some((it["id"].as_str()?.to_owned(), it["observed"]["pid"].as_u64()?)))
            .collect()
    }

    /// The process id of a role, once it runs: `coordinator`, or a node's name.
    #[must_use]
    pub fn role_pid(&self, role: &str) -> u64 {
        wait::until(&format!("process of {role}"), START_ROOM, || {
            self.role_pid_now(role).ok_or_else(|| "none".to_owned())
        })
    }

    /// The process id of a role, as `baton dev` tells it now; `None` while it is being restarted.
    #[must_use]
    pub fn role_pid_now(&self, role: &str) -> Option<u64> {
        let file = self.ready["roles_file"].as_str().expect("roles_file");
        let roles: Value = serde_json::from_str(&std::fs::read_to_string(file).ok()?).ok()?;
        roles[role].as_u64()
    }

    /// Ends a process of this cluster with SIGKILL.
    ///
    /// # Panics
    /// When there is no such process.
    pub fn kill(&self, pid: u64) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGKILL).expect("the process is there");
    }

    /// The address of the `index`th node, from 0.
    #[must_use]
    pub fn address(&self, index: usize) -> String {
        self.ready["nodes"][index]["address"].as_str().expect("an address").to_owned()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.dev.id()).unwrap_or(0));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT);
        let begun = Instant::now();
        while begun.elapsed() < STOP_ROOM {
            if matches!(self.dev.try_wait(), Ok(Some(_))) {
                break;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.dev.kill();
        let _ = self.dev.wait();
        if std::thread::panicking() {
            let said = std::fs::read_to_string(self.folder.path().join("dev.log")).unwrap_or_default();
            let tail: Vec<&str> = said.lines().rev().take(60).collect();
            eprintln!("--- the end of what baton dev said ---");
            tail.iter().rev().for_each(|line| eprintln!("{line}"));
        } else {
            let left = wait::is_alive(u64::from(self.dev.id()));
            assert!(!left, "baton dev did not stop");
        }
    }
}
