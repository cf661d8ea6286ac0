//! Proxies and their upstreams as processes: each proxy on one thread of processor 0, everything else on the others.

use anyhow::{Context as _, Result, bail};
use baton_model::id::{
    InstanceId, PortName, ReleaseNumber, RouteRevision, RunNumber, ServiceName, TableRevision,
};
use baton_model::route::{
    Balance, Ejection, Entry, HttpProtocol, Key, Mirror, Retries, Route, RouteSpec, RouteTable, Split,
    Timeouts, TrafficCheck, TrafficLimits, Upstream, UpstreamId, Weight,
};
use baton_model::time::Millis;
use baton_tests::harness::{packaged, wait};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A proxy is up after this, or never.
const UP_WITHIN: Duration = Duration::from_secs(20);

/// Where the gateway that copies shows its metrics.
pub(super) const COPYING_METRICS: &str = "127.0.0.1:18185";
/// A server that drains waits for connections that HAProxy would keep idle for 5 s.
const LETS_GO: &str = "pool-purge-delay 100ms";
/// A process that was asked to end has this long before it is killed.
const ENDS_WITHIN: Duration = Duration::from_secs(2);

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Who {
    /// This project's gateway: route, split, check, ejection, evidence and limits all on.
    Baton,
    /// HAProxy: checks, redispatch and retries on.
    HaProxy,
    /// nginx: it has no checks of its own; retries on.
    Nginx,
}

impl Who {
    pub(super) const ALL: [Self; 3] = [Self::Baton, Self::HaProxy, Self::Nginx];

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Baton => "baton",
            Self::HaProxy => "haproxy",
            Self::Nginx => "nginx",
        }
    }

    const fn port(self) -> u16 {
        match self {
            Self::Baton => 18_181,
            Self::HaProxy => 18_182,
            Self::Nginx => 18_183,
        }
    }

    pub(super) fn address(self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port()))
    }
}

/// A program that ends with its owner.
pub(super) struct Process(Child);

