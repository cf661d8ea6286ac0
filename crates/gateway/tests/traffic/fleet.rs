//! Gateways, route tables and instances for tests.

use baton_gateway::config::GatewayConfig;
use baton_gateway::table::Served;
use baton_gateway::{Gateway, PlacePurpose};
use baton_model::id::{
    InstanceId, PortName, ReleaseNumber, RouteRevision, RunNumber, ServiceName, TableRevision,
};
use baton_model::route::{
    Balance, Ejection, Entry, HttpProtocol, Key, Retries, Route, RouteSpec, RouteTable, Split, Timeouts,
    TrafficLimits, Upstream, UpstreamId, Weight,
};
use baton_model::time::Millis;
use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::task::AbortOnDropHandle;

/// Nothing in these tests takes so long.
pub(crate) const ROOM: Duration = Duration::from_secs(120);

/// A gateway and the table that it was given last.
pub(crate) struct Fleet {
    pub(crate) gateway: Gateway,
    pub(crate) served: Arc<Served>,
    table: RouteTable,
}

impl Fleet {
    /// A gateway on a free port that serves `route` as service `web`.
    pub(crate) async fn start(route: Route) -> Self {
        Self::with(route, |_| {}).await
    }

    /// The same with another configuration.
    pub(crate) async fn with(route: Route, change: impl FnOnce(&mut GatewayConfig)) -> Self {
        let mut config = GatewayConfig {
            http: vec![local(0)],
            workers: 2,
            tcp: local(0).ip(),
            ..GatewayConfig::default()
        };
        config.drain.linger = Millis(200);
        config.drain.timeout = Millis::secs(20);
        change(&mut config);
        let served = Arc::new(Served::new(None));
        let gateway = Gateway::start(config, Arc::clone(&served)).await.expect("a free port");
        gateway.relieve().expect("nobody before");
        let mut fleet = Self { gateway, served, table: RouteTable::default() };
        fleet.install(route).await;
        fleet
    }

    /// The next table, with this route.
    pub(crate) async fn install(&mut self, route: Route) {
        self.table.revision = TableRevision(self.table.revision.0 + 1);
        let revision = RouteRevision(self.table.revision.0);
        self.table.routes = BTreeMap::from([(web(), Route { revision, ..route })]);
        self.gateway.install(&self.table).await.expect("a valid table");
    }

    /// Requests in flight to all instances.
    pub(crate) fn in_flight(&self) -> u64 {
        self.served.load().upstreams().map(|it| it.in_flight()).sum()
    }

    pub(crate) fn table(&self) -> RouteTable {
        self.table.clone()
    }

    /// Where it listens for this.
    pub(crate) fn address(&self, purpose: PlacePurpose) -> SocketAddr {
        self.gateway
            .places()
            .into_iter()
            .find(|it| it.purpose == purpose)
            .expect("it listens for that")
            .address
    }

    pub(crate) fn http(&self) -> SocketAddr {
        self.address(PlacePurpose::Http)
    }

    /// Sends bytes on a connection of their own and reads until its end.
    pub(crate) async fn ask(&self, request: &str) -> String {
        ask(self.http(), request).await
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        self.ask(&get(path)).await
    }
}

pub(crate) fn web() -> ServiceName {
    ServiceName::new("web").expect("a name")
}

pub(crate) fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A port of loopback that nobody else of this machine's tests picks, nor the kernel for a connection: those are from
/// 32768 on.
pub(crate) fn own_port() -> u16 {
    static PICKED: std::sync::atomic::AtomicU16 = std::sync::atomic::AtomicU16::new(0);
    let first = 10_000 + (std::process::id() % 200) as u16 * 50;
    first + PICKED.fetch_add(1, SeqCst)
}

/// Where nobody listens: tcpmux is of another age.
pub(crate) fn nowhere() -> SocketAddr {
    local(1)
}

/// A request on a connection that ends with its answer.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: web.test\r\nConnection: close\r\n\r\n")
}

pub(crate) async fn ask(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.expect("a gateway");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    rest(&mut stream).await
}

