//! Checks against real sockets: an instance that answers, one that takes connections and never answers, one that is gone.

use super::watch;
use crate::fixture::{Fleet, fleet, run, web};
use crate::table::Served;
use baton_model::id::ReleaseNumber;
use baton_model::route::{Entry, HttpProtocol, TrafficCheck, Upstream};
use baton_model::time::Millis;
use http::{Request, Response, StatusCode};
use http_body_util::Empty;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering::SeqCst};
use std::time::{Duration, Instant};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Does not answer, as a stopped process.
const SILENT: u16 = 0;

/// An instance that answers every request with a status that the test sets.
struct Instance {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    task: JoinHandle<()>,
}

async fn instance(protocol: HttpProtocol) -> Instance {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let status = Arc::new(AtomicU16::new(200));
    let says = Arc::clone(&status);
    let task = tokio::spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let says = Arc::clone(&says);
            let answer = service_fn(move |request: Request<Incoming>| {
                let status = if request.uri().path() == "/well" { says.load(SeqCst) } else { 404 };
                async move {
                    if status == SILENT {
                        std::future::pending::<()>().await;
                    }
                    let mut answer = Response::new(Empty::<Bytes>::new());
                    *answer.status_mut() = StatusCode::from_u16(status).expect("a status");
                    Ok::<_, Infallible>(answer)
                }
            });
            connections.spawn(async move {
                let io = TokioIo::new(stream);
                // A check ends its connection as it likes.
                let _ = match protocol {
                    HttpProtocol::Http1 => {
                        hyper::server::conn::http1::Builder::new().serve_connection(io, answer).await
                    }
                    HttpProtocol::Http2 => {
                        hyper::server::conn::http2::Builder::new(TokioExecutor::new())
                            .serve_connection(io, answer)
                            .await
                    }
                };
            });
        }
    });
    Instance { address, status, task }
}

fn checked(address: SocketAddr, protocol: HttpProtocol, check: Option<TrafficCheck>) -> Fleet {
    let mut fleet = fleet(0);
    fleet.route.spec.entry = Entry::Http { hosts: vec![], path: "/".to_owned(), protocol };
    fleet.route.spec.check = check;
    fleet.route.upstreams.insert(run(1, 1), Upstream { release: ReleaseNumber(1), address, zone: None });
    fleet
}

fn quick() -> Option<TrafficCheck> {
    let (interval, timeout) = (Millis(50), Millis(400));
    Some(TrafficCheck { path: "/well".to_owned(), interval, timeout, rise: 2, fall: 2 })
}

fn is_well(served: &Served) -> bool {
    let route = web(served);
    route.upstreams().all(|upstream| upstream.is_well(Instant::now()))
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < deadline, "not within 30 s: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn follows_its_answers(protocol: HttpProtocol) {
    let instance = instance(protocol).await;
    let served = Arc::new(checked(instance.address, protocol, quick()).served());
    let stop = CancellationToken::new();
    let watching = tokio::spawn(watch(Arc::clone(&served), stop.clone()));
    for (says, well) in [(500, false), (204, true), (SILENT, false), (302, true), (404, false), (200, true)] {
        instance.status.store(says, SeqCst);
        eventually(&format!("{says} is well: {well}"), || is_well(&served) == well).await;
    }
    instance.task.abort();
    eventually("gone", || !is_well(&served)).await;
    stop.cancel();
    watching.await.expect("ends when it is told to");
}

#[tokio::test]
async fn a_check_follows_what_an_instance_answers() {
    follows_its_answers(HttpProtocol::Http1).await;
}

#[tokio::test]
async fn a_check_over_http_2_does_too() {
    follows_its_answers(HttpProtocol::Http2).await;
}

#[tokio::test]
async fn without_a_check_a_connection_is_enough_until_there_is_none() {
    let instance = instance(HttpProtocol::Http1).await;
    instance.status.store(SILENT, SeqCst);
    let served = Arc::new(checked(instance.address, HttpProtocol::Http1, None).served());
    let stop = CancellationToken::new();
    let watching = tokio::spawn(watch(Arc::clone(&served), stop.clone()));
    instance.task.abort();
    eventually("refused", || !is_well(&served)).await;
    let again = TcpListener::bind(instance.address).await.expect("the port is free again");
    eventually("connected", || is_well(&served)).await;
    drop(again);
    stop.cancel();
    watching.await.expect("ends when it is told to");
}

#[tokio::test]
async fn a_failed_request_calls_for_a_check_long_before_its_time() {
    let instance = instance(HttpProtocol::Http1).await;
    instance.status.store(SILENT, SeqCst);
    // The first check would come at a moment of the hour that chance draws.
    let hourly =
        TrafficCheck { interval: Millis::secs(3600), timeout: Millis(50), ..quick().expect("a check") };
    let mut fleet = checked(instance.address, HttpProtocol::Http1, Some(hourly));
    fleet.route.spec.ejection.failures = 0;
    let served = Arc::new(fleet.served());
    let stop = CancellationToken::new();
    let watching = tokio::spawn(watch(Arc::clone(&served), stop.clone()));
    let route = web(&served);
    let suspect = async {
        loop {
            crate::fixture::fail(&route, 1, 1, Instant::now());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = suspect => {}
        () = eventually("found", || !is_well(&served)) => {}
    }
    stop.cancel();
    watching.await.expect("ends when it is told to");
}

#[tokio::test]
async fn a_run_that_left_is_asked_no_more_and_one_that_is_back_is() {
    let instance = instance(HttpProtocol::Http1).await;
    let mut fleet = checked(instance.address, HttpProtocol::Http1, quick());
    let served = Arc::new(fleet.served());
    let stop = CancellationToken::new();
    let watching = tokio::spawn(watch(Arc::clone(&served), stop.clone()));
    let held = crate::fixture::sent(&web(&served), "x", Instant::now());
    let upstreams = fleet.route.upstreams.clone();
    let upstream = Arc::clone(held.upstream());
    eventually("watched", || upstream.is_watched()).await;
    fleet.route.upstreams.clear();
    fleet.next(&served, Instant::now());
    eventually("let go", || !upstream.is_watched()).await;
    fleet.route.upstreams = upstreams;
    fleet.next(&served, Instant::now());
    instance.status.store(500, SeqCst);
    eventually("asked again", || !is_well(&served)).await;
    stop.cancel();
    watching.await.expect("ends when it is told to");
}
