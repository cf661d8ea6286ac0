//! Damaged requests at a real listener: the corpus of what nobody should send, cut, doubled, flipped and mixed, byte by byte. The
//! instance behind reads by the letter and tells of anything that it would have to guess at.
//!
//! Each case follows from its number. `BATON_FUZZ_FROM` begins at another one, `BATON_FUZZ_CASES` runs more of them.

use crate::fleet::{Fleet, Instance, get, ok, rest, route};
use crate::hostile::{CORPUS, status};
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex, Once};
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;

/// Cases of a run in CI, and how long it may take on a slow machine: what is not done by then is left out.
const CASES: u64 = 1200;
const TIME_MAX: Duration = Duration::from_secs(20);
/// The gateway is asked something good so often.
const ASKED_EVERY: u64 = 100;
/// What this process may grow by. It holds other tests too; a gateway that kept what it was sent would need far more.
const GROWTH_MAX: u64 = 512 << 20;

/// What is right, as ground for damage.
const GOOD: [&str; 5] = [
    "GET /a?b=c HTTP/1.1\r\nHost: a\r\nCookie: x=1\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nhi",
    "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\r\n",
];

/// What changes how a request is read.
const WORDS: [&str; 20] = [
    "\r\n",
    "\n",
    "\r",
    "\0",
    " ",
    "\t",
    ":",
    ",",
    "\r\n\r\n",
    "Content-Length: 5\r\n",
    "Content-Length: 0\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Transfer-Encoding: identity\r\n",
    "0\r\n\r\n",
    "5\r\n",
    "5;x=\"\r\n",
    "Host: b\r\n",
    "Connection: close, content-length\r\n",
    "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n",
    "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
];

/// HTTP/2: the preface, empty settings, and a request for `/` of host `a`.
const HTTP2: &[u8] =
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x06\x01\x05\0\0\0\x01\x82\x84\x86\x41\x01a";
const HTTP2_PREFACE: usize = 24;

static PANICS: AtomicUsize = AtomicUsize::new(0);
static COUNT_PANICS: Once = Once::new();

/// The bytes of a case.
fn case(number: u64) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number);
    if random.u8(..8) == 0 {
        return damaged(HTTP2.to_vec(), HTTP2_PREFACE, &mut random);
    }
    let mut ground = || {
        let at = random.usize(..GOOD.len() + CORPUS.len());
        GOOD.get(at).copied().unwrap_or_else(|| CORPUS[at - GOOD.len()].1)
    };
    let mut bytes = ground().as_bytes().to_vec();
    bytes.extend(ground().as_bytes());
    damaged(bytes, 0, &mut random)
}

/// One to six changes after the first `kept` bytes.
fn damaged(mut bytes: Vec<u8>, kept: usize, random: &mut fastrand::Rng) -> Vec<u8> {
    for _ in 0..random.usize(1..=6) {
        let at = random.usize(kept..=bytes.len());
        let end = (at + random.usize(1..=12)).min(bytes.len());
        match random.u8(..6) {
            0 if at < bytes.len() => bytes[at] = random.u8(..),
            1 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
            2 => drop(bytes.drain(at..end)),
            3 => {
                let twice = bytes[at..end].to_vec();
                bytes.splice(at..at, twice);
            }
            4 if random.u8(..4) == 0 => bytes.truncate(at),
            _ => {
                let word = WORDS[random.usize(..WORDS.len())];
                bytes.splice(at..at, word.bytes());
            }
        }
    }
    bytes
}

/// What an instance was sent: the heads of requests, and what it could not read by the letter.
#[derive(Clone, Debug, Default)]
struct Seen {
    heads: Vec<String>,
    unclear: Vec<String>,
}

