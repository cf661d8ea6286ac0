//! HTTP/2 on both sides: gRPC with real servers and clients, its trailers, its streams, and the farewell of a drain.

use crate::fleet::{Fleet, Instance, ROOM, eventually, rest, route};
use baton_model::route::{Entry, HttpProtocol, Route};
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpListener, TcpStream};
use tokio_stream::StreamExt as _;
use tokio_util::task::AbortOnDropHandle;
use tonic::transport::{Channel, Endpoint, Server};
use tonic_health::ServingStatus;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_client::HealthClient;
use tonic_health::server::HealthReporter;

/// A gRPC server of tonic's, as an instance; told to, its answers change.
struct Grpc {
    instance: Instance,
    reporter: HealthReporter,
    _serves: AbortOnDropHandle<()>,
}

impl Grpc {
    async fn start() -> Self {
        let (reporter, service) = tonic_health::server::health_reporter();
        let listener = TcpListener::bind(crate::fleet::local(0)).await.expect("a port");
        let address = listener.local_addr().expect("bound");
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let serves = AbortOnDropHandle::new(tokio::spawn(async move {
            Server::builder().add_service(service).serve_with_incoming(incoming).await.expect("served");
        }));
        let mut instance = Instance::says("").await;
        instance.address = address;
        Self { instance, reporter, _serves: serves }
    }
}

fn over_http2(instances: &[&Instance]) -> Route {
    let mut route = route(instances);
    route.spec.entry = Entry::Http { hosts: Vec::new(), path: "/".to_owned(), protocol: HttpProtocol::Http2 };
    route
}

async fn client(fleet: &Fleet) -> HealthClient<Channel> {
    let endpoint = Endpoint::from_shared(format!("http://{}", fleet.http())).expect("an address");
    HealthClient::new(endpoint.connect().await.expect("a gateway"))
}

fn asks(service: &str) -> HealthCheckRequest {
    HealthCheckRequest { service: service.to_owned() }
}

#[tokio::test]
async fn grpc_calls_and_their_errors_come_through() {
    let grpc = Grpc::start().await;
    let fleet = Fleet::start(over_http2(&[&grpc.instance])).await;
    let mut client = client(&fleet).await;
    for _ in 0..10 {
        let answer = client.check(asks("")).await.expect("it serves");
        assert_eq!(answer.into_inner().status, ServingStatus::Serving as i32);
    }
    // The status of an error is in the trailers.
    let error = client.check(asks("unknown")).await.expect_err("there is no such service");
    assert_eq!(error.code(), tonic::Code::NotFound);
}

#[tokio::test]
async fn a_stream_goes_on_while_the_gateway_drains_and_new_calls_go_elsewhere() {
    let grpc = Grpc::start().await;
    let fleet = Fleet::start(over_http2(&[&grpc.instance])).await;
    let mut client = client(&fleet).await;
    let mut watched = client.watch(asks("")).await.expect("a stream").into_inner();
    let first = watched.next().await.expect("a message").expect("no error");
    assert_eq!(first.status, ServingStatus::Serving as i32);
    let drained = tokio::spawn(fleet.gateway.drain());
    grpc.reporter.set_service_status("", ServingStatus::NotServing).await;
    let second = tokio::time::timeout(ROOM, watched.next()).await.expect("in time");
    assert_eq!(second.expect("a message").expect("no error").status, ServingStatus::NotServing as i32);
    drop((watched, client));
    assert_eq!(drained.await.expect("joined").cut, 0);
}

#[tokio::test]
async fn a_stream_whose_instance_leaves_is_told_to_go_and_counted_until_it_does() {
    let (old, new) = (Grpc::start().await, Grpc::start().await);
    let mut fleet = Fleet::start(over_http2(&[&old.instance])).await;
    let mut client = client(&fleet).await;
    let mut watched = client.watch(asks("")).await.expect("a stream").into_inner();
    watched.next().await.expect("a message").expect("no error");
    fleet.install(over_http2(&[&new.instance])).await;
    assert_eq!(fleet.served.load().busy().len(), 1);
    // A new call goes to the new instance, over whatever connection the client has by then.
    new.reporter.set_service_status("only-new", ServingStatus::Serving).await;
    eventually("an answer of the new one", async || client.check(asks("only-new")).await.ok()).await;
    drop(watched);
    eventually("the end of the stream", async || fleet.served.load().busy().is_empty().then_some(())).await;
}

