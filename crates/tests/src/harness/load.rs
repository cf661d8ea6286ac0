//! A load of real HTTP/1.1 requests from plain threads: no retries, every failure counted.

use super::answer;
use super::seen::Seen;
use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A request that takes longer has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Failures whose text is kept; the rest are only counted.
const FAILURES_KEPT: usize = 20;

/// How a load is made.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Where requests go, in turn.
    pub targets: Vec<SocketAddr>,
    /// Threads, each with one connection at a time.
    pub connections: usize,
    /// Requests a second over all threads; `None`: as many as the machine gives.
    pub rate: Option<f64>,
    /// Requests on one connection before it is closed; 1: every request on a fresh one.
    pub requests_per_connection: u32,
}

/// What a load counted.
#[derive(Clone, Debug, Default)]
pub struct Counted {
    /// Requests sent.
    pub sent: u64,
    /// Requests that were refused, reset, cut short, timed out, or answered with a status other than 200.
    pub failed: u64,
    /// The first failures, in words.
    pub failures: Vec<String>,
    /// Answers by the `version=` they carry.
    pub versions: std::collections::BTreeMap<String, u64>,
    /// Latencies of the answered requests, in microseconds, sorted.
    pub latencies_us: Vec<u32>,
    /// How long the load ran.
    pub took: Duration,
    /// The answered request that took longest.
    pub slowest: Option<Slow>,
}

/// An answered request that took long.
#[derive(Clone, Debug)]
pub struct Slow {
    /// From its connection, where it needed one, to its whole answer.
    pub took: Duration,
    /// When it began.
    pub begun: Instant,
    /// It made a connection of its own.
    pub fresh: bool,
    /// What answered it.
    pub version: String,
}

impl Counted {
    /// A quantile of the latency, in milliseconds.
    #[must_use]
    pub fn quantile_ms(&self, q: f64) -> f64 {
        let last = self.latencies_us.len().saturating_sub(1);
        #[allow(clippy::cast_precision_loss, clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        let at = (last as f64 * q).round() as usize;
        self.latencies_us.get(at).map_or(0.0, |us| f64::from(*us) / 1000.0)
    }

    fn slower(&mut self, other: Slow) {
        if self.slowest.as_ref().is_none_or(|slowest| slowest.took < other.took) {
            self.slowest = Some(other);
        }
    }
}

/// A load that runs until it is stopped.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    seen: Seen,
    total: Arc<Mutex<Counted>>,
    threads: Vec<JoinHandle<()>>,
    begun: Instant,
}

impl Load {
    /// Starts the threads.
    #[must_use]
    pub fn start(plan: &Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let seen = Seen::default();
        let total = Arc::new(Mutex::new(Counted::default()));
        let threads = (0..plan.connections)
            .map(|index| {
                let (plan, stop, sent, seen, total) =
                    (plan.clone(), Arc::clone(&stop), Arc::clone(&sent), seen.clone(), Arc::clone(&total));
                std::thread::spawn(move || {
                    let counted = client(&plan, index, &stop, &sent, &seen);
                    merge(&mut total.lock().expect("no client panics"), counted);
                })
            })
            .collect();
        Self { stop, sent, seen, total, threads, begun: Instant::now() }
    }

    /// Requests sent so far.
    #[must_use]
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Waits until `version` has answered a request of this load. Without it a load that is stopped as soon as a
    /// deploy is done may never have met what was deployed.
    ///
    /// # Panics
    /// When it did not within half a minute.
    pub fn await_version(&self, version: &str) {
        self.seen.await_version(version);
    }

    /// Stops, waits for the requests in flight, and returns what was counted.
    #[must_use]
    pub fn stop(self) -> Counted {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no client panics");
        }
        let mut total = std::mem::take(&mut *self.total.lock().expect("no client panics"));
        total.took = self.begun.elapsed();
        total.latencies_us.sort_unstable();
        total
    }
}

fn merge(total: &mut Counted, part: Counted) {
    total.sent += part.sent;
    total.failed += part.failed;
    for failure in part.failures {
        if total.failures.len() < FAILURES_KEPT {
            total.failures.push(failure);
        }
    }
    for (version, count) in part.versions {
        *total.versions.entry(version).or_default() += count;
    }
    total.latencies_us.extend(part.latencies_us);
    if let Some(slow) = part.slowest {
        total.slower(slow);
    }
}

/// One thread: a connection at a time, requests one after the other.
fn client(plan: &Plan, index: usize, stop: &AtomicBool, sent: &AtomicU64, seen: &Seen) -> Counted {
    let mut counted = Counted::default();
    let mut turn = index;
    #[allow(clippy::cast_precision_loss)]
    let pause = plan.rate.map(|rate| Duration::from_secs_f64(plan.connections as f64 / rate));
    let mut due = Instant::now() + pause.unwrap_or_default().mul_f64(index as f64 / plan.connections as f64);
    let mut connection: Option<(BufReader<TcpStream>, u32)> = None;
    while !stop.load(Ordering::Relaxed) {
        if let Some(pause) = pause {
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            due += pause;
        }
        let target = plan.targets[turn % plan.targets.len()];
        counted.sent += 1;
        sent.fetch_add(1, Ordering::Relaxed);
        let begun = Instant::now();
        let asked = connection.is_some();
        match request(&mut connection, target, plan.requests_per_connection) {
            Ok(version) => {
                let took = begun.elapsed();
                counted.latencies_us.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
                if counted.slowest.as_ref().is_none_or(|slowest| slowest.took < took) {
                    counted.slower(Slow { took, begun, fresh: !asked, version: version.clone() });
                }
                seen.count(&mut counted.versions, version);
            }
            Err(error) => {
                connection = None;
                counted.failed += 1;
                if counted.failures.len() < FAILURES_KEPT {
                    let kind = if asked { "kept" } else { "fresh" };
                    counted.failures.push(format!(
                        "{target} on a {kind} connection after {:?}: {error}",
                        begun.elapsed()
                    ));
                }
            }
        }
        if connection.is_none() {
            turn += 1;
        }
    }
    counted
}

/// Sends one request and reads its answer; returns the version that answered. Leaves the connection open where
/// both sides agree to keep it.
fn request(
    connection: &mut Option<(BufReader<TcpStream>, u32)>,
    target: SocketAddr,
    most: u32,
) -> std::io::Result<String> {
    let (mut reader, used) = match connection.take() {
        Some(open) => open,
        None => {
            let stream = TcpStream::connect_timeout(&target, REQUEST_TIMEOUT)?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(REQUEST_TIMEOUT))?;
            (BufReader::new(stream), 0)
        }
    };
    let last = used + 1 >= most;
    let close = if last { "Connection: close\r\n" } else { "" };
    reader.get_mut().write_all(format!("GET / HTTP/1.1\r\nHost: test\r\n{close}\r\n").as_bytes())?;
    let answer = answer::read(&mut reader)?;
    if !last && !answer.close {
        *connection = Some((reader, used + 1));
    }
    if answer.status != 200 {
        return Err(std::io::Error::other(format!("status {}", answer.status)));
    }
    Ok(answer.version)
}
