//! A steady load of real HTTP requests, with an honest account of each.
//!
//! It is open-loop: requests are due at a fixed rate whether or not earlier ones were answered, and latency
//! counts from when a request was due, so that a stall is seen in full ("coordinated omission", Gil Tene).
//! Nothing is retried. A request has failed if it was refused, reset, cut short, timed out, or got a status
//! other than 200 or a body that is not the service's.

mod client;
mod tally;

pub(crate) use client::Failure;
pub(crate) use tally::{Page, PhaseTally, RequestNumber};

use client::Connection;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tally::Tally;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Requests in flight at most; beyond it the next one waits, and its wait counts as latency.
const IN_FLIGHT_MAX: usize = 2_048;
/// Idle connections kept per target.
const IDLE_MAX: usize = 64;
/// Every so many requests one opens a fresh connection and closes it after.
const FRESH_EVERY: u64 = 5;
/// A request without its whole answer after this long has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);

/// What load to make.
#[derive(Clone, Debug)]
pub(crate) struct LoadOptions {
    /// Asked in turn.
    pub(crate) targets: Vec<SocketAddr>,
    /// Requests per second, over all targets.
    pub(crate) rate: u32,
}

/// A running load.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    stop: CancellationToken,
    pacing: tokio::task::JoinHandle<()>,
    /// When it began.
    pub(crate) started: Instant,
}

/// The counts of a load, for a view.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    shared: Arc<Shared>,
}

impl Meter {
    /// Sent and failed in all, and in flight now.
    pub(crate) fn totals(&self) -> (u64, u64, usize) {
        let tally = self.shared.tally();
        let sum = |of: fn(&PhaseTally) -> u64| tally.phases().iter().map(of).sum();
        (sum(|phase| phase.sent), sum(|phase| phase.failed), tally.in_flight())
    }
}

#[derive(Debug)]
struct Shared {
    targets: Vec<SocketAddr>,
    idle: Vec<Mutex<Vec<Connection>>>,
    tally: Mutex<Tally>,
    slots: Arc<Semaphore>,
}

impl Load {
    /// Begins to send.
    pub(crate) fn start(options: LoadOptions) -> Self {
        let shared = Arc::new(Shared {
            idle: options.targets.iter().map(|_| Mutex::default()).collect(),
            tally: Mutex::new(Tally::new(options.targets.len())),
            slots: Arc::new(Semaphore::new(IN_FLIGHT_MAX)),
            targets: options.targets,
        });
        let stop = CancellationToken::new();
        let pacing = {
            let (shared, stop, runtime) = (shared.clone(), stop.clone(), tokio::runtime::Handle::current());
            tokio::task::spawn_blocking(move || pace(&runtime, &shared, options.rate, &stop))
        };
        Self { shared, stop, pacing, started: Instant::now() }
    }

    /// Ends the present phase: requests sent from now on count for the next one.
    pub(crate) fn next_phase(&self) {
        self.shared.tally().next_phase();
    }

    /// Its counts for a view, as long as the view lives.
    pub(crate) fn meter(&self) -> Meter {
        Meter { shared: self.shared.clone() }
    }

    /// Begins to remember which requests are in flight to the target with this index.
    pub(crate) fn open_window(&self, target: usize) {
        self.shared.tally().open_window(target);
    }

    /// The requests in flight to it at any time since.
    pub(crate) fn close_window(&self, target: usize) -> std::collections::BTreeSet<RequestNumber> {
        self.shared.tally().close_window(target)
    }

    /// The process that answered last at this target, and when it first did.
    pub(crate) fn answered(&self, target: usize) -> Option<(u32, Instant)> {
        self.shared.tally().answered(target)
    }