/// What comes until the end of a connection, also of one that is reset.
pub(crate) async fn rest(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> String {
    let mut all = Vec::new();
    tokio::time::timeout(ROOM, async {
        let mut piece = [0; 4096];
        while let Ok(some) = stream.read(&mut piece).await {
            if some == 0 {
                break;
            }
            all.extend_from_slice(&piece[..some]);
        }
    })
    .await
    .expect("the end of a connection");
    String::from_utf8_lossy(&all).into_owned()
}

/// Reads until the text is there.
pub(crate) async fn until(stream: &mut (impl tokio::io::AsyncRead + Unpin), end: &str) -> String {
    let mut all = String::new();
    let mut byte = [0; 1];
    while !all.ends_with(end) {
        let read = tokio::time::timeout(ROOM, stream.read_exact(&mut byte)).await;
        read.expect("in time").unwrap_or_else(|error| panic!("{error} after {all:?}"));
        all.push(char::from(byte[0]));
    }
    all
}

/// Looks until it is so.
pub(crate) async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let found = tokio::time::timeout(ROOM, async {
        loop {
            if let Some(found) = look().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    found.await.unwrap_or_else(|_| panic!("no {what}"))
}

/// A route for any host, with short times, to these instances of release 1.
pub(crate) fn route(instances: &[&Instance]) -> Route {
    releases(&instances.iter().map(|it| (1, *it)).collect::<Vec<_>>())
}

/// The same with a release for each; the first one's has all of the split.
pub(crate) fn releases(instances: &[(u64, &Instance)]) -> Route {
    let upstreams = instances.iter().enumerate().map(|(at, (release, instance))| {
        let slot = at as u64 + 1;
        let id = UpstreamId { instance: InstanceId { service: web(), slot }, run: RunNumber(1) };
        let release = ReleaseNumber(*release);
        (id, Upstream { release, address: instance.address, zone: None })
    });
    let first = instances.first().map(|(release, _)| (ReleaseNumber(*release), Weight::ALL));
    Route {
        revision: RouteRevision(1),
        spec: spec(),
        split: Split { weights: first.into_iter().collect() },
        rules: Vec::new(),
        mirror: None,
        held: false,
        trial: None,
        upstreams: upstreams.collect(),
    }
}

fn spec() -> RouteSpec {
    RouteSpec {
        entry: Entry::Http { hosts: Vec::new(), path: "/".to_owned(), protocol: HttpProtocol::Http1 },
        port: PortName::new("http").expect("a name"),
        balance: Balance::RoundRobin,
        split_by: Key::Address,
        sticky_cookie: None,
        timeouts: Timeouts { connect: Millis(1000), response: Millis::secs(20), idle: Millis::secs(20) },
        retries: Retries { attempts: 2, budget_percent: 100, hedge_after: Millis(0) },
        limits: TrafficLimits {
            body_bytes_max: 100_000,
            in_flight_max: 100,
            queue_max: 10,
            queue_timeout: Millis::secs(20),
        },
        check: None,
        ejection: Ejection { failures: 0, base: Millis::secs(1), share_max: Weight(5_000) },
        slow_start: Millis(0),
        zone_spill_below: Weight::NONE,
    }
}

/// A server of a test.
pub(crate) struct Instance {
    pub(crate) address: SocketAddr,
    connections: Arc<AtomicUsize>,
    _serves: AbortOnDropHandle<()>,
}

impl Instance {
    /// Does as `behave` says with each connection; it is told its number, from 0.
    pub(crate) async fn new<F>(behave: impl Fn(usize, TcpStream) -> F + Send + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind(local(0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&connections);
        let serves = AbortOnDropHandle::new(tokio::spawn(async move {
            let mut open = tokio::task::JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else { return };
                open.spawn(behave(counted.fetch_add(1, SeqCst), stream));
            }
        }));
        Self { address, connections, _serves: serves }
    }

    /// Answers each request with its own head and body, as text.
    pub(crate) async fn echo() -> Self {
        Self::new(|_, stream| answer_all(stream, |request| ok(&request))).await
    }

    /// Answers each request with this text.
    pub(crate) async fn says(text: &'static str) -> Self {
        Self::new(move |_, stream| answer_all(stream, move |_| ok(text))).await
    }

    /// Takes connections and never answers, as a process that is stopped does.
    pub(crate) async fn mute() -> Self {
        Self::new(|_, stream| async move {
            let _open = stream;
            std::future::pending::<()>().await;
        })
        .await
    }

    /// How many connections it was opened.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }
}

pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Answers the requests of a connection, each of which has a length or no body, or is in chunks.
pub(crate) async fn answer_all(mut stream: TcpStream, answer: impl Fn(String) -> String) {
    while let Some(request) = request(&mut stream).await {
        if stream.write_all(answer(request).as_bytes()).await.is_err() {
            return;
        }
    }
}

/// The next request, with its body.
pub(crate) async fn request(stream: &mut TcpStream) -> Option<String> {
    let mut all = Vec::new();
    let mut byte = [0; 1];
    let read_to = async |stream: &mut TcpStream, all: &mut Vec<u8>, byte: &mut [u8; 1], end: &[u8]| {
        while !all.ends_with(end) {
            stream.read_exact(byte).await.ok()?;
            all.push(byte[0]);
        }
        Some(())
    };
    read_to(stream, &mut all, &mut byte, b"\r\n\r\n").await?;
    let head = String::from_utf8_lossy(&all).to_lowercase();
    if head.contains("transfer-encoding: chunked") {
        read_to(stream, &mut all, &mut byte, b"0\r\n\r\n").await?;
    } else if let Some((_, rest)) = head.split_once("content-length: ") {
        let length = rest.split("\r\n").next()?.parse().ok()?;
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.ok()?;
        all.extend(body);
    }
    Some(String::from_utf8_lossy(&all).into_owned())
}
