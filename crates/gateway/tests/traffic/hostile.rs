//! What nobody should send, as bytes: the gateway answers as the RFC says, lets nothing through that two servers would
//! read in two ways, and goes on.

use crate::fleet::{Fleet, Instance, eventually, request, route};
use std::sync::{Arc, Mutex};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

/// What is sent, and the status of the first answer; 0 where the connection is closed without one.
pub(crate) const CORPUS: [(&str, &str, &[u16]); 33] = [
    ("no request", "hello\r\n\r\n", &[400]),
    ("bytes", "\u{1}\u{2}\u{3}\r\n\r\n", &[400]),
    ("no host", "GET / HTTP/1.1\r\n\r\n", &[400]),
    ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", &[400]),
    ("the same host twice", "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", &[400]),
    ("a host that is none", "GET / HTTP/1.1\r\nHost: a b/c\r\n\r\n", &[400]),
    ("a user before the host", "GET / HTTP/1.1\r\nHost: a:x@b.test\r\n\r\n", &[400]),
    ("a user in the target", "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("a port that there is not", "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n", &[400]),
    ("the whole server, not by OPTIONS", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("a version that is not", "GET / HTTP/3.7\r\nHost: a\r\n\r\n", &[400]),
    ("no version", "GET /\r\n\r\n", &[400]),
    ("a folded field", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", &[400]),
    ("a space before the colon", "GET / HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\nhello", &[400]),
    ("a field without a colon", "GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", &[400]),
    ("a null in a field", "GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n", &[400]),
    ("a lone return in a field", "GET / HTTP/1.1\r\nHost: a\r\nX: a\rb: c\r\n\r\n", &[400]),
    (
        "lengths that differ",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        &[400],
    ),
    ("a list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 6\r\n\r\nhello", &[400]),
    ("a length with a sign", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", &[400]),
    ("a length below zero", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\nhello", &[400]),
    ("a length in hex", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\nhello", &[400]),
    (
        "an endless length",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
        &[400, 413],
    ),
    (
        "a coding that is not the last",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n",
        &[400],
    ),
    (
        "a coding that nobody knows",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        &[400],
    ),
    (
        "a coding before chunked",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        &[501],
    ),
    (
        "chunks in HTTP/1.0",
        "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        &[400],
    ),
    (
        "a chunk size that is none",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        &[400],
    ),
    (
        "an endless chunk size",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        &[400],
    ),
    ("a tunnel", "CONNECT other.test:443 HTTP/1.1\r\nHost: other.test:443\r\n\r\n", &[501]),
    ("a trace", "TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", &[501]),
    ("a path that begins with nothing", "GET a HTTP/1.1\r\nHost: a\r\n\r\n", &[400]),
    ("a preface cut short", "PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", &[400]),
];

/// An instance that remembers what it was sent.
async fn recorder() -> (Instance, Arc<Mutex<Vec<String>>>) {
    let seen = Arc::new(Mutex::new(Vec::new()));
    let into = Arc::clone(&seen);
    let instance = Instance::new(move |_, mut stream| {
        let into = Arc::clone(&into);
        async move {
            while let Some(request) = request(&mut stream).await {
                into.lock().expect("whole").push(request);
                if stream.write_all(crate::fleet::ok("ok").as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    (instance, seen)
}

pub(crate) fn status(answer: &str) -> u16 {
    answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)).map_or(0, |it| it.parse().unwrap_or(0))
}

#[tokio::test]
async fn what_is_malformed_is_refused_and_reaches_no_instance() {
    let (instance, seen) = recorder().await;
    let fleet = Fleet::start(route(&[&instance])).await;
    for (what, bytes, expect) in CORPUS {
        // A smuggler's second request: if the first were read as ending earlier, this would be one.
        let sent = format!("{bytes}GET /smuggled HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n");
        let answer = fleet.ask(&sent).await;
        assert!(expect.contains(&status(&answer)), "{what}: {answer}");
        // `CONNECT` and `TRACE` are refused whole, and the next request is an honest one.
        let answers = if what.starts_with("a t") { 2 } else { 1 };
        assert_eq!(answer.matches("HTTP/1.1 ").count(), answers, "{what}: {answer}");
    }
    let seen = seen.lock().expect("whole").clone();
    let legal = |it: &String| it.starts_with("GET /smuggled");
    assert!(seen.len() == 2 && seen.iter().all(legal), "{seen:?}");
    assert_eq!(status(&fleet.get("/").await), 200);
}

#[tokio::test]
async fn a_length_and_chunks_are_read_as_chunks_and_nothing_follows() {
    let (instance, seen) = recorder().await;
    let fleet = Fleet::start(route(&[&instance])).await;
    for fields in
        ["Content-Length: 6\r\nTransfer-Encoding: chunked", "Transfer-Encoding: chunked\r\nContent-Length: 6"]
    {
        let sent = format!(
            "POST /first HTTP/1.1\r\nHost: a\r\n{fields}\r\n\r\n0\r\n\r\nGET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"
        );
        let answer = fleet.ask(&sent).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{answer}");
    }
    for request in seen.lock().expect("whole").iter() {
        assert!(request.starts_with("POST /first"), "{request}");
        let lower = request.to_lowercase();
        assert!(
            lower.contains("transfer-encoding") != lower.contains("content-length"),
            "one way to read it: {request}"
        );
    }
}

#[tokio::test]
async fn heads_that_are_too_large_are_answered_431() {
    let (instance, _) = recorder().await;
    let fleet = Fleet::start(route(&[&instance])).await;
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(40_000));
    assert_eq!(status(&fleet.ask(&long).await), 431);
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: 1\r\n".repeat(150));
    assert_eq!(status(&fleet.ask(&many).await), 431);
    let path = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(70_000));
    assert!([414, 431].contains(&status(&fleet.ask(&path).await)));
}

#[tokio::test]
async fn answers_that_are_none_are_answered_502_and_none_reaches_the_client() {
    for garbage in [
        "",
        "hello\r\n\r\n",
        "HTTP/1.1 abc\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX: 1\r\n 2\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: other\r\nConnection: upgrade\r\n\r\n",
    ] {
        let instance = Instance::new(move |_, mut stream| async move {
            request(&mut stream).await;
            let _ = stream.write_all(garbage.as_bytes()).await;
        })
        .await;
        let fleet = Fleet::start(route(&[&instance])).await;
        let answer = fleet.get("/").await;
        assert_eq!(status(&answer), 502, "{garbage:?}: {answer}");
    }
}

#[tokio::test]
async fn an_answer_longer_than_it_said_is_cut_there_and_its_connection_not_used_again() {
    let instance = Instance::new(|_, mut stream| async move {
        while request(&mut stream).await.is_some() {
            let two = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
            if stream.write_all(two.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await;
    let fleet = Fleet::start(route(&[&instance])).await;
    for _ in 0..5 {
        let answer = fleet.get("/").await;
        assert!(answer.ends_with("\r\n\r\nok"), "{answer}");
    }
}

#[tokio::test]
async fn a_client_that_goes_early_leaves_nothing_behind() {
    let instance = Instance::mute().await;
    let fleet = Fleet::start(route(&[&instance])).await;
    for _ in 0..10 {
        let mut stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("room");
        drop(stream);
    }
    let in_flight = || {
        let table = fleet.served.load();
        table.upstreams().map(|it| it.in_flight()).sum::<u64>()
    };
    eventually("end of all requests", async || {
        (instance.connections() > 0 && in_flight() == 0).then_some(())
    })
    .await;
}
