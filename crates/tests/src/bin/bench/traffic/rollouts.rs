//! A million requests and more at full load, over rollouts by every strategy, rollbacks, and upgrades of the gateways in
//! place. Beside it, the same server behind nginx and HAProxy, whose backends a careful script takes out, restarts and
//! puts in again.

use super::proxies::{Process, Who, backend, start_managed};
use crate::serve;
use anyhow::{Context as _, Result, bail, ensure};
use baton_tests::harness::load::{Counted, Load, Plan};
use baton_tests::harness::{Cluster, ClusterOptions, wait};
use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant};

const ROLLOUTS: usize = 20;
const ROLLBACKS: usize = 5;
const UPGRADES: usize = 5;
const REQUESTS_MIN: u64 = 1_000_000;
const CONNECTIONS: usize = 32;
/// Connections end now and then, so that new ones are made through everything.
const REQUESTS_PER_CONNECTION: u32 = 1000;
const REPLICAS: usize = 4;
const ROOM: Duration = Duration::from_secs(120);
/// A script that takes longer is given up: another minute of it tells nothing more.
const SCRIPT_WITHIN: Duration = Duration::from_secs(240);
/// What `baton rollout watch` ends with where a rollout waits for a person.
const PAUSED: i32 = 5;

/// A machine that gives all it has to the load answers a check late.
const CHECK: &str =
    "kind = \"http\"\nport = \"http\"\npath = \"/\"\ninterval = \"3s\"\ntimeout = \"2900ms\"\nfall = 3\n";

/// Strategies, with what their service files say; in turn.
const STRATEGIES: [(&str, &str); 5] = [
    ("rolling", "strategy = \"rolling\"\nbatch = 1\n"),
    (
        "canary",
        "strategy = \"canary\"\nbatch = 2\n[rollout.canary]\nsteps = [\"5%\", \"25%\", \"100%\"]\nbake = \"1s\"\n",
    ),
    ("blue-green", "strategy = \"blue-green\"\n[rollout.blue_green]\nbake = \"1s\"\nkeep_warm = \"2s\"\n"),
    (
        "ab",
        "strategy = \"ab\"\nbatch = 2\n[rollout.ab]\nkey = \"address\"\nshare = \"50%\"\nduration = \"1s\"\n",
    ),
    (
        "dark",
        "strategy = \"dark\"\n[rollout.dark]\nshare = \"10%\"\nduration = \"1s\"\nthen = \"promote\"\nkeep_warm = \"2s\"\n",
    ),
];

/// Runs both sides and prints what was counted. Fails where Baton lost a request.
pub(crate) fn run() -> Result<()> {
    println!("\nrequests at full load over {ROLLOUTS} rollouts:");
    let lost = baton()?;
    for who in [Who::Nginx, Who::HaProxy] {
        match scripted(who) {
            Ok(counted) => print(&format!("{}, a script and plain restarts", who.name()), &counted),
            Err(error) => println!("  {}, a script and plain restarts: {error:#}", who.name()),
        }
    }
    ensure!(lost == 0, "{lost} requests were lost");
    Ok(())
}

