//! Crash to served again: SIGKILL the server, then ask until another process answers. The supervisors take turns.

use anyhow::{Context as _, Result, bail};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile};
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// runsv waits a second before it restarts what ran for less than one; every supervisor gets that rest.
const REST: Duration = Duration::from_millis(1200);
/// A supervisor that has not served again by then is given up.
const GIVE_UP: Duration = Duration::from_secs(15);
const PORT: u16 = 8071;

struct Peer {
    name: &'static str,
    address: SocketAddr,
    process: Option<Child>,
    times_ms: Vec<f64>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        if let Some(child) = &mut self.process {
            let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
            let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
            let _ = child.wait();
        }
    }
}

/// Runs the rounds and prints a line for each supervisor.
pub(crate) fn run(rounds: u32) -> Result<()> {
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 1, ..ClusterOptions::default() });
    let me = std::env::current_exe()?;
    let mut peers = vec![baton(&cluster, &me)?];
    if let Some(runsv) = installed("runsv") {
        peers.push(runit(&cluster, &me, &runsv)?);
    } else {
        println!("restart: runit is not installed (apt-get install runit); it is not in this run");
    }
    if let Some(supervisord) = installed("supervisord") {
        peers.push(supervisor(&cluster, &me, &supervisord)?);
    } else {
        println!("restart: supervisord is not installed (apt-get install supervisor); it is not in this run");
    }
    for _ in 0..rounds {
        for peer in &mut peers {
            let pid = served_by(peer.address).with_context(|| format!("{} serves", peer.name))?;
            std::thread::sleep(REST);
            peer.times_ms.push(crash(peer.address, pid).with_context(|| peer.name.to_owned())?);
        }
    }
    println!("\ncrash (SIGKILL) to served again, {rounds} rounds, in turns:");
    let ours = crate::median(&peers[0].times_ms);
    for peer in &peers {
        let median = crate::median(&peer.times_ms);
        let worst = peer.times_ms.iter().copied().fold(0.0, f64::max);
        println!(
            "  {:<12} median {median:>9.2} ms   worst {worst:>9.2} ms   {:>7.2} x baton",
            peer.name,
            median / ours
        );
    }
    for peer in &mut peers {
        if let Some(pid) = peer.process.is_some().then(|| served_by(peer.address).ok()).flatten() {
            end(peer, pid);
        }
    }
    Ok(())
}

/// Ends a supervisor and then the server it leaves behind.
fn end(peer: &mut Peer, server: i32) {
    if let Some(mut child) = peer.process.take() {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).unwrap_or(i32::MAX));
        let _ = nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM);
        let _ = child.wait();
    }
    let _ = nix::sys::signal::kill(nix::unistd::Pid::from_raw(server), nix::sys::signal::Signal::SIGKILL);
}

fn baton(cluster: &Cluster, me: &Path) -> Result<Peer> {
    let file = ServiceFile::web("restart", PORT)
        .with_program(me, r#"["bench"]"#)
        .with_env("BENCH_SERVE", "1")
        .with_section("placement", "replicas = 1\n")
        .with_section("restart", "reset_after = \"1s\"\n");
    let ran = cluster.deploy(&file, "1.0");
    if ran.code != 0 {
        bail!("the deploy failed: {}", ran.stderr);
    }
    Ok(Peer {
        name: "baton",
        address: format!("{}:{PORT}", cluster.address(0)).parse()?,
        process: None,
        times_ms: Vec::new(),
    })
}

fn runit(cluster: &Cluster, me: &Path, runsv: &Path) -> Result<Peer> {
    let address: SocketAddr = "127.0.0.1:18072".parse()?;
    let dir = cluster.folder().join("runit");
    std::fs::create_dir(&dir)?;
    std::fs::write(dir.join("listen"), address.to_string())?;
    // Not a script: runit at its best, with no shell before the server.
    std::fs::copy(me, dir.join("run"))?;
    let child = Command::new(runsv).arg(&dir).stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    ready(Peer { name: "runit", address, process: Some(child), times_ms: Vec::new() })
}

fn supervisor(cluster: &Cluster, me: &Path, supervisord: &Path) -> Result<Peer> {
    let address: SocketAddr = "127.0.0.1:18073".parse()?;
    let dir = cluster.folder().join("supervisor");
    std::fs::create_dir(&dir)?;
    std::fs::write(dir.join("listen"), address.to_string())?;
    let config = dir.join("supervisord.conf");
    std::fs::write(
        &config,
        format!(
            "[supervisord]\nnodaemon=true\nlogfile={0}/log\npidfile={0}/pid\n[program:bench]\ncommand={1}\ndirectory={0}\nenvironment=BENCH_SERVE=\"1\"\nautorestart=true\nstartsecs=0\n",
            dir.display(),
            me.display()
        ),
    )?;
    let child = Command::new(supervisord)
        .arg("-c")
        .arg(&config)
        .env_remove("BENCH_SERVE")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    ready(Peer { name: "supervisord", address, process: Some(child), times_ms: Vec::new() })
}

fn ready(peer: Peer) -> Result<Peer> {
    let begun = Instant::now();
    while served_by(peer.address).is_err() {
        if begun.elapsed() > GIVE_UP {
            bail!("{} did not start its server", peer.name);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(peer)
}

fn installed(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.exists())
}

/// Kills the server and measures until another process answers, in milliseconds.
fn crash(address: SocketAddr, pid: i32) -> Result<f64> {
    let begun = Instant::now();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGKILL)?;
    loop {
        if served_by(address).is_ok_and(|now| now != pid) {
            return Ok(begun.elapsed().as_secs_f64() * 1000.0);
        }
        if begun.elapsed() > GIVE_UP {
            bail!("not served again within {GIVE_UP:?}");
        }
    }
}

/// Asks on a fresh connection; the process id that answered.
fn served_by(address: SocketAddr) -> Result<i32> {
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2))?;
    stream.set_read_timeout(Some(Duration::from_secs(2)))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: bench\r\n\r\n")?;
    let mut answer = [0; 512];
    let length = stream.read(&mut answer)?;
    let text = String::from_utf8_lossy(&answer[..length]);
    text.split_whitespace()
        .find_map(|word| word.strip_prefix("pid=")?.parse().ok())
        .context("an answer with a pid")
}
