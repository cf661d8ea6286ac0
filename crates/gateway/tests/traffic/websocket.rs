//! WebSockets: carried both ways, told to go when their instance or the gateway does, counted while they stay.

use crate::fleet::{Fleet, Instance, eventually, request, rest, route, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
/// Status 1012, "service restart".
const CLOSE: [u8; 4] = [0x88, 2, 3, 0xf4];

/// Sends back what it gets; a masked close frame ends it.
async fn chat() -> Instance {
    Instance::new(|_, mut stream| async move {
        let Some(request) = request(&mut stream).await else { return };
        assert!(request.contains("upgrade: websocket"), "{request}");
        stream.write_all(SWITCHED.as_bytes()).await.expect("it reads");
        let mut piece = [0; 1024];
        while let Ok(some) = stream.read(&mut piece).await {
            if some == 0 || piece.starts_with(&[0x88, 0x82]) {
                return;
            }
            if stream.write_all(&piece[..some]).await.is_err() {
                return;
            }
        }
    })
    .await
}

async fn open(fleet: &Fleet) -> TcpStream {
    let mut stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
    stream.write_all(ASK.as_bytes()).await.expect("room");
    let head = until(&mut stream, "\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 101"), "{head}");
    assert!(head.to_lowercase().contains("sec-websocket-accept: s3ppl"), "{head}");
    stream
}

async fn echoes(stream: &mut TcpStream, frame: &[u8]) {
    stream.write_all(frame).await.expect("room");
    let mut back = vec![0; frame.len()];
    stream.read_exact(&mut back).await.expect("an echo");
    assert_eq!(back, frame);
}

#[tokio::test]
async fn frames_go_both_ways_and_count_as_in_flight() {
    let chat = chat().await;
    let fleet = Fleet::start(route(&[&chat])).await;
    let mut stream = open(&fleet).await;
    echoes(&mut stream, &[0x81, 2, b'h', b'i']).await;
    let in_flight = || fleet.served.load().upstreams().map(|it| it.in_flight()).sum::<u64>();
    assert_eq!(in_flight(), 1);
    drop(stream);
    eventually("its end", async || (in_flight() == 0).then_some(())).await;
}

#[tokio::test]
async fn one_whose_instance_leaves_gets_a_close_frame_and_is_busy_until_it_is_gone() {
    let (old, new) = (chat().await, chat().await);
    let mut fleet = Fleet::start(route(&[&old])).await;
    let mut stream = open(&fleet).await;
    echoes(&mut stream, &[0x81, 2, b'h', b'i']).await;
    let mut next = route(&[&new]);
    // Another instance, not the same one elsewhere.
    let (mut id, upstream) = next.upstreams.pop_first().expect("one");
    id.instance.slot = 7;
    next.upstreams.insert(id, upstream);
    fleet.install(next).await;
    let mut close = [0; 4];
    stream.read_exact(&mut close).await.expect("a close frame");
    assert_eq!(close, CLOSE);
    assert_eq!(fleet.served.load().busy().len(), 1, "it is waited for");
    assert_eq!(rest(&mut stream).await, "");
    drop(stream);
    eventually("the end of it", async || fleet.served.load().busy().is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_drain_sends_close_frames_and_waits() {
    let chat = chat().await;
    let fleet = Fleet::start(route(&[&chat])).await;
    let mut stream = open(&fleet).await;
    let drained = tokio::spawn(fleet.gateway.drain());
    let mut close = [0; 4];
    stream.read_exact(&mut close).await.expect("a close frame");
    assert_eq!(close, CLOSE);
    drop(stream);
    assert_eq!(drained.await.expect("joined").cut, 0);
}

#[tokio::test]
async fn an_instance_that_says_no_is_answered_as_it_says() {
    let says = Instance::says("no").await;
    let fleet = Fleet::start(route(&[&says])).await;
    let mut stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
    stream.write_all(ASK.as_bytes()).await.expect("room");
    let answer = until(&mut stream, "no").await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}