fn baton() -> Result<u64> {
    let extra = vec!["--gateways".to_owned(), "2".to_owned()];
    let cluster = Cluster::start_with(&ClusterOptions { nodes: 2, extra, ..ClusterOptions::default() });
    deploy(&cluster, "1", STRATEGIES[0].1)?;
    let load = Load::start(&Plan {
        targets: cluster.gateways(),
        connections: CONNECTIONS,
        rate: None,
        requests_per_connection: REQUESTS_PER_CONNECTION,
    });
    let mut times: Vec<Vec<f64>> = vec![Vec::new(); STRATEGIES.len()];
    let mut undone = Vec::new();
    let mut phases: Vec<(Instant, String)> = Vec::new();
    for number in 0..ROLLOUTS {
        let at = number % STRATEGIES.len();
        let begun = Instant::now();
        phases.push((begun, format!("the rollout of {} ({})", number + 2, STRATEGIES[at].0)));
        deploy(&cluster, &(number + 2).to_string(), STRATEGIES[at].1)?;
        times[at].push(begun.elapsed().as_secs_f64());
        if (number + 1) % (ROLLOUTS / ROLLBACKS) == 0 {
            let begun = Instant::now();
            phases.push((begun, format!("the undo of {}", number + 2)));
            let ran = cluster.baton(&["rollout", "undo", "web", "--watch"]);
            ensure!(ran.code == 0, "the undo of {} failed: {}{}", number + 2, ran.stdout, ran.stderr);
            undone.push(begun.elapsed().as_secs_f64());
        }
        if (number + 1) % (ROLLOUTS / UPGRADES) == 0 {
            phases.push((Instant::now(), "an upgrade of a gateway".to_owned()));
            upgrade(&cluster, number / (ROLLOUTS / UPGRADES) % 2)?;
        }
    }
    phases.push((Instant::now(), "what came after them".to_owned()));
    wait::until("a million requests", Duration::from_secs(1800), || {
        let sent = load.sent();
        if sent >= REQUESTS_MIN { Ok(()) } else { Err(sent.to_string()) }
    });
    let counted = load.stop();
    let answered = counted.versions.len();
    ensure!(answered > ROLLOUTS, "only {answered} versions answered: the load did not span the rollouts");
    print(
        &format!("baton, {ROLLOUTS} rollouts, {ROLLBACKS} rollbacks, {UPGRADES} upgrades of gateways"),
        &counted,
    );
    if let Some(slow) = &counted.slowest {
        let phase = phases.iter().rev().find(|(begun, _)| *begun <= slow.begun);
        println!(
            "    the slowest, on a {} connection, answered by {}, began {:.1} s into {}",
            if slow.fresh { "fresh" } else { "kept" },
            slow.version,
            phase.map_or(0.0, |(begun, _)| (slow.begun - *begun).as_secs_f64()),
            phase.map_or("the first rollout", |(_, name)| name),
        );
    }
    for ((name, _), times) in STRATEGIES.iter().zip(&times) {
        println!("    {name:<12} {:>6.1} s a rollout (median of {})", crate::median(times), times.len());
    }
    println!("    {:<12} {:>6.1} s (median of {})", "rollback", crate::median(&undone), undone.len());
    Ok(counted.failed)
}

/// Deploys a version by a strategy, promotes it where a person is asked, and watches to the end.
fn deploy(cluster: &Cluster, version: &str, strategy: &str) -> Result<()> {
    let file = serve::routed()?
        .with_section("checks.readiness", CHECK)
        .with_section("placement", &format!("replicas = {REPLICAS}\n"))
        .with_section("rollout", &format!("min_healthy = \"200ms\"\n{strategy}"));
    let mut ran = cluster.deploy(&file, version);
    if ran.code == PAUSED {
        let promoted = cluster.baton(&["rollout", "promote", "web"]);
        ensure!(promoted.code == 0, "{version} is not promoted: {}", promoted.stderr);
        ran = cluster.baton(&["rollout", "watch", "web", "--timeout", "120s"]);
    }
    ensure!(ran.code == 0, "the rollout of {version} failed: {}{}", ran.stdout, ran.stderr);
    Ok(())
}

/// Starts another process of a gateway, which takes over from the one there is; `baton dev` then starts one that takes
/// over in turn, so that each is two upgrades.
fn upgrade(cluster: &Cluster, gateway: usize) -> Result<()> {
    let name = format!("gateway-{}", gateway + 1);
    let old = cluster.role_pid(&name);
    let dir = cluster.ready["gateways"][gateway]["dir"].as_str().context("a folder")?;
    let mut next = cluster.command(&["gateway", "run", "--dir", dir]).spawn()?;
    wait::until("a further process of the gateway", ROOM, || match cluster.role_pid_now(&name) {
        Some(pid) if pid != old => Ok(()),
        other => Err(format!("{other:?}")),
    });
    wait::until("the end of the process between", ROOM, || match next.try_wait() {
        Ok(Some(status)) if status.success() => Ok(()),
        other => Err(format!("{other:?}")),
    });
    Ok(())
}

