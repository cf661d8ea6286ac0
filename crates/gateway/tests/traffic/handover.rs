//! The gateway's own upgrade, and its drain: no request is refused, reset or lost.

use crate::fleet::{Fleet, Instance, ROOM, get, local, own_port, route, until};
use baton_gateway::table::Served;
use baton_gateway::{Gateway, GatewayConfig, PlacePurpose};
use baton_model::time::Millis;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::time::Instant;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// Asks again and again, on connections that are kept as long as the gateway keeps them; says what went wrong.
async fn load(address: SocketAddr, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>) -> Result<(), String> {
    while !stop.load(SeqCst) {
        let mut stream = TcpStream::connect(address).await.map_err(|it| format!("connect: {it}"))?;
        loop {
            let sent = stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
            sent.map_err(|it| format!("write: {it}"))?;
            let head = until(&mut stream, "\r\n\r\n").await;
            let mut body = [0; 5];
            stream.read_exact(&mut body).await.map_err(|it| format!("read: {it}"))?;
            if !head.starts_with("HTTP/1.1 200") || &body != b"hello" {
                return Err(head);
            }
            answered.fetch_add(1, SeqCst);
            if head.contains("connection: close") || stop.load(SeqCst) {
                break;
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gateway_is_followed_by_the_next_one_under_load() {
    let says = Instance::says("hello").await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("handover");
    let mut fleet = Fleet::with(route(&[&says]), |config| config.handover = Some(path.clone())).await;
    let address = fleet.http();
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let clients: Vec<_> =
        (0..8).map(|_| tokio::spawn(load(address, Arc::clone(&stop), Arc::clone(&answered)))).collect();
    for workers in [3, 1, 2] {
        let until = answered.load(SeqCst) + 500;
        crate::fleet::eventually("load", async || (answered.load(SeqCst) > until).then_some(())).await;
        let served = Arc::new(Served::new(None));
        served.install(&fleet.table(), Instant::now()).expect("valid");
        let mut config = GatewayConfig { http: vec![address], workers, ..GatewayConfig::default() };
        config.handover = Some(path.clone());
        config.drain.linger = Millis::secs(5);
        let next = Gateway::start(config, Arc::clone(&served)).await.expect("the sockets of the old one");
        assert_eq!(next.places().len(), 1);
        next.relieve().expect("the old one hears it");
        let old = std::mem::replace(&mut fleet.gateway, next);
        fleet.served = served;
        tokio::time::timeout(ROOM, old.relieved()).await.expect("relieved");
        assert_eq!(old.drain().await.cut, 0);
    }
    stop.store(true, SeqCst);
    for client in clients {
        client.await.expect("joined").expect("no request failed");
    }
}

#[tokio::test]
async fn a_drain_closes_no_connection_under_a_request() {
    let says = Instance::says("hello").await;
    let fleet = Fleet::with(route(&[&says]), |config| config.drain.linger = Millis::secs(20)).await;
    let address = fleet.address(PlacePurpose::Http);
    let mut idle = TcpStream::connect(address).await.expect("a gateway");
    idle.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("room");
    let answer = until(&mut idle, "hello").await;
    assert!(!answer.contains("connection: close"), "{answer}");
    let drained = tokio::spawn(fleet.gateway.drain());
    crate::fleet::eventually("no more connections", async || {
        TcpStream::connect(address).await.is_err().then_some(())
    })
    .await;
    idle.write_all(get("/last").as_bytes()).await.expect("still open");
    let answer = until(&mut idle, "hello").await;
    assert!(answer.contains("connection: close"), "{answer}");
    assert_eq!(drained.await.expect("joined").cut, 0);
}

#[tokio::test]
async fn what_does_not_end_is_cut_at_the_deadline_and_counted() {
    let mute = Instance::mute().await;
    let fleet = Fleet::with(route(&[&mute]), |config| config.drain.timeout = Millis(300)).await;
    let mut stuck = TcpStream::connect(fleet.http()).await.expect("a gateway");
    stuck.write_all(get("/").as_bytes()).await.expect("room");
    crate::fleet::eventually("the request under way", async || (mute.connections() == 1).then_some(())).await;
    assert_eq!(fleet.gateway.drain().await.cut, 1);
}

/// A gateway as a process of its own.
fn process(folder: &std::path::Path) -> std::process::Child {
    std::process::Command::new(env!("CARGO_BIN_EXE_baton-gateway-static"))
        .args(["gateway.toml", "table.json"])
        .current_dir(folder)
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a process")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_is_followed_by_the_next_and_ends_by_itself() {
    let says = Instance::says("hello").await;
    let folder = tempfile::tempdir().expect("a folder");
    let fleet = Fleet::start(route(&[&says])).await;
    let table = serde_json::to_vec(&fleet.table()).expect("json");
    std::fs::write(folder.path().join("table.json"), table).expect("written");
    let free = local(own_port());
    let config = format!("http = [\"{free}\"]\nhandover = \"handover\"\nworkers = 2\n");
    std::fs::write(folder.path().join("gateway.toml"), config).expect("written");
    let mut first = process(folder.path());
    crate::fleet::eventually("the first process", async || TcpStream::connect(free).await.ok()).await;
    crate::fleet::eventually("its offer", async || folder.path().join("handover").exists().then_some(()))
        .await;
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let client = tokio::spawn(load(free, Arc::clone(&stop), Arc::clone(&answered)));
    let mut second = process(folder.path());
    let ended =
        crate::fleet::eventually("the end of the first", async || first.try_wait().expect("ours")).await;
    assert!(ended.success());
    let before = answered.load(SeqCst);
    crate::fleet::eventually("answers of the second", async || {
        (answered.load(SeqCst) > before + 100).then_some(())
    })
    .await;
    stop.store(true, SeqCst);
    client.await.expect("joined").expect("no request failed");
    second.kill().expect("ours");
    second.wait().expect("ours");
}
