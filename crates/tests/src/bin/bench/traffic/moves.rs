//! Whom a split moves and how soon a return is done: shares of many users against the binomial bound, users who move
//! without need, and the last answer of the new version after the command that returns to the one before.

use crate::serve;
use anyhow::{Context as _, Result, ensure};
use baton_tests::harness::users::{Client, everyone};
use baton_tests::harness::{Cluster, ClusterOptions, ServiceFile};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const USERS: usize = 20_000;
/// Shares in hundredths of a percent, one after the other.
const SHARES: [u32; 6] = [100, 500, 1_000, 2_500, 5_000, 7_500];
/// Standard deviations that an honest hash exceeds once in a million such benches.
const DEVIATIONS_MAX: f64 = 5.0;
/// Between two questions of a watcher.
const ASK_EVERY: Duration = Duration::from_millis(2);
/// So many answers in a row of one version: a gateway has no other.
const ROW: usize = 20;
const BLUE: &str = "blue";
const ROOM: Duration = Duration::from_secs(30);

fn cluster() -> Cluster {
    let extra = vec!["--gateways".to_owned(), "2".to_owned()];
    Cluster::start_with(&ClusterOptions { nodes: 2, extra, ..ClusterOptions::default() })
}

fn file(rollout: &str) -> Result<ServiceFile> {
    Ok(serve::routed()?
        .with_section("placement", "replicas = 4\n")
        .with_section("route", "path = \"/\"\nsplit_by = \"header:x-user\"\n")
        .with_section("rollout", &format!("min_healthy = \"200ms\"\n{rollout}")))
}

fn deploy(cluster: &Cluster, version: &str, rollout: &str) -> Result<()> {
    let ran = cluster.deploy(&file(rollout)?, version);
    ensure!(ran.code == 0, "{version}: {}{}", ran.stdout, ran.stderr);
    Ok(())
}

/// Grows a canary over [`USERS`] users, and prints each step's share, its deviation, and who moved back.
pub(crate) fn split() -> Result<()> {
    let cluster = cluster();
    deploy(&cluster, "1", "strategy = \"rolling\"\n")?;
    let steps: Vec<String> =
        SHARES.iter().map(|share| format!("\"{}%\"", f64::from(*share) / 100.0)).collect();
    let canary = format!(
        "strategy = \"canary\"\nbatch = 2\n[rollout.canary]\nsteps = [{}, \"100%\"]\nbake = \"1h\"\n",
        steps.join(", ")
    );
    let path = cluster.write("canary.toml", &file(&canary)?.text());
    let ran = cluster.baton(&["deploy", &path, "--version", "2"]);
    ensure!(ran.code == 0, "{}{}", ran.stdout, ran.stderr);
    println!("\n{USERS} users of two gateways while a canary grows:");
    let mut before = vec![false; USERS];
    for (step, share) in SHARES.iter().enumerate() {
        if step > 0 {
            let ran = cluster.baton(&["rollout", "promote", "web", "--to", &(step + 1).to_string()]);
            ensure!(ran.code == 0, "step {}: {}", step + 1, ran.stderr);
        }
        let _ = cluster.routed_as("web", "the step's share everywhere", |route| {
            route["split"]["weights"]["2"].as_u64() == Some(u64::from(*share))
        });
        before = measure(&cluster, *share, &before)?;
    }
    Ok(())
}

/// Asks as each user once; whoever got the new release.
fn measure(cluster: &Cluster, share: u32, before: &[bool]) -> Result<Vec<bool>> {
    let now: Vec<bool> = everyone(&cluster.gateways(), USERS).iter().map(|version| version == "2").collect();
    let new = now.iter().filter(|is_new| **is_new).count();
    let back = before.iter().zip(&now).filter(|(before, now)| **before && !**now).count();
    #[allow(clippy::cast_precision_loss)]
    let (found, users) = (new as f64, USERS as f64);
    let expected = f64::from(share) / 10_000.0;
    let deviations = (found - users * expected) / (users * expected * (1.0 - expected)).sqrt();
    println!(
        "  weight {:>5.2} %: {:>6.2} % of the users, {deviations:+.1} standard deviations; {back} moved back",
        expected * 100.0,
        found / users * 100.0
    );
    ensure!(deviations.abs() <= DEVIATIONS_MAX, "the share is outside the binomial bound");
    ensure!(back == 0, "{back} users moved who need not");
    Ok(now)
}

