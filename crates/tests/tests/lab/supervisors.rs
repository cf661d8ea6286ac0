//! One server under Baton, under systemd itself, under runit and under supervisord, on one host in one run: how long it
//! is away after a crash, and how long nobody answers when another version takes its place.

use crate::fleet::{Fleet, ROOM, beside_the_hosts, measured};
use crate::hosts::script;
use anyhow::{Context as _, Result, bail};
use baton_tests::harness::{ServiceFile, wait};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Odd, so that there is a middle one.
const ROUNDS: usize = 7;
/// Between two turns of one server: runsv waits a second before it restarts what ran for less than one.
const REST: Duration = Duration::from_millis(1_200);
/// Between two requests of a probe: finer than any gap, and the machine is left to the supervisors.
const PROBE_EVERY: Duration = Duration::from_micros(500);
/// Answers that a probe sees before a change and after it.
const SOME: u64 = 50;
/// What the machine's other work may add: the table tells who is ahead, the test only fails where something is broken.
const NOISE: f64 = 1.5;
/// The server of the benches: up in a millisecond, and the same one under each.
const SERVER: &str = env!("CARGO_BIN_EXE_bench");
const ON_HOST: &str = "/usr/local/bin/bench";
const BATON: u16 = 8071;

/// A supervisor beside Baton: how it is given the server, and how an operator has it run another version.
struct Peer {
    name: &'static str,
    port: u16,
    /// Run in `/srv/NAME`, where the server finds its address.
    install: &'static str,
    change: &'static str,
}

const PEERS: [Peer; 4] = [
    Peer {
        name: "systemd, RestartSec=0",
        port: 8072,
        install: "printf '[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/usr/local/bin/bench\nEnvironment=BENCH_SERVE=1\nWorkingDirectory=%s\nRestart=always\nRestartSec=0\n' $PWD \
                  >/etc/systemd/system/at-once.service && systemctl start at-once",
        change: "systemctl restart at-once",
    },
    Peer {
        name: "systemd by default",
        port: 8073,
        install: "printf '[Unit]\nStartLimitIntervalSec=0\n[Service]\nExecStart=/usr/local/bin/bench\nEnvironment=BENCH_SERVE=1\nWorkingDirectory=%s\nRestart=always\n' $PWD \
                  >/etc/systemd/system/by-default.service && systemctl start by-default",
        change: "systemctl restart by-default",
    },
    Peer {
        name: "runit",
        port: 8074,
        // Not a script: runit at its best, with no shell before the server.
        install: "cp /usr/local/bin/bench run && systemd-run -q --unit=under-runit runsv $PWD",
        change: "sv restart /srv/8074",
    },
    Peer {
        name: "supervisord",
        port: 8075,
        install: "printf '[supervisord]\nlogfile=%s/log\npidfile=%s/pid\n[unix_http_server]\nfile=%s/socket\n[rpcinterface:supervisor]\nsupervisor.rpcinterface_factory=supervisor.rpcinterface:make_main_rpcinterface\n\
                  [supervisorctl]\nserverurl=unix://%s/socket\n[program:bench]\ncommand=/usr/local/bin/bench\ndirectory=%s\nenvironment=BENCH_SERVE=\"1\"\nautorestart=true\nstartsecs=0\n' \
                  $PWD $PWD $PWD $PWD $PWD >config && systemd-run -q --unit=under-supervisord supervisord -n -c $PWD/config",
        change: "supervisorctl -c /srv/8075/config restart bench",
    },
];

/// What was measured of one supervisor, in milliseconds.
struct Row {
    name: &'static str,
    address: SocketAddr,
    crashes: Vec<f64>,
    gaps: Vec<f64>,
    unanswered: u64,
}

#[test]
fn a_crash_and_a_new_version_are_served_before_any_other_supervisor_would() {
    let fleet = Fleet::start(1);
    let file = ServiceFile::web("crash", BATON)
        .with_program(SERVER, r#"["bench"]"#)
        .with_env("BENCH_SERVE", "1")
        .with_section("placement", "replicas = 1\n")
        .with_section("restart", "reset_after = \"1s\"\n");
    fleet.deploy(&file, "1.0").ok();
    fleet.hosts.push("n1", Path::new(SERVER), ON_HOST);
    for Peer { port, install, .. } in &PEERS {
        let folder = format!("mkdir /srv/{port} && cd /srv/{port} && echo 0.0.0.0:{port} >listen");
        fleet.hosts.ask("n1", &format!("{folder} && {install}"));
    }

    let mut rows: Vec<Row> = std::iter::once(("baton", BATON))
        .chain(PEERS.iter().map(|peer| (peer.name, peer.port)))
        .map(|(name, port)| Row::new(&fleet, name, port))
        .collect();
    let host = processes_of("n1");
    for round in 0..ROUNDS {
        for row in &mut rows {
            let (address, host) = (row.address, host.clone());
            let crash = beside_the_hosts(move || crash(address, &host));
            row.crashes.push(crash.unwrap_or_else(|error| panic!("{}: {error:#}", row.name)));
        }
        std::thread::sleep(REST);
        for (number, row) in rows.iter_mut().enumerate() {
            row.change(|| match number.checked_sub(1) {
                None => drop(fleet.deploy(&file, &format!("2.{round}")).ok()),
                Some(peer) => drop(fleet.hosts.ask("n1", PEERS[peer].change)),
            });
        }
        std::thread::sleep(REST);
    }
    print(&mut rows);
    let (baton, others) = rows.split_first().expect("five of them");
    assert_eq!(baton.unanswered, 0, "a swap by Baton leaves no request without an answer");
    for other in others {
        let ahead = |ours: &[f64], theirs: &[f64]| median(ours) < median(theirs) * NOISE;
        assert!(ahead(&baton.crashes, &other.crashes), "a crash under {}", other.name);
        assert!(ahead(&baton.gaps, &other.gaps), "a new version under {}", other.name);
        assert!(other.unanswered > 0, "{}: the comparison compares nothing", other.name);
    }
}

fn print(rows: &mut [Row]) {
    let mut table = format!(
        "\n  {:<22} {:>14} {:>8}   {:>12} {:>8}   {:>10}",
        "in ms", "crash, median", "worst", "gap, median", "worst", "unanswered"
    );
    for row in rows {
        row.crashes.sort_by(f64::total_cmp);
        row.gaps.sort_by(f64::total_cmp);
        let worst = |times: &[f64]| times.last().copied().unwrap_or_default();
        table += &format!(
            "\n  {:<22} {:>14.1} {:>8.1}   {:>12.1} {:>8.1}   {:>10}",
            row.name,
            median(&row.crashes),
            worst(&row.crashes),
            median(&row.gaps),
            worst(&row.gaps),
            row.unanswered
        );
    }
    measured(
        &format!(
            "{ROUNDS} rounds in turns: SIGKILL to served again; last answer of the old version to first of the new"
        ),
        table,
    );
}

/// The middle of sorted values.
fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}