    /// Sends no more, waits for what is in flight (each request ends within its own timeout), and gives the
    /// final counts.
    pub(crate) async fn finish(mut self) -> Vec<PhaseTally> {
        self.stop.cancel();
        // The pacing thread ends by itself; it has nothing to say.
        let _ = (&mut self.pacing).await;
        let all = u32::try_from(IN_FLIGHT_MAX).expect("a few thousand");
        // Holding every slot means that every request is settled.
        let _ = self.shared.slots.acquire_many(all).await;
        self.shared.tally().phases().to_vec()
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Shared {
    fn tally(&self) -> MutexGuard<'_, Tally> {
        self.tally.lock().expect("no code that holds the tally panics")
    }

    /// An idle connection that is still open, newest first, or none.
    fn take_idle(&self, target: usize) -> Option<Connection> {
        let mut idle = self.idle[target].lock().expect("no code that holds the pool panics");
        while let Some(connection) = idle.pop() {
            if connection.is_open() {
                return Some(connection);
            }
        }
        None
    }

    fn keep_idle(&self, target: usize, connection: Connection) {
        let mut idle = self.idle[target].lock().expect("no code that holds the pool panics");
        if idle.len() < IDLE_MAX {
            idle.push(connection);
        }
    }
}

/// Sends requests when they are due, target after target, until told to stop.
///
/// On a thread of its own: the runtime's timers tick in milliseconds, and that would be counted as latency.
fn pace(runtime: &tokio::runtime::Handle, shared: &Arc<Shared>, rate: u32, stop: &CancellationToken) {
    let start = Instant::now();
    for number in 0_u64.. {
        let due = start + Duration::from_nanos(number.saturating_mul(1_000_000_000) / u64::from(rate.max(1)));
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        if stop.is_cancelled() {
            return;
        }
        let Ok(slot) = runtime.block_on(shared.slots.clone().acquire_owned()) else { return };
        let target = usize::try_from(number % shared.targets.len() as u64).expect("an index");
        // By rounds over the targets, so that each of them gets its share of fresh connections.
        let fresh = (number / shared.targets.len() as u64).is_multiple_of(FRESH_EVERY);
        let shared = shared.clone();
        runtime.spawn(async move {
            request(&shared, target, fresh, due).await;
            drop(slot);
        });
    }
}

/// Sends one request once and counts what became of it.
async fn request(shared: &Shared, target: usize, fresh: bool, due: Instant) {
    let ticket = shared.tally().send(target);
    let asked = tokio::time::timeout(REQUEST_TIMEOUT, ask(shared, target, fresh)).await;
    let outcome = asked.unwrap_or(Err(Failure::TimedOut));
    let now = Instant::now();
    shared.tally().settle(ticket, outcome, now.saturating_duration_since(due), now);
}

async fn ask(shared: &Shared, target: usize, fresh: bool) -> Result<Page, Failure> {
    let address = shared.targets[target];
    let idle = if fresh { None } else { shared.take_idle(target) };
    let connection = match idle {
        Some(connection) => connection,
        None => Connection::open(address).await?,
    };
    let answer = connection.get(address, !fresh).await?;
    if let Some(connection) = answer.connection {
        shared.keep_idle(target, connection);
    }
    Page::parse(&answer.body).ok_or(Failure::Body)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    /// Long enough for a loaded machine; nothing here waits this long when it works.
    const ROOM: Duration = Duration::from_secs(20);

    /// A server that gives each request, in order, what `script` says, and keeps connections open.
    async fn serve(script: fn(u64) -> &'static str) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = Arc::new(std::sync::atomic::AtomicU64::new(0));
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let served = served.clone();
                tokio::spawn(async move {
                    let mut bytes = [0; 1024];
                    while stream.read(&mut bytes).await.is_ok_and(|read| read > 0) {
                        let number = served.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                        let answer = script(number);
                        if answer.is_empty() || stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        address
    }

    const GOOD: &str = "HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n1.0 web.1 7\n";
    const ERROR: &str = "HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n";
    const OTHER: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

    async fn run(target: SocketAddr, until: impl Fn(&Load) -> bool) -> PhaseTally {
        let load = Load::start(LoadOptions { targets: vec![target], rate: 500 });
        let deadline = Instant::now() + ROOM;
        while !until(&load) {
            assert!(Instant::now() < deadline, "the load did not come so far: {:?}", load.meter().totals());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        load.finish().await.remove(0)
    }

    #[tokio::test]
    async fn good_answers_are_counted_by_release() {
        let target = serve(|_| GOOD).await;
        let tally = run(target, |load| load.meter().totals().0 >= 50).await;
        assert_eq!((tally.ok, tally.failed), (tally.sent, 0));
        assert_eq!(tally.releases.get("1.0"), Some(&tally.sent));
        assert!(tally.latency.latency().max > 0.0);
    }

    #[tokio::test]
    async fn each_kind_of_failure_is_counted_once_and_nothing_is_retried() {
        let target = serve(|number| match number {
            3 => ERROR,
            5 => OTHER,
            7 => "",
            9 => "HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\nshort",
            _ => GOOD,
        })
        .await;
        // The request whose answer stays short times out by itself: its connection stays open.
        let tally = run(target, |load| load.meter().totals().1 >= 4).await;
        let kinds: Vec<_> = tally.kinds.into_iter().collect();
        let expected = [(Failure::Cut, 1), (Failure::TimedOut, 1), (Failure::Status, 1), (Failure::Body, 1)];
        assert_eq!(kinds, expected);
        assert_eq!(tally.ok + tally.failed, tally.sent);
    }

    #[tokio::test]
    async fn nobody_listening_is_refused() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap();
        drop(listener);
        let tally = run(target, |load| load.meter().totals().1 >= 5).await;
        assert_eq!(tally.kinds.get(&Failure::Refused), Some(&tally.sent));
    }
}