#[tokio::test]
async fn a_call_that_nobody_can_answer_gets_a_status_of_grpc() {
    let mut none = over_http2(&[]);
    none.split = baton_model::route::Split::default();
    none.spec.limits.queue_timeout = baton_model::time::Millis(100);
    let fleet = Fleet::start(none).await;
    let error = client(&fleet).await.check(asks("")).await.expect_err("nobody is there");
    assert_eq!(error.code(), tonic::Code::Unavailable);
}

#[tokio::test]
async fn frames_that_are_none_end_their_connection_and_no_other() {
    let grpc = Grpc::start().await;
    let fleet = Fleet::start(over_http2(&[&grpc.instance])).await;
    let mut client = client(&fleet).await;
    client.check(asks("")).await.expect("it serves");
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    let wrong: [&[u8]; 5] = [
        // A frame larger than allowed; data on stream 0; headers on an even stream; a window that overflows; noise.
        &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1],
        &[0, 0, 1, 0, 0, 0, 0, 0, 0, 7],
        &[0, 0, 1, 1, 4, 0, 0, 0, 2, 0x82],
        &[0, 0, 4, 8, 0, 0, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff],
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    ];
    for bytes in wrong {
        let mut stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
        for part in [&preface[..], &settings[..], bytes] {
            stream.write_all(part).await.expect("room");
        }
        rest(&mut stream).await;
    }
    client.check(asks("")).await.expect("it goes on");
}

#[tokio::test]
async fn a_client_of_http2_is_carried_to_an_instance_of_http1() {
    let echo = Instance::echo().await;
    let fleet = Fleet::start(route(&[&echo])).await;
    let stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream))
            .await
            .expect("HTTP/2");
    let driven = AbortOnDropHandle::new(tokio::spawn(connection));
    let request = http::Request::post("http://web.test/a?b=c")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(http_body_util::Full::new(bytes::Bytes::from_static(b"hello")))
        .expect("a request");
    let answer = sender.send_request(request).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    let body = http_body_util::BodyExt::collect(answer.into_body()).await.expect("whole").to_bytes();
    let text = String::from_utf8_lossy(&body);
    for there in [
        "POST /a?b=c HTTP/1.1\r\n",
        "host: web.test\r\n",
        "cookie: a=1; b=2\r\n",
        "via: 2 baton\r\n",
        "hello",
    ] {
        assert!(text.contains(there), "{there:?} in {text}");
    }
    drop(driven);
}

/// An empty SETTINGS frame after the preface, as every client begins.
const BEGINS: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
/// A HEADERS frame with `:method: GET` and the promise of more of them.
const HALF_A_HEAD: &[u8] = b"\0\0\x01\x01\0\0\0\0\x01\x82";

#[tokio::test]
async fn a_head_that_does_not_come_ends_its_connection_and_an_open_stream_does_not() {
    let grpc = Grpc::start().await;
    let fleet = Fleet::with(over_http2(&[&grpc.instance]), |config| {
        config.limits.header_timeout = baton_model::time::Millis(700);
    })
    .await;
    let mut client = client(&fleet).await;
    let mut watched = client.watch(asks("")).await.expect("a stream").into_inner();
    watched.next().await.expect("a message").expect("no error");
    for said in [BEGINS.to_vec(), [BEGINS, HALF_A_HEAD].concat()] {
        let begun = std::time::Instant::now();
        let mut stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
        stream.write_all(&said).await.expect("it reads");
        rest(&mut stream).await;
        // A client that does not answer pings is given up after thirty.
        assert!(begun.elapsed().as_secs() < 20, "it had its time, and no more");
    }
    // Twice that time has passed.
    grpc.reporter.set_service_status("", ServingStatus::NotServing).await;
    let second = tokio::time::timeout(ROOM, watched.next()).await.expect("in time");
    assert_eq!(second.expect("a message").expect("no error").status, ServingStatus::NotServing as i32);
    drop(watched);
    // Told to go when it had nothing any more, the client comes again.
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    client.check(asks("unknown")).await.expect_err("there is no such service");
}