impl Row {
    fn new(fleet: &Fleet, name: &'static str, port: u16) -> Self {
        let address = format!("{}:{port}", fleet.hosts.address("n1")).parse().expect("an address");
        Self { name, address, crashes: Vec::new(), gaps: Vec::new(), unanswered: 0 }
    }

    /// Probes all the time while `act` has another process serve.
    fn change(&mut self, act: impl FnOnce()) {
        let address = self.address;
        let (before, probe) = beside_the_hosts(move || (answered_by(address), Probe::start(address)));
        probe.await_answers(SOME);
        act();
        let name = self.name;
        let after = beside_the_hosts(move || {
            wait::until("another process", ROOM, || match answered_by(address) {
                pid if pid != before => Ok(pid),
                pid => Err(format!("{name} still serves by {pid}")),
            })
        });
        assert_ne!(before, after);
        probe.await_answers(SOME);
        let (gap, unanswered) = probe.stop();
        self.gaps.push(gap.as_secs_f64() * 1000.0);
        self.unanswered += unanswered;
    }
}

/// Asks one address all the time, each request on a fresh connection.
struct Probe {
    answers: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    /// Ends with the time between two answers of different processes, the longest if there are several, and with the
    /// number of requests that got no answer.
    thread: JoinHandle<(Duration, u64)>,
}

impl Probe {
    fn start(address: SocketAddr) -> Self {
        let (answers, stop) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
        let (count, ended) = (Arc::clone(&answers), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            let (mut last, mut gap, mut unanswered) = (None, Duration::ZERO, 0);
            while !ended.load(Ordering::Relaxed) {
                if let Ok(pid) = served_by(address) {
                    let now = Instant::now();
                    if let Some((before, at)) = last.replace((pid, now))
                        && before != pid
                    {
                        gap = gap.max(now - at);
                    }
                    count.fetch_add(1, Ordering::Relaxed);
                } else {
                    unanswered += 1;
                }
                std::thread::sleep(PROBE_EVERY);
            }
            (gap, unanswered)
        });
        Self { answers, stop, thread }
    }

    fn await_answers(&self, more: u64) {
        let enough = self.answers.load(Ordering::Relaxed) + more;
        wait::until("answers", ROOM, || match self.answers.load(Ordering::Relaxed) {
            answers if answers >= enough => Ok(()),
            answers => Err(format!("{answers} of {enough}")),
        });
    }

    fn stop(self) -> (Duration, u64) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("a probe does not panic")
    }
}

/// Kills the server and measures until another process answers, in milliseconds.
fn crash(address: SocketAddr, host: &Path) -> Result<f64> {
    let served = answered_by(address);
    let pid = outer(served, host)?;
    let begun = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    loop {
        if served_by(address).is_ok_and(|now| now != served) {
            return Ok(begun.elapsed().as_secs_f64() * 1000.0);
        }
        if begun.elapsed() > ROOM {
            bail!("not served again within {ROOM:?}");
        }
    }
}

/// The namespace that a host numbers its processes in.
fn processes_of(host: &str) -> PathBuf {
    let first = script(&["pid", host]).ok();
    std::fs::read_link(format!("/proc/{}/ns/pid", first.trim())).expect("the host's first process")
}

/// This machine's number of the process that a host numbers so.
fn outer(inner: u32, host: &Path) -> Result<i32> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let path = entry.path();
        if !std::fs::read_link(path.join("ns/pid")).is_ok_and(|namespace| namespace == host) {
            continue;
        }
        let Ok(status) = std::fs::read_to_string(path.join("status")) else { continue };
        let numbers = status.lines().find_map(|line| line.strip_prefix("NSpid:")).unwrap_or_default();
        if numbers.split_whitespace().next_back() == Some(&inner.to_string()) {
            return Ok(entry.file_name().to_string_lossy().parse()?);
        }
    }
    bail!("no process is numbered {inner} on the host")
}

/// Who answers, once somebody does.
fn answered_by(address: SocketAddr) -> u32 {
    wait::until("an answer", ROOM, || served_by(address).map_err(|error| format!("{address}: {error:#}")))
}

/// Asks on a fresh connection; the process id that answered, as the host numbers it.
fn served_by(address: SocketAddr) -> Result<u32> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: lab\r\n\r\n")?;
    let mut answer = [0; 512];
    let length = stream.read(&mut answer)?;
    let text = String::from_utf8_lossy(&answer[..length]);
    text.split_whitespace()
        .find_map(|word| word.strip_prefix("pid=")?.parse().ok())
        .context("an answer with a pid")
}
