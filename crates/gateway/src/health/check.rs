//! The gateway's own check of one upstream: a request or a connection, again and again.
//!
//! Each check takes a connection of its own: what is asked is whether a new request would be answered.

use super::verdict::Verdict;
use crate::table::Served;
use crate::upstream::UpstreamState;
use baton_model::route::{Entry, HttpProtocol, RouteSpec, TrafficCheck};
use baton_model::time::Millis;
use http::header::{CONNECTION, HOST, USER_AGENT};
use http::{Request, StatusCode, Version};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::net::TcpStream;

/// How often an upstream without a check of its own is connected to.
const CONNECT_INTERVAL: Millis = Millis::secs(1);
/// Connections in a row that must fail: a kernel that refuses one refuses all, a packet may be lost.
const CONNECT_FALL: u32 = 2;
/// While the last check contradicts the verdict, or a request failed, the next check comes this much sooner,
const IN_DOUBT: u32 = 4;
/// at most this long after the start of the one before,
const IN_DOUBT_MAX: Duration = Duration::from_secs(1);
/// and at least this long.
const IN_DOUBT_MIN: Duration = Duration::from_millis(50);

/// What is asked, and how often.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Plan {
    /// `None` only connects.
    path: Option<String>,
    protocol: HttpProtocol,
    interval: Duration,
    timeout: Duration,
    rise: u32,
    fall: u32,
}

impl Plan {
    fn new(spec: &RouteSpec) -> Self {
        let protocol = match spec.entry {
            Entry::Http { protocol, .. } => protocol,
            Entry::Tcp { .. } => HttpProtocol::Http1,
        };
        match &spec.check {
            Some(TrafficCheck { path, interval, timeout, rise, fall }) => Self {
                path: Some(path.clone()),
                protocol,
                interval: interval.duration(),
                timeout: timeout.duration(),
                rise: *rise,
                fall: *fall,
            },
            None => Self {
                path: None,
                protocol,
                interval: CONNECT_INTERVAL.duration(),
                timeout: spec.timeouts.connect.duration(),
                rise: 1,
                fall: CONNECT_FALL,
            },
        }
    }

    /// From the start of one check to the start of the next, where that cannot wait.
    fn soon(&self) -> Duration {
        (self.interval / IN_DOUBT).clamp(IN_DOUBT_MIN, IN_DOUBT_MAX).min(self.interval)
    }
}

/// Checks until no table names the service. Follows changes of the service's check from one check to the next.
pub(super) async fn run(served: &Served, upstream: &UpstreamState) {
    let mut verdict = Verdict::new(!upstream.is_down());
    let plan = || {
        let table = served.load();
        table.routes().get(&upstream.service().name).map(|route| Plan::new(route.spec()))
    };
    let Some(first) = plan() else { return };
    let mut soonest = tokio::time::Instant::now();
    // Not all upstreams at once, and not all gateways at once.
    let mut next = soonest + first.interval.mul_f64(fastrand::f64());
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(next) => {}
            // A request failed: is it the instance? Only while it counts as well; that it is down is known.
            () = upstream.suspected(), if verdict.is_well() => tokio::time::sleep_until(next.min(soonest)).await,
        }
        let Some(plan) = plan() else { return };
        let began = tokio::time::Instant::now();
        let passed =
            tokio::time::timeout(plan.timeout, passes(&plan, upstream.address())).await.unwrap_or(false);
        let before = verdict;
        verdict = verdict.after(passed, plan.rise, plan.fall);
        if verdict.is_well() != before.is_well() {
            tracing::info!(upstream = %upstream.id(), well = verdict.is_well(), "check");
            upstream.checked(verdict.is_well(), Instant::now());
        }
        soonest = began + plan.soon();
        next = if verdict.is_in_doubt() { soonest } else { began + plan.interval };
    }
}

async fn passes(plan: &Plan, address: SocketAddr) -> bool {
    let Ok(stream) = TcpStream::connect(address).await else { return false };
    match &plan.path {
        None => true,
        Some(path) => match ask(stream, plan.protocol, path, address).await {
            Ok(status) => status.is_success() || status.is_redirection(),
            Err(error) => {
                tracing::debug!(%address, %error, "check failed");
                false
            }
        },
    }
}

async fn ask(
    stream: TcpStream,
    protocol: HttpProtocol,
    path: &str,
    address: SocketAddr,
) -> Result<StatusCode, hyper::Error> {
    let io = TokioIo::new(stream);
    let request = Request::get(path).header(USER_AGENT, "baton-gateway");
    // Dropped with the check's end, and the connection with it.
    let mut connection = tokio::task::JoinSet::new();
    let answer = match protocol {
        HttpProtocol::Http1 => {
            let (mut sender, driver) = hyper::client::conn::http1::handshake(io).await?;
            connection.spawn(driver);
            let request = request.header(HOST, address.to_string()).header(CONNECTION, "close");
            sender.send_request(request.body(Empty::<Bytes>::new()).expect("the path was checked")).await?
        }
        HttpProtocol::Http2 => {
            let (mut sender, driver) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await?;
            connection.spawn(driver);
            let uri = format!("http://{address}{path}");
            let request = Request::get(uri).version(Version::HTTP_2).header(USER_AGENT, "baton-gateway");
            sender.send_request(request.body(Empty::<Bytes>::new()).expect("the path was checked")).await?
        }
    };
    Ok(answer.status())
}
