//! A steady load of real HTTP requests, with an honest account of each.
//!
//! It is open-loop: requests are due at a fixed rate whether or not earlier ones were answered, and latency
//! counts from when a request was due, so that a stall is seen in full ("coordinated omission", Gil Tene).
//! Nothing is retried. Each request asks something else, of one service after the other and as one user after the
//! other, and its answer is checked. It has failed if it was refused, reset, cut short, timed out, answered by no
//! instance of its service, or with anything but the answer to what was asked. An error that an instance answers
//! itself, and puts its name to, is told apart: a bad release's errors are its own, and lost by nobody.

mod client;
mod tally;
#[cfg(test)]
mod tests;

pub(crate) use client::Failure;
pub(crate) use tally::{PhaseTally, Side, SideTally};

use crate::sample::quote;
use client::{Answer, Connection, Question};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};
use tally::{Outcome, Tally};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// At most this part of a second's requests is in flight; beyond it the next one waits, and its wait counts as latency. A
/// machine that cannot carry the load is slow then, and does not drown.
const IN_FLIGHT_OF_RATE: u32 = 2;
/// Idle connections kept per gateway.
const IDLE_MAX: usize = 64;
/// A connection that was idle for longer is not used again: the gateway may be about to close it.
const IDLE_FOR: Duration = Duration::from_secs(5);
/// Every so many requests one opens a fresh connection and closes it after.
const FRESH_EVERY: u64 = 5;
/// A request without its whole answer after this long has failed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// The load generator was held up itself if it wakes up this much too late.
const HELD_UP: Duration = Duration::from_secs(1);
/// As many users ask in turn; a prime, so that each of them comes by every gateway and asks everything.
const USERS: u64 = 997;
/// As many different things are asked.
const QUESTIONS: u64 = 1_000;

/// A service that is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Its name: its instances' names begin with it.
    pub(crate) service: &'static str,
    /// The host by which gateways know it.
    pub(crate) host: &'static str,
}

/// What load to make.
#[derive(Clone, Debug)]
pub(crate) struct LoadOptions {
    /// The gateways, asked in turn.
    pub(crate) gateways: Vec<SocketAddr>,
    /// The services, asked in turn.
    pub(crate) services: Vec<Asked>,
    /// Requests per second, over all of them.
    pub(crate) rate: u32,
}

/// A running load.
#[derive(Debug)]
pub(crate) struct Load {
    shared: Arc<Shared>,
    stop: CancellationToken,
    pacing: tokio::task::JoinHandle<()>,
    started: Instant,
}

/// What a load counted in the end.
#[derive(Debug)]
pub(crate) struct Counted {
    /// The phases, in order.
    pub(crate) phases: Vec<PhaseTally>,
    /// From its start to its last answer.
    pub(crate) took: Duration,
    /// How long its machine let it send nothing.
    pub(crate) held_up: Duration,
}

/// The counts of a load, for a view.
#[derive(Clone, Debug)]
pub(crate) struct Meter {
    shared: Arc<Shared>,
}

/// Counts of a phase, or of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) sent: u64,
    pub(crate) failed: u64,
    /// Errors that instances answered.
    pub(crate) errors: u64,
    pub(crate) in_flight: usize,
}

impl Meter {
    /// What was counted so far.
    pub(crate) fn totals(&self) -> Counts {
        let tally = self.shared.tally();
        let sum = |of: fn(&PhaseTally) -> u64| tally.phases().iter().map(of).sum();
        Counts {
            sent: sum(|phase| phase.sent),
            failed: sum(|phase| phase.failed),
            errors: sum(PhaseTally::errors),
            in_flight: tally.in_flight(),
        }
    }

    /// What was counted of one phase so far.
    pub(crate) fn phase(&self, index: usize) -> Option<Counts> {
        let tally = self.shared.tally();
        let phase = tally.phases().get(index)?;
        let ended = phase.answered() + phase.failed;
        let in_flight = usize::try_from(phase.sent.saturating_sub(ended)).unwrap_or(usize::MAX);
        Some(Counts { sent: phase.sent, failed: phase.failed, errors: phase.errors(), in_flight })
    }

