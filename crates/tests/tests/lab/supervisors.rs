//! A crash, under Baton and under systemd itself, on one host in one run. (runit and supervisord: `bench restart`.)

use crate::fleet::{Fleet, ROOM, beside_the_hosts, measured};
use anyhow::{Context as _, Result, bail};
use baton_tests::harness::{ServiceFile, wait};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

const ROUNDS: usize = 9;
/// Between two crashes of one server: systemd gives up a unit that fails five times within ten seconds.
const REST: Duration = Duration::from_millis(2_500);
/// The server of the benches: up in a millisecond, and the same one under each.
const SERVER: &str = env!("CARGO_BIN_EXE_bench");
const BATON: u16 = 8071;
const AT_ONCE: u16 = 8072;
const DEFAULT: u16 = 8073;

#[test]
fn a_crash_is_served_again_before_systemd_would() {
    let fleet = Fleet::start(1);
    let file = ServiceFile::web("crash", BATON)
        .with_program(SERVER, r#"["bench"]"#)
        .with_env("BENCH_SERVE", "1")
        .with_section("placement", "replicas = 1\n")
        .with_section("restart", "reset_after = \"1s\"\n");
    fleet.deploy(&file, "1.0").ok();
    fleet.hosts.push("n1", Path::new(SERVER), "/usr/local/bin/bench");
    unit(&fleet, "at-once", AT_ONCE, "RestartSec=0");
    unit(&fleet, "by-default", DEFAULT, "");

    let mut times: Vec<(&str, SocketAddr, Vec<f64>)> =
        [("baton", BATON), ("systemd, RestartSec=0", AT_ONCE), ("systemd by default", DEFAULT)]
            .into_iter()
            .map(|(name, port)| {
                let address = format!("{}:{port}", fleet.hosts.address("n1")).parse().expect("an address");
                (name, address, Vec::new())
            })
            .collect();
    for _ in 0..ROUNDS {
        for (name, address, times) in &mut times {
            let address = *address;
            let crash = beside_the_hosts(move || crash(address));
            times.push(crash.unwrap_or_else(|error| panic!("{name}: {error:#}")));
        }
        // Each rests while the others have their turns, and now.
        std::thread::sleep(REST);
    }
    let medians: Vec<f64> = times.iter_mut().map(|(_, _, times)| median(times)).collect();
    for ((name, _, times), median) in times.iter().zip(&medians) {
        let worst = times.last().copied().unwrap_or_default();
        measured(
            &format!("crash to served again, {name}"),
            format!("median {median:.1} ms, worst {worst:.1} ms"),
        );
    }
    assert!(medians[0] < medians[1] && medians[0] < medians[2], "{medians:?}");
}

fn unit(fleet: &Fleet, name: &str, port: u16, restart: &str) {
    let folder = format!("/srv/{name}");
    let unit = format!(
        "[Service]\nExecStart=/usr/local/bin/bench\nEnvironment=BENCH_SERVE=1\nWorkingDirectory={folder}\nRestart=always\n{restart}\n"
    );
    fleet.hosts.ask(
        "n1",
        &format!(
            "mkdir {folder} && echo 0.0.0.0:{port} > {folder}/listen && printf '%s' '{unit}' > /etc/systemd/system/{name}.service && systemctl start {name}"
        ),
    );
}

/// Kills the server and measures until another process answers, in milliseconds.
fn crash(address: SocketAddr) -> Result<f64> {
    let served = wait::until("an answer", ROOM, || served_by(address).map_err(|error| format!("{error:#}")));
    let pid = outer(served)?;
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

/// This machine's number of the server that a host numbers so.
fn outer(inner: u32) -> Result<i32> {
    for entry in std::fs::read_dir("/proc")?.flatten() {
        let Ok(status) = std::fs::read_to_string(entry.path().join("status")) else { continue };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("").trim();
        let mut numbers = field("NSpid:").split_whitespace();
        if field("Name:") == "bench"
            && numbers.clone().count() > 1
            && numbers.next_back() == Some(&inner.to_string())
        {
            return Ok(entry.file_name().to_string_lossy().parse()?);
        }
    }
    bail!("no server is numbered {inner} on the host")
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

/// Sorts, and returns the middle value.
fn median(times: &mut [f64]) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