/// An instance that reads by the letter and answers 200.
async fn strict() -> (Instance, Arc<Mutex<Seen>>) {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let into = Arc::clone(&seen);
    let instance = Instance::new(move |_, stream| {
        let into = Arc::clone(&into);
        async move {
            let mut stream = BufReader::new(stream);
            loop {
                match read(&mut stream).await {
                    Ok(Some(head)) => into.lock().expect("whole").heads.push(head),
                    Ok(None) => return,
                    Err(unclear) => return into.lock().expect("whole").unclear.push(unclear),
                }
                if stream.get_mut().write_all(ok("ok").as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (instance, seen)
}

/// A line with its end; `None` where the connection ends or breaks before it.
async fn line(stream: &mut BufReader<TcpStream>) -> Result<Option<String>, String> {
    let mut line = Vec::new();
    match stream.read_until(b'\n', &mut line).await {
        Ok(_) if line.is_empty() => return Ok(None),
        // A request that its client broke off is broken off here too.
        Ok(_) if !line.ends_with(b"\n") => return Ok(None),
        Ok(_) => {}
        Err(_) => return Ok(None),
    }
    let text = String::from_utf8_lossy(&line).into_owned();
    let bare = text.strip_suffix("\r\n").ok_or_else(|| format!("a line without its end: {text:?}"))?;
    if bare.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') {
        return Err(format!("a control character: {bare:?}"));
    }
    Ok(Some(bare.to_owned()))
}

/// The next request, whole; gives its head. `None` where the connection ends.
async fn read(stream: &mut BufReader<TcpStream>) -> Result<Option<String>, String> {
    let mut head = Vec::new();
    loop {
        match line(stream).await? {
            None => return Ok(None),
            Some(line) if line.is_empty() => break,
            Some(line) => head.push(line),
        }
    }
    let text = head.join("\n");
    let words: Vec<&str> = head.first().map(|first| first.split(' ').collect()).unwrap_or_default();
    if words.len() != 3 || words[2] != "HTTP/1.1" {
        return Err(format!("no request: {text}"));
    }
    let fields = |name: &str| -> Vec<String> {
        let named = head.iter().skip(1).filter_map(|field| field.split_once(": "));
        named.filter(|(it, _)| it.eq_ignore_ascii_case(name)).map(|(_, value)| value.to_owned()).collect()
    };
    if fields("via").is_empty() || fields("x-request-id").len() != 1 || fields("host").len() != 1 {
        return Err(format!("not a request that the gateway made: {text}"));
    }
    let broken_off = |_| ();
    match (fields("content-length").as_slice(), fields("transfer-encoding").as_slice()) {
        ([], []) => {}
        ([length], []) => {
            let length: usize = length.parse().map_err(|_| format!("no length: {text}"))?;
            if stream.read_exact(&mut vec![0; length]).await.map_err(broken_off).is_err() {
                return Ok(None);
            }
        }
        ([], [coding]) if coding == "chunked" => {
            if chunks(stream).await?.is_none() {
                return Ok(None);
            }
        }
        _ => return Err(format!("two ways to read it: {text}")),
    }
    Ok(Some(text))
}

async fn chunks(stream: &mut BufReader<TcpStream>) -> Result<Option<()>, String> {
    loop {
        let Some(size) = line(stream).await? else { return Ok(None) };
        let length = usize::from_str_radix(&size, 16).map_err(|_| format!("no chunk: {size:?}"))?;
        let mut chunk = vec![0; length];
        if length > 0 && stream.read_exact(&mut chunk).await.is_err() {
            return Ok(None);
        }
        match line(stream).await? {
            None => return Ok(None),
            Some(end) if !end.is_empty() => return Err(format!("what follows a chunk: {end:?}")),
            Some(_) if length == 0 => return Ok(Some(())),
            Some(_) => {}
        }
    }
}

/// Sends a case on a connection of its own, in two pieces, and reads until its end.
async fn send(fleet: &Fleet, bytes: &[u8], number: u64) -> String {
    let mut stream = TcpStream::connect(fleet.http()).await.expect("the gateway takes connections");
    let cut = fastrand::Rng::with_seed(number).usize(..=bytes.len());
    for piece in [&bytes[..cut], &bytes[cut..]] {
        // It may have been refused in the middle.
        if stream.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let _ = stream.shutdown().await;
    rest(&mut stream).await
}

/// The statuses of the answers in a text.
fn statuses(answers: &str) -> Vec<u16> {
    let begins = answers.match_indices("HTTP/1.1 ").map(|(at, _)| status(&answers[at..]));
    begins.filter(|status| *status > 0).collect()
}

fn number_of(variable: &str, otherwise: u64) -> u64 {
    std::env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(otherwise)
}

/// Memory that this process holds, in bytes.
fn resident() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a figure");
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().expect("a number") * 1024
}

#[tokio::test]
async fn whatever_comes_is_refused_or_read_in_one_way_and_the_gateway_goes_on() {
    COUNT_PANICS.call_once(|| {
        let before = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            // Not those of other tests.
            let within = |part| panic.location().is_some_and(|at| at.file().contains(part));
            if ["gateway/src", "hyper", "h2-", "http-"].into_iter().any(within) {
                PANICS.fetch_add(1, SeqCst);
            }
            before(panic);
        }));
    });
    let (instance, seen) = strict().await;
    let fleet = Fleet::start(route(&[&instance])).await;
    let (from, cases) = (number_of("BATON_FUZZ_FROM", 0), number_of("BATON_FUZZ_CASES", CASES));
    let (begun, held) = (Instant::now(), resident());
    for number in from..from + cases {
        if cases == CASES && begun.elapsed() > TIME_MAX {
            break;
        }
        let bytes = case(number);
        let answers = send(&fleet, &bytes, number).await;
        let told = || {
            format!("BATON_FUZZ_FROM={number}: {:?}\nwas answered {answers}", String::from_utf8_lossy(&bytes))
        };
        let bad: Vec<u16> = statuses(&answers).into_iter().filter(|it| *it >= 500 && *it != 501).collect();
        assert!(bad.is_empty(), "{bad:?}: {}", told());
        let unclear = seen.lock().expect("whole").unclear.clone();
        assert!(unclear.is_empty(), "{unclear:?}: {}", told());
        assert_eq!(PANICS.load(SeqCst), 0, "{}", told());
        if number % ASKED_EVERY == 0 {
            let answer = fleet.ask(&get("/well")).await;
            assert_eq!(status(&answer), 200, "{}", told());
        }
    }
    let heads = seen.lock().expect("whole").heads.clone();
    assert!(heads.iter().any(|head| !head.starts_with("GET /well")), "some of it is still a request");
    let growth = resident().saturating_sub(held);
    assert!(growth < GROWTH_MAX, "it holds {} MiB more", growth >> 20);
}
