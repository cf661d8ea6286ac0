//! Loads on what is not TCP: HTTP requests over a Unix socket, and datagrams that must come back. Every failure is
//! counted, and none is tried again.

use super::seen::Seen;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, UdpSocket};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// What takes longer has failed.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// Failures whose text is kept.
const FAILURES_KEPT: usize = 20;
/// Datagrams sent beyond the newest that came back: a socket holds some 270 small ones before it drops.
const AHEAD_MAX: u64 = 100;

/// What such a load counted.
#[derive(Clone, Debug, Default)]
pub struct Answers {
    /// Requests or datagrams sent.
    pub sent: u64,
    /// Those that were refused, cut or not answered.
    pub failed: u64,
    /// The first failures, in words.
    pub failures: Vec<String>,
    /// Answers by version.
    pub versions: BTreeMap<String, u64>,
}

impl Answers {
    fn fail(&mut self, what: String) {
        self.failed += 1;
        if self.failures.len() < FAILURES_KEPT {
            self.failures.push(what);
        }
    }
}

/// A load that runs until it is stopped.
#[derive(Debug)]
pub struct Running {
    stop: Arc<AtomicBool>,
    seen: Seen,
    threads: Vec<JoinHandle<()>>,
    answers: Arc<Mutex<Answers>>,
}

impl Running {
    /// Waits until `version` has answered this load.
    ///
    /// # Panics
    /// When it did not within half a minute.
    pub fn await_version(&self, version: &str) {
        self.seen.await_version(version);
    }

    /// Stops and returns what was counted.
    ///
    /// # Panics
    /// If a client did.
    #[must_use]
    pub fn stop(self) -> Answers {
        self.stop.store(true, Ordering::Relaxed);
        self.threads.into_iter().for_each(|thread| thread.join().expect("no client panics"));
        self.answers.lock().expect("no client panics").clone()
    }
}

/// Asks over the Unix socket at `path`, each request on a connection of its own, from `clients` threads.
#[must_use]
pub fn ask(path: &Path, clients: usize) -> Running {
    run(clients, |stop, seen, answers| {
        let path: PathBuf = path.to_owned();
        move || {
            while !stop.load(Ordering::Relaxed) {
                let asked = request(&path);
                let mut answers = answers.lock().expect("no client panics");
                answers.sent += 1;
                match asked {
                    Ok(body) => seen.count(&mut answers.versions, version(&body)),
                    Err(error) => answers.fail(error.to_string()),
                }
                drop(answers);
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    })
}

/// One request over a Unix socket; the answer's body.
///
/// # Errors
/// It was refused, cut, or answered with another status than 200.
pub fn request(path: &Path) -> std::io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(ANSWER_WITHIN))?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: test\r\n\r\n")?;
    let mut answer = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        answer.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&answer);
        if let Some((head, body)) = text.split_once("\r\n\r\n")
            && body.ends_with('\n')
        {
            return match head.starts_with("HTTP/1.1 200") {
                true => Ok(body.to_owned()),
                false => Err(std::io::Error::other(format!("answered {head}"))),
            };
        }
        if read == 0 {
            return Err(std::io::Error::other("the connection ended before the answer"));
        }
    }
}

fn version(body: &str) -> String {
    body.split_whitespace().find_map(|word| word.strip_prefix("version=")).unwrap_or_default().to_owned()
}

/// Sends `per_second` numbered datagrams to `target`, which must echo each after its version and a space.
///
/// # Panics
/// If no socket can be made.
#[must_use]
pub fn echo(target: SocketAddr, per_second: u32) -> Running {
    run(1, |stop, seen, answers| {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
        socket.connect(target).expect("a UDP target");
        move || send_and_count(&socket, &stop, &seen, &answers, Duration::from_secs(1) / per_second)
    })
}

fn send_and_count(
    socket: &UdpSocket,
    stop: &AtomicBool,
    seen: &Seen,
    answers: &Mutex<Answers>,
    pause: Duration,
) {
    let listener = socket.try_clone().expect("a UDP socket");
    let (newest, all) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(u64::MAX)));
    let (heard, expected, met) = (Arc::clone(&newest), Arc::clone(&all), seen.clone());
    let back = std::thread::spawn(move || receive(&listener, &heard, &expected, &met));
    let begun = Instant::now();
    let mut sent: u64 = 0;
    while !stop.load(Ordering::Relaxed) {
        let due = begun + pause.mul_f64(sent as f64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        // More than fit into a receiver's buffer would be lost by whoever is slow, and by no swap.
        let until = Instant::now() + ANSWER_WITHIN;
        while sent >= newest.load(Ordering::Relaxed) + AHEAD_MAX && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        // An error of an earlier datagram, such as a port unreachable: that one is missing in the end.
        let _ = socket.send(sent.to_string().as_bytes());
        sent += 1;
    }
    all.store(sent, Ordering::Relaxed);
    // Its answer only wakes the listener: answers of an old process may come after that of a new one.
    let _ = socket.send(b"last");
    let came = back.join().expect("no client panics");
    let mut answers = answers.lock().expect("no client panics");
    answers.sent = sent;
    for number in 0..sent {
        match came.get(&number) {
            Some(version) => *answers.versions.entry(version.clone()).or_default() += 1,
            None => answers.fail(format!("datagram {number} of {sent} did not come back")),
        }
    }
}

/// Until as many have come back as are expected, or nothing comes any more.
fn receive(
    socket: &UdpSocket,
    newest: &AtomicU64,
    expected: &AtomicU64,
    seen: &Seen,
) -> BTreeMap<u64, String> {
    socket.set_read_timeout(Some(Duration::from_millis(100))).expect("a read timeout");
    let mut came = BTreeMap::new();
    let mut heard = Instant::now();
    let mut buffer = [0; 2048];
    while (came.len() as u64) < expected.load(Ordering::Relaxed) && heard.elapsed() < ANSWER_WITHIN {
        let Ok(read) = socket.recv(&mut buffer) else { continue };
        heard = Instant::now();
        let text = String::from_utf8_lossy(&buffer[..read]).into_owned();
        let Some((version, number)) = text.split_once(' ') else { continue };
        if let Ok(number) = number.parse() {
            newest.fetch_max(number, Ordering::Relaxed);
            seen.met(version);
            came.insert(number, version.to_owned());
        }
    }
    came
}

fn run<F: FnOnce() + Send + 'static>(
    clients: usize,
    client: impl Fn(Arc<AtomicBool>, Seen, Arc<Mutex<Answers>>) -> F,
) -> Running {
    let stop = Arc::new(AtomicBool::new(false));
    let answers = Arc::new(Mutex::new(Answers::default()));
    let seen = Seen::default();
    let threads = (0..clients)
        .map(|_| std::thread::spawn(client(Arc::clone(&stop), seen.clone(), Arc::clone(&answers))))
        .collect();
    Running { stop, seen, threads, answers }
}