impl Process {
    /// Starts a program; `processor` pins it.
    pub(super) fn start(folder: &Path, processor: Option<&str>, command: &[&str]) -> Result<Self> {
        let pinned: Vec<&str> = match processor {
            Some(number) => ["taskset", "-c", number].iter().chain(command).copied().collect(),
            None => command.to_vec(),
        };
        let child = Command::new(pinned[0])
            .args(&pinned[1..])
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("{} cannot be run: is it installed?", pinned[0]))?;
        Ok(Self(child))
    }

    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// The processes that it has started.
    pub(super) fn children(&self) -> Result<Vec<u32>> {
        let pid = self.pid();
        let text = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?;
        text.split_ascii_whitespace().map(|word| Ok(word.parse()?)).collect()
    }

    pub(super) fn signal(&self, signal: Signal) -> Result<()> {
        kill(Pid::from_raw(i32::try_from(self.pid())?), signal)?;
        Ok(())
    }

    /// Ends it as a supervisor does: the signal, and the wait for the end.
    pub(super) fn terminate(&mut self, within: Duration) -> Result<()> {
        self.signal(Signal::SIGTERM)?;
        wait::until("the end of a process", within, || match self.0.try_wait() {
            Ok(Some(_)) => Ok(()),
            other => Err(format!("{other:?}")),
        });
        Ok(())
    }

    /// Processor time so far, its own and the kernel's for it, in seconds.
    pub(super) fn cpu_seconds(&self) -> Result<f64> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid()))?;
        let fields: Vec<&str> =
            stat.rsplit_once(") ").context("a process's stat")?.1.split_whitespace().collect();
        // Fields 14 and 15 of proc(5), counted from the state, which is field 3; in ticks of 10 ms.
        let ticks = fields[11].parse::<f64>()? + fields[12].parse::<f64>()?;
        Ok(ticks / 100.0)
    }

    pub(super) fn resident_mib(&self) -> Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid()))?;
        let line = status.lines().find_map(|it| it.strip_prefix("VmRSS:")).context("its memory")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1024.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // A master takes its workers along only where it is asked to end.
        let asked = self.signal(Signal::SIGTERM).is_ok();
        let until = Instant::now() + ENDS_WITHIN;
        while asked && Instant::now() < until && matches!(self.0.try_wait(), Ok(None)) {
            std::thread::sleep(Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Starts a proxy before `upstreams`, and waits until it answers. The other proxies balance by least connections, which
/// takes turns where all are idle.
pub(super) fn start(
    who: Who,
    folder: &Path,
    upstreams: &[SocketAddr],
    processor: Option<&str>,
    balance: Balance,
) -> Result<Process> {
    let at = folder.join(who.name());
    std::fs::create_dir_all(&at)?;
    let process = match who {
        Who::Baton => baton(&at, &table(upstreams, balance)?, processor)?,
        Who::HaProxy => {
            std::fs::write(at.join("haproxy.cfg"), haproxy_configuration(upstreams, ""))?;
            Process::start(&at, processor, &["/usr/sbin/haproxy", "-db", "-f", "haproxy.cfg"])?
        }
        Who::Nginx => {
            std::fs::write(at.join("nginx.conf"), nginx_configuration(upstreams))?;
            let prefix = at.display().to_string();
            Process::start(&at, processor, &["/usr/sbin/nginx", "-p", &prefix, "-c", "nginx.conf"])?
        }
    };
    wait::until(who.name(), UP_WITHIN, || {
        TcpStream::connect(who.address()).map(drop).map_err(|error| error.to_string())
    });
    Ok(process)
}

/// Starts a proxy that a script can steer while it runs: HAProxy has its runtime socket anyway, nginx gets its master.
pub(super) fn start_managed(who: Who, folder: &Path, upstreams: &[SocketAddr]) -> Result<Process> {
    let at = folder.join(who.name());
    std::fs::create_dir_all(&at)?;
    let process = match who {
        Who::Baton => bail!("it needs no script"),
        Who::HaProxy => {
            std::fs::write(at.join("haproxy.cfg"), haproxy_configuration(upstreams, LETS_GO))?;
            // Quiet: it warns of each of a script's steps.
            Process::start(&at, None, &["/usr/sbin/haproxy", "-db", "-q", "-f", "haproxy.cfg"])?
        }
        Who::Nginx => {
            std::fs::write(at.join("nginx.conf"), nginx_managed(upstreams, None))?;
            let prefix = at.display().to_string();
            Process::start(&at, None, &["/usr/sbin/nginx", "-p", &prefix, "-c", "nginx.conf"])?
        }
    };
    wait::until(who.name(), UP_WITHIN, || {
        TcpStream::connect(who.address()).map(drop).map_err(|error| error.to_string())
    });
    Ok(process)
}

/// The bench's own server on an address, once it accepts.
pub(super) fn backend(folder: &Path, address: &str) -> Result<Process> {
    let at = folder.join(address.replace(':', "-"));
    std::fs::create_dir_all(&at)?;
    std::fs::write(at.join("listen"), address)?;
    let me = std::env::current_exe()?.display().to_string();
    let process = Process::start(&at, None, &["env", "BENCH_SERVE=1", &me])?;
    let target: SocketAddr = address.parse()?;
    wait::until("a backend", Duration::from_secs(10), || {
        TcpStream::connect(target).map(drop).map_err(|error| error.to_string())
    });
    Ok(process)
}

fn baton(folder: &Path, table: &RouteTable, processor: Option<&str>) -> Result<Process> {
    let program = gateway_program().display().to_string();
    let config = format!("http = [\"{}\"]\nworkers = 1\n", Who::Baton.address());
    std::fs::write(folder.join("gateway.toml"), config)?;
    std::fs::write(folder.join("table.json"), serde_json::to_vec(table)?)?;
    Process::start(folder, processor, &[&program, "gateway.toml", "table.json"])
}

/// A gateway that copies every request to a second release, which the same servers answer for; and where it listens.
pub(super) fn start_copying(folder: &Path, upstreams: [SocketAddr; 2]) -> Result<(Process, SocketAddr)> {
    let at = folder.join("copying");
    std::fs::create_dir_all(&at)?;
    let mut table = table(&upstreams[..1], Balance::LeastLoaded)?;
    let route = table.routes.values_mut().next().context("a route")?;
    let to = ReleaseNumber(2);
    let instance = InstanceId { service: ServiceName::new("bench")?, slot: 2 };
    let upstream = Upstream { release: to, address: upstreams[1], zone: None };
    route.upstreams.insert(UpstreamId { instance, run: RunNumber(1) }, upstream);
    route.mirror = Some(Mirror {
        to,
        share: Weight::ALL,
        body_bytes_max: 64 * 1024,
        in_flight_max: 256,
        unsafe_methods: false,
        compare_bodies: false,
    });
    let address = SocketAddr::from(([127, 0, 0, 1], 18_184));
    let program = gateway_program().display().to_string();
    let config = format!("http = [\"{address}\"]\nworkers = 1\nmetrics = \"{COPYING_METRICS}\"\n");
    std::fs::write(at.join("gateway.toml"), config)?;
    std::fs::write(at.join("table.json"), serde_json::to_vec(&table)?)?;
    let process = Process::start(&at, None, &[&program, "gateway.toml", "table.json"])?;
    wait::until("the gateway that copies", UP_WITHIN, || {
        TcpStream::connect(address).map(drop).map_err(|error| error.to_string())
    });
    Ok((process, address))
}

/// Built as it is packaged.
pub(super) fn gateway_program() -> PathBuf {
    std::env::var_os("BATON_GATEWAY_PROGRAM").map_or_else(|| packaged("baton-gateway-static"), PathBuf::from)
}

/// One service on every host, as its file's defaults have it.
fn table(upstreams: &[SocketAddr], balance: Balance) -> Result<RouteTable> {
    let service = ServiceName::new("bench")?;
    let upstreams = upstreams.iter().zip(1..).map(|(address, slot)| {
        let id = UpstreamId { instance: InstanceId { service: service.clone(), slot }, run: RunNumber(1) };
        (id, Upstream { release: ReleaseNumber(1), address: *address, zone: None })
    });
    let route = Route {
        revision: RouteRevision(1),
        spec: spec(balance)?,
        split: Split { weights: BTreeMap::from([(ReleaseNumber(1), Weight::ALL)]) },
        rules: Vec::new(),
        mirror: None,
        held: false,
        trial: None,
        upstreams: upstreams.collect(),
    };
    Ok(RouteTable { revision: TableRevision(1), routes: BTreeMap::from([(service, route)]) })
}

fn spec(balance: Balance) -> Result<RouteSpec> {
    Ok(RouteSpec {
        entry: Entry::Http { hosts: Vec::new(), path: "/".to_owned(), protocol: HttpProtocol::Http1 },
        port: PortName::new("http")?,
        balance,
        split_by: Key::Address,
        sticky_cookie: None,
        timeouts: Timeouts { connect: Millis::secs(1), response: Millis::secs(30), idle: Millis::secs(300) },
        retries: Retries { attempts: 2, budget_percent: 20, hedge_after: Millis(500) },
        limits: TrafficLimits {
            body_bytes_max: 100 * 1024 * 1024,
            in_flight_max: 1024,
            queue_max: 1024,
            queue_timeout: Millis::secs(5),
        },
        check: Some(TrafficCheck {
            path: "/".to_owned(),
            interval: Millis::secs(1),
            timeout: Millis(500),
            rise: 1,
            fall: 2,
        }),
        ejection: Ejection { failures: 5, base: Millis::secs(10), share_max: Weight(5_000) },
        slow_start: Millis::secs(10),
        zone_spill_below: Weight(7_000),
    })
}

fn haproxy_configuration(upstreams: &[SocketAddr], more: &str) -> String {
    let servers: String = upstreams
        .iter()
        .enumerate()
        .map(|(number, address)| {
            format!("    server s{number} {address} check inter 100ms fall 2 rise 1 {more}\n")
        })
        .collect();
    format!(
        "global\n    nbthread 1\n    maxconn 4000\n    stats socket unix@./admin.sock level admin\ndefaults\n    mode http\n    timeout connect 1s\n    timeout client 30s\n    timeout server 30s\n    timeout http-request 30s\n    retries 2\n    retry-on all-retryable-errors\n    option redispatch 1\n    option forwardfor\n    option httpchk GET /\nfrontend f\n    bind {}\n    unique-id-format %[uuid()]\n    unique-id-header X-Request-Id\n    default_backend b\nbackend b\n    balance leastconn\n    http-reuse always\n{servers}",
        Who::HaProxy.address()
    )
}

fn nginx_configuration(upstreams: &[SocketAddr]) -> String {
    nginx("master_process off;", upstreams, None)
}

/// With a master process, which a reload needs, and one upstream marked as down.
pub(super) fn nginx_managed(upstreams: &[SocketAddr], down: Option<usize>) -> String {
    nginx("worker_processes 1;", upstreams, down)
}

fn nginx(processes: &str, upstreams: &[SocketAddr], down: Option<usize>) -> String {
    let servers: String = upstreams
        .iter()
        .enumerate()
        .map(|(at, it)| format!("server {it}{};", if down == Some(at) { " down" } else { "" }))
        .collect();
    format!(
        "daemon off; {processes} pid nginx.pid; error_log stderr crit; worker_rlimit_nofile 20000;
         events {{ worker_connections 20000; }}
         http {{
           access_log off; keepalive_requests 1000000; client_body_temp_path body; proxy_temp_path proxy;
           upstream b {{ least_conn; {servers} keepalive 128; keepalive_requests 1000000; }}
           server {{ listen {} backlog=4096; location / {{
             proxy_pass http://b; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_set_header Host $host;
             proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for; proxy_set_header X-Request-Id $request_id;
             proxy_connect_timeout 1s; proxy_next_upstream error timeout; proxy_next_upstream_tries 3; }} }} }}",
        Who::Nginx.address()
    )
}
