//! What the load generator must not miss: each way to lose a request, against servers that lose them.

use super::*;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

/// Long enough for a loaded machine; nothing here waits this long when it works.
const ROOM: Duration = Duration::from_secs(60);

const WEB: Asked = Asked { service: "web", host: "web.demo" };

/// How a server treats a request.
#[derive(Clone, Copy, Debug)]
enum Treat {
    Right,
    /// An error of the instance's own.
    Error,
    /// The right answer to another question.
    Other,
    /// The answer of an instance of another service.
    Stray,
    /// An error as a gateway answers it.
    Gateway,
    /// Closed without an answer.
    Close,
    /// A body that never comes to its end.
    Short,
}

impl Treat {
    fn answer(self, request: &str) -> String {
        let number: u64 = request
            .split_once("/quote/")
            .and_then(|(_, rest)| rest.split(' ').next()?.parse().ok())
            .expect("a question");
        let whole = |status: &str, instance: &str, body: String| {
            let length = body.len();
            format!(
                "HTTP/1.1 {status}\r\nsample-release: 1.0\r\nsample-instance: {instance}\r\nsample-pid: 7\r\n\
                 content-length: {length}\r\n\r\n{body}"
            )
        };
        match self {
            Self::Right => whole("200 OK", "web.1", quote(number)),
            Self::Error => whole("500 Oh", "web.1", "oh\n".to_owned()),
            Self::Other => whole("200 OK", "web.1", quote(number + 1)),
            Self::Stray => whole("200 OK", "shop.1", quote(number)),
            Self::Gateway => "HTTP/1.1 502 Bad Gateway\r\ncontent-length: 0\r\n\r\n".to_owned(),
            Self::Close => String::new(),
            Self::Short => {
                whole("200 OK", "web.1", quote(number)).replace("content-length: ", "content-length: 9")
            }
        }
    }
}

/// A server that treats each request, in order, as `script` says, and keeps connections open.
async fn serve(script: fn(u64) -> Treat) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = Arc::new(AtomicU64::new(0));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let served = served.clone();
            tokio::spawn(async move {
                let mut bytes = [0; 1024];
                while let Ok(read @ 1..) = stream.read(&mut bytes).await {
                    let number = served.fetch_add(1, Ordering::SeqCst);
                    let answer = script(number).answer(&String::from_utf8_lossy(&bytes[..read]));
                    if answer.is_empty() || stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    address
}

async fn run(target: SocketAddr, until: impl Fn(&Counts) -> bool) -> PhaseTally {
    let load = Load::start(LoadOptions { gateways: vec![target], services: vec![WEB], rate: 500 });
    let deadline = Instant::now() + ROOM;
    while !until(&load.meter().totals()) {
        assert!(Instant::now() < deadline, "the load did not come so far: {:?}", load.meter().totals());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    load.finish().await.phases.remove(0)
}

#[tokio::test]
async fn good_answers_are_counted_by_release() {
    let target = serve(|_| Treat::Right).await;
    let tally = run(target, |totals| totals.sent >= 50).await;
    assert_eq!((tally.answered(), tally.errors(), tally.failed), (tally.sent, 0, 0));
    assert_eq!(tally.sides[&Side::new("web", "1.0")].right, tally.sent);
    assert!(tally.latency.latency().max > 0.0);
}

#[tokio::test]
async fn each_kind_of_failure_is_counted_once_and_nothing_is_retried() {
    let target = serve(|number| match number {
        3 => Treat::Gateway,
        5 => Treat::Other,
        6 => Treat::Stray,
        7 => Treat::Close,
        9 => Treat::Short,
        11 | 12 => Treat::Error,
        _ => Treat::Right,
    })
    .await;
    // The request whose answer stays short times out by itself: its connection stays open.
    let tally = run(target, |totals| totals.failed >= 5).await;
    let kinds: Vec<_> = tally.kinds.iter().map(|(kind, count)| (*kind, *count)).collect();
    let expected = [(Failure::Cut, 1), (Failure::TimedOut, 1), (Failure::Status, 1), (Failure::Body, 2)];
    assert_eq!(kinds, expected);
    assert_eq!(tally.errors(), 2, "what an instance says itself is told apart");
    assert_eq!(tally.answered() + tally.failed, tally.sent);
}

#[tokio::test]
async fn nobody_listening_is_refused() {
    let tally = run("127.0.0.1:1".parse().unwrap(), |totals| totals.failed >= 5).await;
    assert_eq!(tally.kinds.get(&Failure::Refused), Some(&tally.sent));
}

#[test]
fn every_gateway_is_asked_everything_for_every_service_over_fresh_connections_too() {
    for gateways in [1, 2, 5] {
        let pairs = (gateways * 2) as u64;
        let turns: Vec<Turn> = (0..QUESTIONS * pairs).map(|number| Turn::of(number, gateways, 2)).collect();
        for pair in (0..gateways).flat_map(|gateway| [(gateway, 0), (gateway, 1)]) {
            let of: Vec<&Turn> = turns.iter().filter(|turn| (turn.gateway, turn.service) == pair).collect();
            let asked: std::collections::BTreeSet<u64> = of.iter().map(|turn| turn.number).collect();
            assert_eq!((of.len() as u64, asked.len() as u64), (QUESTIONS, QUESTIONS), "{gateways}: {pair:?}");
            let fresh = of.iter().filter(|turn| turn.fresh).count() as u64;
            assert_eq!(fresh, QUESTIONS / FRESH_EVERY, "{gateways}: {pair:?}");
        }
    }
}