    /// What each release answered so far.
    pub(crate) fn sides(&self) -> BTreeMap<Side, SideTally> {
        self.shared.tally().sides().clone()
    }
}

#[derive(Debug)]
struct Shared {
    gateways: Vec<SocketAddr>,
    services: Vec<Asked>,
    idle: Vec<Mutex<Vec<(Connection, Instant)>>>,
    tally: Mutex<Tally>,
    slots: Arc<Semaphore>,
    in_flight_max: u32,
}

impl Load {
    /// Begins to send.
    pub(crate) fn start(options: LoadOptions) -> Self {
        let in_flight_max = (options.rate / IN_FLIGHT_OF_RATE).max(1);
        let shared = Arc::new(Shared {
            idle: options.gateways.iter().map(|_| Mutex::default()).collect(),
            tally: Mutex::new(Tally::new()),
            slots: Arc::new(Semaphore::new(usize::try_from(in_flight_max).unwrap_or(usize::MAX))),
            in_flight_max,
            gateways: options.gateways,
            services: options.services,
        });
        let stop = CancellationToken::new();
        let pacing = {
            let (shared, stop, runtime) = (shared.clone(), stop.clone(), tokio::runtime::Handle::current());
            tokio::task::spawn_blocking(move || pace(&runtime, &shared, options.rate, &stop))
        };
        Self { shared, stop, pacing, started: Instant::now() }
    }

    /// Begins a phase and ends the one before: requests sent from now on count for it. Gives its place in the counts.
    pub(crate) fn begin_phase(&self) -> usize {
        self.shared.tally().begin_phase()
    }

    /// Its counts for a view, as long as the view lives.
    pub(crate) fn meter(&self) -> Meter {
        Meter { shared: self.shared.clone() }
    }

    /// What a release answered so far; `None` before its first answer.
    pub(crate) fn side(&self, side: &Side) -> Option<SideTally> {
        self.shared.tally().sides().get(side).cloned()
    }

    /// The process of an instance that answered last, and when it first did.
    pub(crate) fn answered(&self, instance: &str) -> Option<(u32, Instant)> {
        self.shared.tally().answered(instance)
    }

    /// Asks once with a header more, by a connection of its own: which release answers rightly at this gateway.
    /// Not a part of the load, and not counted.
    pub(crate) async fn preview(
        &self,
        gateway: usize,
        asked: &Asked,
        header: &str,
    ) -> Result<String, Failure> {
        let line = format!("{header}: 1\r\n");
        let (number, keep) = (1, false);
        let whole = async {
            let connection = Connection::open(self.shared.gateways[gateway]).await?;
            let path = format!("/quote/{number}");
            connection.get(Question { host: asked.host, path: &path, headers: &line, keep }).await
        };
        let answer = tokio::time::timeout(REQUEST_TIMEOUT, whole).await.unwrap_or(Err(Failure::TimedOut))?;
        match judge(&answer, asked, number) {
            Outcome::Right(author) => Ok(author.release),
            Outcome::Error(_) => Err(Failure::Status),
            Outcome::Failed(failure) => Err(failure),
        }
    }

    /// Sends no more, waits for what is in flight (each request ends within its own timeout), and gives the
    /// final counts.
    pub(crate) async fn finish(mut self) -> Counted {
        self.stop.cancel();
        // The pacing thread ends by itself; it has nothing to say.
        let _ = (&mut self.pacing).await;
        // Holding every slot means that every request is settled.
        let _ = self.shared.slots.acquire_many(self.shared.in_flight_max).await;
        let took = self.started.elapsed();
        let tally = self.shared.tally();
        Counted { phases: tally.phases().to_vec(), took, held_up: tally.held_up_for() }
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
    fn take_idle(&self, gateway: usize) -> Option<Connection> {
        let mut idle = self.idle[gateway].lock().expect("no code that holds the pool panics");
        while let Some((connection, since)) = idle.pop() {
            if since.elapsed() < IDLE_FOR && connection.is_open() {
                return Some(connection);
            }
        }
        None
    }

    fn keep_idle(&self, gateway: usize, connection: Connection) {
        let mut idle = self.idle[gateway].lock().expect("no code that holds the pool panics");
        if idle.len() < IDLE_MAX {
            idle.push((connection, Instant::now()));
        }
    }
}

/// One request of the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Turn {
    gateway: usize,
    service: usize,
    number: u64,
    user: u64,
    /// Over a connection of its own.
    fresh: bool,
}

