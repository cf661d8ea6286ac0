//! Requests a second, processor time a request, latency and memory: keep-alive and not, 1 KB and 100 KB.

use super::proxies::{Process, Who, gateway_program, start};
use anyhow::{Context as _, Result, bail, ensure};
use baton_model::route::Balance;
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

/// Connections of the load.
const CONNECTIONS: &str = "64";
/// Seconds of one measurement.
const SECONDS: u32 = 4;
/// Two ports of one nginx are the upstream of all.
pub(super) const UPSTREAMS: [u16; 2] = [18_191, 18_192];
/// What is asked for, by path and name.
const SIZES: [(&str, usize); 2] = [("1k", 1_000), ("100k", 100_000)];
/// Of a request's processor time.
const COUNTING_PERCENT_MAX: f64 = 2.0;

/// What one round measured of one proxy.
#[derive(Clone, Copy, Debug)]
struct Figures {
    per_second: f64,
    cpu_us: f64,
    p50_ms: f64,
    p99_ms: f64,
    mib: f64,
    failed: u64,
}

/// Measures all proxies, one after the other in each round, and prints the medians and their ratios to HAProxy's.
pub(crate) fn run(rounds: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let _upstream = upstream(&folder.path().join("upstream"), &UPSTREAMS, Some("1"))?;
    let upstreams = UPSTREAMS.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let proxies: Vec<(Who, Process)> = Who::ALL
        .into_iter()
        .map(|who| Ok((who, start(who, folder.path(), &upstreams, Some("0"), Balance::LeastLoaded)?)))
        .collect::<Result<_>>()?;
    for (path, _) in SIZES {
        for keep in [true, false] {
            let mut all: Vec<Vec<Figures>> = vec![Vec::new(); proxies.len()];
            for _ in 0..rounds {
                for (at, (who, process)) in proxies.iter().enumerate() {
                    all[at].push(measure(*who, process, path, keep)?);
                }
            }
            println!("\n{path}, {}:", if keep { "keep-alive" } else { "a connection for each request" });
            print(&proxies, &all);
        }
    }
    Ok(())
}

/// What counting costs the gateway: the time of counting one request, beside its processor time for a whole one.
pub(crate) fn evidence(rounds: u32) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let _upstream = upstream(&folder.path().join("upstream"), &UPSTREAMS, Some("1"))?;
    let upstreams = UPSTREAMS.map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let gateway = start(Who::Baton, folder.path(), &upstreams, Some("0"), Balance::LeastLoaded)?;
    let (mut counting, mut whole) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let ran = Command::new(gateway_program()).arg("evidence").output()?;
        counting.push(String::from_utf8_lossy(&ran.stdout).trim().parse::<f64>()?);
        whole.push(measure(Who::Baton, &gateway, SIZES[0].0, true)?.cpu_us * 1000.0);
    }
    let (counting, whole) = (crate::median(&counting), crate::median(&whole));
    let percent = counting / whole * 100.0;
    println!("\ncost of the evidence: {counting:.0} ns of {whole:.0} ns of a request, {percent:.2} %");
    ensure!(percent < COUNTING_PERCENT_MAX, "counting costs more than {COUNTING_PERCENT_MAX} %");
    Ok(())
}

/// One nginx that serves files on these ports, from this folder.
pub(super) fn upstream(at: &Path, ports: &[u16], processor: Option<&str>) -> Result<Process> {
    std::fs::create_dir_all(at)?;
    for (path, size) in SIZES {
        std::fs::write(at.join(path), "x".repeat(size))?;
    }
    std::fs::write(at.join("index.html"), "well\n")?;
    let listens: String = ports.iter().map(|port| format!("listen 127.0.0.1:{port} backlog=4096;")).collect();
    let root = at.display().to_string();
    let config = format!(
        "daemon off; master_process off; pid nginx.pid; error_log stderr crit; worker_rlimit_nofile 20000;
         events {{ worker_connections 20000; }}
         http {{ access_log off; sendfile on; open_file_cache max=10; keepalive_requests 1000000;
           server {{ {listens} root {root}; }} }}"
    );
    std::fs::write(at.join("nginx.conf"), config)?;
    Process::start(at, processor, &["/usr/sbin/nginx", "-p", &root, "-c", "nginx.conf"])
}

