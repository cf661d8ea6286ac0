//! Clients that take nothing of their answers: they are cut off, and so their instances are free again; nobody else is blamed.

use crate::fleet::{Fleet, Instance, ROOM, eventually, get, request, route, until};
use baton_model::time::Millis;
use http::{Request, Version};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// More than what fits into all buffers on the way.
const LARGE: usize = 24 << 20;
const SWITCHED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Has a large answer for `/large`, a large message for a WebSocket, and else little to say.
async fn instance() -> Instance {
    Instance::new(|_, mut stream| async move {
        while let Some(request) = request(&mut stream).await {
            let switches = request.contains("websocket");
            let length = if switches || request.contains("/large") { LARGE } else { 4 };
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
            let head = if switches { SWITCHED } else { &head };
            let body = vec![b'x'; length];
            if stream.write_all(head.as_bytes()).await.is_err() || stream.write_all(&body).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn gateway(instance: &Instance, log: &Path) -> Fleet {
    let mut route = route(&[instance]);
    route.spec.ejection.failures = 1;
    Fleet::with(route, |config| {
        config.limits.send_timeout = Millis(1_000);
        config.access_log = Some(log.to_owned());
    })
    .await
}

/// The client was cut off, the log says why, and nothing is counted against the instance.
async fn cut(fleet: &Fleet, log: &Path) {
    eventually("end of what nobody takes", async || (fleet.in_flight() == 0).then_some(())).await;
    let line = eventually("its line", async || {
        let text = std::fs::read_to_string(log).expect("text");
        text.lines().find(|line| line.contains("/large")).map(str::to_owned)
    })
    .await;
    assert!(line.contains("the client took nothing of its answer for too long"), "{line}");
    let total = fleet.served.load().upstreams().next().expect("one").counters().total();
    assert_eq!((total.failures, total.broken), (0, 0), "{total:?}");
}

#[tokio::test]
async fn one_of_http1_is_cut_off() {
    let (instance, folder) = (instance().await, tempfile::tempdir().expect("a folder"));
    let log = folder.path().join("access.log");
    let fleet = gateway(&instance, &log).await;
    let mut stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
    stream.write_all(get("/large").as_bytes()).await.expect("it reads");
    cut(&fleet, &log).await;
}

/// Its connection goes on: it takes all else.
#[tokio::test]
async fn a_stream_of_http2_is_cut_off_and_no_other() {
    let (instance, folder) = (instance().await, tempfile::tempdir().expect("a folder"));
    let log = folder.path().join("access.log");
    let fleet = gateway(&instance, &log).await;
    let stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
    let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = shaken.expect("HTTP/2");
    let connection = tokio::spawn(connection);
    let ask = |path: &str| {
        let uri = format!("http://web.test{path}");
        Request::builder().version(Version::HTTP_2).uri(uri).body(Empty::<&[u8]>::new()).expect("a request")
    };
    let stuck = sender.send_request(ask("/large")).await.expect("a head");
    cut(&fleet, &log).await;
    stuck.into_body().collect().await.expect_err("it was reset");
    let well = sender.send_request(ask("/")).await.expect("a head").into_body().collect().await;
    assert_eq!(well.expect("a body").to_bytes().len(), 4);
    connection.abort();
}

/// A WebSocket has a limit on silence of its own.
#[tokio::test]
async fn a_websocket_may_take_its_time() {
    let (instance, folder) = (instance().await, tempfile::tempdir().expect("a folder"));
    let fleet = gateway(&instance, &folder.path().join("access.log")).await;
    let mut stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
    let ask = "GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.expect("it reads");
    until(&mut stream, "\r\n\r\n").await;
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    let mut all = vec![0; LARGE];
    tokio::time::timeout(ROOM, stream.read_exact(&mut all)).await.expect("in time").expect("all of it");
}