/// Somebody who asks one gateway again and again.
struct Watcher {
    stop: Arc<AtomicBool>,
    answered: Receiver<String>,
    thread: JoinHandle<Watched>,
}

/// What a watcher saw.
struct Watched {
    /// When the last answer of the new version was there.
    last_new: Option<Instant>,
    asked: u64,
    failed: u64,
}

impl Watcher {
    fn start(gateway: SocketAddr, green: &str) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (told, answered) = channel();
        let (green, stopped) = (green.to_owned(), Arc::clone(&stop));
        let thread = std::thread::spawn(move || watch(gateway, &green, &stopped, &told));
        Self { stop, answered, thread }
    }

    /// Until as many answers in a row came of this version.
    fn await_row(&self, version: &str, count: usize) -> Result<()> {
        let mut row = 0;
        while row < count {
            let answer = self.answered.recv_timeout(ROOM).context("a gateway's answer")?;
            row = if answer == version { row + 1 } else { 0 };
        }
        Ok(())
    }

    fn stop(self) -> Watched {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("no watcher panics")
    }
}

/// Returns from green to blue so many times, and prints when the last answer of green was there after the command began.
pub(crate) fn switch(rounds: u32) -> Result<()> {
    let cluster = cluster();
    let blue_green = "strategy = \"blue-green\"\n[rollout.blue_green]\nbake = \"0s\"\nkeep_warm = \"1h\"\n";
    deploy(&cluster, BLUE, blue_green)?;
    let (mut last, mut done) = (Vec::new(), Vec::new());
    let (mut asked, mut failed) = (0, 0);
    for round in 0..rounds {
        let green = format!("green-{round}");
        deploy(&cluster, &green, blue_green)?;
        let gateways = cluster.gateways().into_iter();
        let watchers: Vec<Watcher> = gateways.map(|gateway| Watcher::start(gateway, &green)).collect();
        watchers.iter().try_for_each(|it| it.await_row(&green, ROW))?;
        let begun = Instant::now();
        let ran = cluster.baton(&["rollout", "undo", "web", "--watch"]);
        done.push(begun.elapsed().as_secs_f64() * 1000.0);
        ensure!(ran.code == 0, "the return from {green}: {}{}", ran.stdout, ran.stderr);
        watchers.iter().try_for_each(|it| it.await_row(BLUE, ROW))?;
        let mut latest: f64 = 0.0;
        for watched in watchers.into_iter().map(Watcher::stop) {
            let at = watched.last_new.context("green had answered")?.saturating_duration_since(begun);
            latest = latest.max(at.as_secs_f64() * 1000.0);
            asked += watched.asked;
            failed += watched.failed;
        }
        last.push(latest);
    }
    println!("\n{rounds} returns from green to blue at two gateways:");
    println!(
        "  last answer of green after the command began: median {:.0} ms, worst {:.0} ms",
        crate::median(&last),
        last.iter().copied().fold(0.0, f64::max)
    );
    println!("  the command itself, to the end of its rollout: median {:.0} ms", crate::median(&done));
    println!("  {failed} of {asked} requests failed");
    ensure!(failed == 0, "{failed} requests were lost");
    Ok(())
}

/// Asks one gateway until it is told to stop, and tells what answered.
fn watch(gateway: SocketAddr, green: &str, stop: &AtomicBool, told: &Sender<String>) -> Watched {
    let mut client = Client::new(gateway);
    let mut watched = Watched { last_new: None, asked: 0, failed: 0 };
    while !stop.load(Ordering::Relaxed) {
        watched.asked += 1;
        match client.ask(&[]) {
            Ok(answer) if answer.status == 200 => {
                if answer.version == green {
                    watched.last_new = Some(Instant::now());
                }
                // Nobody listens any more once the bench is done with it.
                let _ = told.send(answer.version);
            }
            _ => watched.failed += 1,
        }
        std::thread::sleep(ASK_EVERY);
    }
    watched
}