fn measure(who: Who, process: &Process, path: &str, keep: bool) -> Result<Figures> {
    let before = process.cpu_seconds()?;
    let (duration, url) = (format!("-d{SECONDS}"), format!("http://{}/{path}", who.address()));
    let mut arguments = vec!["-c", "1", "wrk", "-t1", "-c", CONNECTIONS, duration.as_str(), "--latency"];
    if !keep {
        arguments.extend(["-H", "Connection: close"]);
    }
    arguments.push(&url);
    let ran = Command::new("taskset").args(&arguments).output().context("wrk: apt-get install wrk")?;
    let text = String::from_utf8_lossy(&ran.stdout).into_owned();
    let cpu = process.cpu_seconds()? - before;
    let word = |after: &str, at: usize| {
        let line = text.lines().find(|line| line.trim_start().starts_with(after));
        line.and_then(|line| line.split_whitespace().nth(at)).map(str::to_owned)
    };
    let requests: f64 = text
        .lines()
        .find(|line| line.contains("requests in"))
        .and_then(|line| line.split_whitespace().next())
        .with_context(|| format!("wrk said: {text}"))?
        .parse()?;
    if requests == 0.0 {
        bail!("{} answered nothing", who.name());
    }
    let bad = word("Non-2xx", 4).and_then(|it| it.parse().ok()).unwrap_or(0);
    Ok(Figures {
        per_second: word("Requests/sec:", 1).context("wrk's rate")?.parse()?,
        cpu_us: cpu * 1e6 / requests,
        p50_ms: milliseconds(&word("50%", 1).context("wrk's p50")?)?,
        p99_ms: milliseconds(&word("99%", 1).context("wrk's p99")?)?,
        mib: process.resident_mib()?,
        failed: bad,
    })
}

/// A time as wrk writes it.
fn milliseconds(text: &str) -> Result<f64> {
    let (number, scale) = match (text.strip_suffix("us"), text.strip_suffix("ms"), text.strip_suffix('s')) {
        (Some(number), _, _) => (number, 1e-3),
        (_, Some(number), _) => (number, 1.0),
        (_, _, Some(number)) => (number, 1e3),
        (None, None, None) => bail!("{text} is not a time"),
    };
    Ok(number.parse::<f64>()? * scale)
}

fn print(proxies: &[(Who, Process)], all: &[Vec<Figures>]) {
    let of = |rounds: &[Figures], pick: fn(&Figures) -> f64| {
        crate::median(&rounds.iter().map(pick).collect::<Vec<_>>())
    };
    let haproxy = proxies.iter().position(|(who, _)| *who == Who::HaProxy).unwrap_or(0);
    let (rate, cpu) = (of(&all[haproxy], |it| it.per_second), of(&all[haproxy], |it| it.cpu_us));
    for ((who, _), rounds) in proxies.iter().zip(all) {
        println!(
            "  {:<8} {:>7.0} requests/s ({:.2} of HAProxy's)  {:>6.1} us CPU a request ({:.2})  p50 {:>6.2} ms  p99 {:>6.2} ms  {:>5.1} MiB  failed {}",
            who.name(),
            of(rounds, |it| it.per_second),
            of(rounds, |it| it.per_second) / rate,
            of(rounds, |it| it.cpu_us),
            of(rounds, |it| it.cpu_us) / cpu,
            of(rounds, |it| it.p50_ms),
            of(rounds, |it| it.p99_ms),
            of(rounds, |it| it.mib),
            rounds.iter().map(|it| it.failed).sum::<u64>(),
        );
    }
}