impl Turn {
    /// The request with this number: gateways in turn, and in each round over them the next service, so that every
    /// service is asked everything at every gateway and each pair gets its share of fresh connections.
    fn of(number: u64, gateways: usize, services: usize) -> Self {
        let index = |number: u64, of: usize| usize::try_from(number % of as u64).expect("an index");
        let round = number / gateways as u64;
        Self {
            gateway: index(number, gateways),
            service: index(round, services),
            number: (round / services as u64) % QUESTIONS,
            user: number % USERS,
            fresh: (round / services as u64).is_multiple_of(FRESH_EVERY),
        }
    }
}

/// Sends requests when they are due, until told to stop.
///
/// On a thread of its own: the runtime's timers tick in milliseconds, and that would be counted as latency.
fn pace(runtime: &tokio::runtime::Handle, shared: &Arc<Shared>, rate: u32, stop: &CancellationToken) {
    let mut start = Instant::now();
    for number in 0_u64.. {
        let mut due =
            start + Duration::from_nanos(number.saturating_mul(1_000_000_000) / u64::from(rate.max(1)));
        let late = sleep_until(due);
        if late > HELD_UP {
            // A machine that stood still sent nothing; to send it all at once now would be another load.
            shared.tally().held_up(late);
            start += late;
            due += late;
        }
        if stop.is_cancelled() {
            return;
        }
        let Ok(slot) = runtime.block_on(shared.slots.clone().acquire_owned()) else { return };
        let turn = Turn::of(number, shared.gateways.len(), shared.services.len());
        let shared = shared.clone();
        runtime.spawn(async move {
            request(&shared, turn, due).await;
            drop(slot);
        });
    }
}

/// Sleeps, and gives how much too late it woke up; nothing where it was late before it slept.
fn sleep_until(due: Instant) -> Duration {
    let before = Instant::now();
    std::thread::sleep(due.saturating_duration_since(before));
    before.max(due).elapsed()
}

/// Sends one request once and counts what became of it.
async fn request(shared: &Shared, turn: Turn, due: Instant) {
    let asked = &shared.services[turn.service];
    let ticket = shared.tally().send(asked.service);
    let outcome = match tokio::time::timeout(REQUEST_TIMEOUT, ask(shared, turn)).await {
        Ok(Ok(answer)) => judge(&answer, asked, turn.number),
        Ok(Err(failure)) => Outcome::Failed(failure),
        Err(_) => Outcome::Failed(Failure::TimedOut),
    };
    let now = Instant::now();
    shared.tally().settle(ticket, outcome, now.saturating_duration_since(due), now);
}

async fn ask(shared: &Shared, turn: Turn) -> Result<Answer, Failure> {
    let idle = if turn.fresh { None } else { shared.take_idle(turn.gateway) };
    let connection = match idle {
        Some(connection) => connection,
        None => Connection::open(shared.gateways[turn.gateway]).await?,
    };
    let (path, cookie) = (format!("/quote/{}", turn.number), format!("Cookie: user={}\r\n", turn.user));
    let host = shared.services[turn.service].host;
    let question = Question { host, path: &path, headers: &cookie, keep: !turn.fresh };
    let mut answer = connection.get(question).await?;
    if let Some(connection) = answer.connection.take() {
        shared.keep_idle(turn.gateway, connection);
    }
    Ok(answer)
}

/// What an answer is worth.
fn judge(answer: &Answer, asked: &Asked, number: u64) -> Outcome {
    let Some(author) = &answer.author else { return Outcome::Failed(Failure::Status) };
    let of_service = author.instance.split_once('.').is_some_and(|(service, _)| service == asked.service);
    match answer.status {
        200 if of_service && answer.body == quote(number) => Outcome::Right(author.clone()),
        500..=599 if of_service => Outcome::Error(author.clone()),
        _ => Outcome::Failed(Failure::Body),
    }
}
