//! The lab's hosts, driven through `tests/lab/hosts.sh`.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Hosts of one test, thrown away with it.
#[derive(Debug)]
pub(crate) struct Hosts {
    names: Vec<String>,
}

/// How a command on a host ended.
#[derive(Clone, Debug)]
pub(crate) struct Said {
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Said {
    /// What it printed, if it succeeded.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "stdout:\n{}\nstderr:\n{}", self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs `hosts.sh ARGS`.
pub(crate) fn script<S: AsRef<OsStr>>(args: &[S]) -> Said {
    let output = command(args).stdin(Stdio::null()).output().expect("hosts.sh can be run");
    Said {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

fn command<S: AsRef<OsStr>>(args: &[S]) -> Command {
    let mut command = Command::new(repository().join("tests/lab/hosts.sh"));
    command.args(args);
    command
}

/// The repository that is tested.
pub(crate) fn repository() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("a crate is in crates/").to_owned()
}

/// A setting of the lab, which `cargo xtask lab` gives.
pub(crate) fn setting(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: run `cargo xtask lab`, as root"))
}

impl Hosts {
    /// Boots new hosts, all at once. With `own_disk`, `/var/lib` of each is a file system of its own: one that can lose
    /// what was not synced, or be full.
    pub(crate) fn boot(names: &[&str], own_disk: bool) -> Self {
        let _ = setting("LAB_ID");
        script(&["destroy"]).ok();
        // From here on, they are thrown away also when their boot fails.
        let hosts = Self { names: names.iter().map(|&name| name.to_owned()).collect() };
        hosts.verb("create", names);
        let mut start = command(&[&["start"], names].concat());
        start.env("LAB_DISK", if own_disk { "1" } else { "0" }).stdin(Stdio::null());
        let output = start.output().expect("hosts.sh can be run");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        hosts
    }

    /// `hosts.sh VERB NAMES`.
    #[track_caller]
    pub(crate) fn verb(&self, verb: &str, names: &[&str]) {
        script(&[&[verb], names].concat()).ok();
    }

    /// Runs a shell command on a host, as root.
    pub(crate) fn run(&self, host: &str, shell: &str) -> Said {
        script(&["exec", host, "sh", "-c", shell])
    }

    /// What a shell command on a host prints; it must succeed.
    #[track_caller]
    pub(crate) fn ask(&self, host: &str, shell: &str) -> String {
        self.run(host, shell).ok().trim().to_owned()
    }

    /// Copies a file onto a host.
    #[track_caller]
    pub(crate) fn push(&self, host: &str, from: &Path, to: &str) {
        script(&[OsStr::new("push"), OsStr::new(host), from.as_os_str(), OsStr::new(to)]).ok();
    }

    /// A host's address.
    #[track_caller]
    pub(crate) fn address(&self, host: &str) -> String {
        script(&["ip", host]).ok().trim().to_owned()
    }

    /// A property of a unit.
    #[track_caller]
    pub(crate) fn property(&self, host: &str, unit: &str, name: &str) -> String {
        self.ask(host, &format!("systemctl show --value -p {name} {unit}"))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        if std::thread::panicking() {
            for host in &self.names {
                let journal = self.run(
                    host,
                    "journalctl --no-pager -q -n 60 -u baton-agent -u baton-coordinator -u baton-gateway",
                );
                eprintln!("--- the end of {host}'s journal ---\n{}{}", journal.stdout, journal.stderr);
            }
        }
        let destroyed = script(&["destroy"]);
        if destroyed.code != 0 {
            eprintln!("hosts.sh destroy: {}", destroyed.stderr);
        }
    }
}