/// The same server behind another proxy: as many rollouts, each backend taken out, restarted and put in again.
fn scripted(who: Who) -> Result<Counted> {
    let folder = tempfile::tempdir()?;
    let addresses: Vec<SocketAddr> =
        (0..REPLICAS).map(|at| Ok(format!("127.0.0.1:{}", 18_201 + at).parse()?)).collect::<Result<_>>()?;
    let mut backends: Vec<Process> = addresses
        .iter()
        .map(|address| backend(folder.path(), &address.to_string()))
        .collect::<Result<_>>()?;
    let proxy = start_managed(who, folder.path(), &addresses)?;
    let load = Load::start(&Plan {
        targets: vec![who.address()],
        connections: CONNECTIONS,
        rate: None,
        requests_per_connection: REQUESTS_PER_CONNECTION,
    });
    let begun = Instant::now();
    for number in 0..ROLLOUTS {
        ensure!(begun.elapsed() < SCRIPT_WITHIN, "{} was at rollout {number} only", who.name());
        for at in 0..REPLICAS {
            let out = move_out(who, &proxy, folder.path(), &addresses, Some(at));
            out.with_context(|| format!("taking {at} out of {}", who.name()))?;
            backends[at].terminate(ROOM)?;
            backends[at] = backend(folder.path(), &addresses[at].to_string())?;
            move_out(who, &proxy, folder.path(), &addresses, None)?;
        }
    }
    let counted = load.stop();
    drop(backends);
    Ok(counted)
}

/// Tells a proxy which backend gets nothing new: HAProxy over its runtime socket, nginx by a configuration and a reload.
fn move_out(
    who: Who,
    proxy: &Process,
    folder: &Path,
    addresses: &[SocketAddr],
    out: Option<usize>,
) -> Result<()> {
    let at = folder.join(who.name());
    match who {
        Who::Baton => bail!("it needs no script"),
        Who::HaProxy => {
            for number in 0..addresses.len() {
                let state = if out == Some(number) { "drain" } else { "ready" };
                let mut socket = UnixStream::connect(at.join("admin.sock"))?;
                socket.write_all(format!("set server b/s{number} state {state}\n").as_bytes())?;
                let mut said = String::new();
                socket.read_to_string(&mut said)?;
                ensure!(said.trim().is_empty(), "HAProxy said: {said}");
            }
        }
        Who::Nginx => {
            let text = super::proxies::nginx_managed(addresses, out);
            std::fs::write(at.join("nginx.conf"), text)?;
            let before = proxy.children()?;
            proxy.signal(nix::sys::signal::Signal::SIGHUP)?;
            // A reload says nothing when it is done: another worker is all that a script can see.
            wait::until("another worker", ROOM, || match proxy.children() {
                Ok(now) if now.iter().any(|pid| !before.contains(pid)) => Ok(()),
                other => Err(format!("{other:?}")),
            });
        }
    }
    Ok(())
}

fn print(who: &str, counted: &Counted) {
    #[allow(clippy::cast_precision_loss)]
    let per_second = counted.sent as f64 / counted.took.as_secs_f64();
    println!(
        "  {who}: sent {} in {:.0} s ({per_second:.0}/s), failed {}, p50 {:.2} ms, p99 {:.2} ms, max {:.0} ms",
        counted.sent,
        counted.took.as_secs_f64(),
        counted.failed,
        counted.quantile_ms(0.5),
        counted.quantile_ms(0.99),
        counted.quantile_ms(1.0)
    );
    counted.failures.iter().take(5).for_each(|failure| println!("    {failure}"));
}
