//! Users who come back: each asks under a name of its own, always at the same gateway, and one request after the other. What
//! each was answered is kept in order, so that nobody who is moved between releases goes unseen.

use super::answer::{self, Answer};
use super::wait;
use std::collections::BTreeMap;
use std::io::{BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// A request that takes longer has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// A few hundred requests take seconds, on a busy machine more.
const GO_ROUND_WITHIN: Duration = Duration::from_secs(120);
/// Clients of a crowd at each gateway.
const CLIENTS: usize = 3;
/// Failures whose text is kept.
const FAILURES_KEPT: usize = 20;

/// One client of one gateway, with one connection at a time.
#[derive(Debug)]
pub struct Client {
    gateway: SocketAddr,
    connection: Option<BufReader<TcpStream>>,
}

impl Client {
    /// A client that has not connected yet.
    #[must_use]
    pub const fn new(gateway: SocketAddr) -> Self {
        Self { gateway, connection: None }
    }

    /// Asks for `/` with these headers.
    ///
    /// # Errors
    /// There was no whole answer. It is not asked again.
    pub fn ask(&mut self, headers: &[(&str, &str)]) -> std::io::Result<Answer> {
        self.send("GET / HTTP/1.1", headers, "")
    }

    fn send(&mut self, line: &str, headers: &[(&str, &str)], body: &str) -> std::io::Result<Answer> {
        let mut reader = match self.connection.take() {
            Some(open) => open,
            None => {
                let stream = TcpStream::connect_timeout(&self.gateway, ANSWER_WITHIN)?;
                stream.set_nodelay(true)?;
                stream.set_read_timeout(Some(ANSWER_WITHIN))?;
                BufReader::new(stream)
            }
        };
        let mut text = format!("{line}\r\n");
        if headers.iter().all(|(name, _)| *name != "host") {
            text.push_str("host: test\r\n");
        }
        headers.iter().for_each(|(name, value)| text.push_str(&format!("{name}: {value}\r\n")));
        text.push_str("\r\n");
        text.push_str(body);
        reader.get_mut().write_all(text.as_bytes())?;
        let answer = answer::read(&mut reader)?;
        if !answer.close {
            self.connection = Some(reader);
        }
        Ok(answer)
    }
}

/// The version that answers these headers at a gateway.
///
/// # Panics
/// When there is no good answer.
#[must_use]
#[track_caller]
pub fn version(gateway: SocketAddr, headers: &[(&str, &str)]) -> String {
    let answer = Client::new(gateway).ask(headers).expect("an answer");
    assert_eq!(answer.status, 200, "{headers:?}");
    answer.version
}

/// A request of one user, on a connection of its own. Without a name it is nobody's.
///
/// # Panics
/// When there is no whole answer: nothing that a user asks may fail.
#[must_use]
#[track_caller]
pub fn get(gateway: SocketAddr, user: Option<&str>, path: &str) -> Answer {
    let headers: Vec<_> = user.map(|name| ("x-user", name)).into_iter().collect();
    let answer = Client::new(gateway).send(&format!("GET {path} HTTP/1.1"), &headers, "");
    answer.unwrap_or_else(|error| panic!("{path} of {user:?} at {gateway}: {error}"))
}

/// A request with a body of this many bytes.
///
/// # Panics
/// As [`get`].
#[must_use]
#[track_caller]
pub fn post(gateway: SocketAddr, path: &str, bytes: usize) -> Answer {
    let length = bytes.to_string();
    let headers = [("content-length", length.as_str())];
    let answer = Client::new(gateway).send(&format!("POST {path} HTTP/1.1"), &headers, &"x".repeat(bytes));
    answer.unwrap_or_else(|error| panic!("{bytes} bytes to {path} at {gateway}: {error}"))
}

/// The name of a user, as its `x-user` header says it.
fn name(user: usize) -> String {
    format!("user-{user}")
}

/// The version that each of so many users gets now.
///
/// # Panics
/// When one has no good answer.
#[must_use]
#[track_caller]
pub fn everyone(gateways: &[SocketAddr], users: usize) -> Vec<String> {
    let mut clients: Vec<Client> = gateways.iter().copied().map(Client::new).collect();
    let mut versions = Vec::with_capacity(users);
    for user in 0..users {
        let client = user % clients.len();
        let answer = clients[client].ask(&[("x-user", &name(user))]).expect("an answer");
        assert_eq!(answer.status, 200, "{}", name(user));
        versions.push(answer.version);
    }
    versions
}

/// What a crowd was answered.
#[derive(Clone, Debug, Default)]
pub struct Answered {
    /// Requests without a whole answer, and the first of them in words.
    pub cut: u64,
    /// What they were, in words; the first ones.
    pub failures: Vec<String>,
    /// Answers of 200 by version.
    pub good: BTreeMap<String, u64>,
    /// Other answers by version; an empty one is a gateway's own.
    pub bad: BTreeMap<String, u64>,
    /// How often a user who had a good answer of one version had the next one of another: `(from, to)`.
    pub moves: BTreeMap<(String, String), u64>,
}

impl Answered {
    fn add(&mut self, other: Self) {
        self.cut += other.cut;
        let room = FAILURES_KEPT.saturating_sub(self.failures.len());
        self.failures.extend(other.failures.into_iter().take(room));
        for (all, part) in [(&mut self.good, other.good), (&mut self.bad, other.bad)] {
            part.into_iter().for_each(|(version, count)| *all.entry(version).or_default() += count);
        }
        for (passage, count) in other.moves {
            *self.moves.entry(passage).or_default() += count;
        }
    }

    /// Between which versions users were moved.
    #[must_use]
    pub fn passages(&self) -> Vec<(&str, &str)> {
        self.moves.keys().map(|(from, to)| (from.as_str(), to.as_str())).collect()
    }

    fn fail(&mut self, what: String) {
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(what);
        }
    }
}

/// Users who ask until they are stopped.
#[derive(Debug)]
pub struct Crowd {
    stop: Arc<AtomicBool>,
    clients: Vec<Asking>,
}

/// One connection's users, in turn.
#[derive(Debug)]
struct Asking {
    users: u64,
    asked: Arc<AtomicU64>,
    ended: JoinHandle<Answered>,
}

impl Crowd {
    /// So many users over all gateways, who make `rate` requests a second together.
    #[must_use]
    pub fn start(gateways: &[SocketAddr], users: usize, rate: f64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let all = CLIENTS * gateways.len();
        let pause = Duration::from_secs_f64(all as f64 / rate);
        let clients = (0..all).map(|index| {
            let gateway = gateways[index % gateways.len()];
            let own: Vec<usize> = (0..users).filter(|user| user % all == index).collect();
            let (users, asked) = (own.len() as u64, Arc::new(AtomicU64::new(0)));
            let (stop, counted) = (Arc::clone(&stop), Arc::clone(&asked));
            let ended = std::thread::spawn(move || client(gateway, &own, pause, &stop, &counted));
            Asking { users, asked, ended }
        });
        let clients = clients.collect();
        Self { stop, clients }
    }

    /// Waits until every user has asked from now on, and been answered.
    pub fn go_round(&self) {
        // One more than there are users: the first may have been asked before.
        let enough = |client: &Asking| client.asked.load(Ordering::Relaxed) + client.users + 1;
        let goals: Vec<u64> = self.clients.iter().map(enough).collect();
        wait::until("the users to have asked again", GO_ROUND_WITHIN, || {
            let late =
                self.clients.iter().zip(&goals).filter(|(client, goal)| {
                    client.users > 0 && client.asked.load(Ordering::Relaxed) < **goal
                });
            match late.count() {
                0 => Ok(()),
                late => Err(format!("{late} of {} clients are not round", goals.len())),
            }
        });
    }

    /// Stops and returns what was answered.
    ///
    /// # Panics
    /// If a client did.
    #[must_use]
    pub fn stop(self) -> Answered {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Answered::default();
        self.clients.into_iter().for_each(|client| all.add(client.ended.join().expect("no client panics")));
        all
    }
}

/// Lets its users ask in turn.
fn client(
    gateway: SocketAddr,
    users: &[usize],
    pause: Duration,
    stop: &AtomicBool,
    asked: &AtomicU64,
) -> Answered {
    let mut client = Client::new(gateway);
    let mut answered = Answered::default();
    let mut had: BTreeMap<usize, String> = BTreeMap::new();
    let mut due = Instant::now();
    for user in users.iter().cycle().copied() {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        match client.ask(&[("x-user", &name(user))]) {
            Ok(Answer { status: 200, version, .. }) => {
                *answered.good.entry(version.clone()).or_default() += 1;
                let before = had.insert(user, version.clone()).filter(|before| *before != version);
                if let Some(before) = before {
                    *answered.moves.entry((before, version)).or_default() += 1;
                }
            }
            Ok(Answer { status, version, .. }) => {
                answered.fail(format!("{} was answered {status} by {version:?}", name(user)));
                *answered.bad.entry(version).or_default() += 1;
            }
            Err(error) => {
                answered.cut += 1;
                answered.fail(format!("{} at {gateway}: {error}", name(user)));
            }
        }
        asked.fetch_add(1, Ordering::Relaxed);
        // What the machine did not give is not made up for.
        due = (due + pause).max(Instant::now());
        std::thread::sleep(due.saturating_duration_since(Instant::now()).min(pause));
    }
    answered
}
