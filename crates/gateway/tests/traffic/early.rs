//! Answers that come before the request's body has: the client gets them, also one that does not look before it has sent
//! all, and the instance did nothing wrong.

use crate::fleet::{Fleet, Instance, ROOM, route, until};
use baton_model::route::{Entry, HttpProtocol};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// More than all buffers on the way take: who sends it waits for somebody to read it.
const LARGE: usize = 16 << 20;

/// Sends all of a large request and then looks for its answer, as simple clients do. The connection is kept.
async fn upload(stream: &mut TcpStream, fields: &str) -> String {
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let sent = async {
        stream.write_all(head.as_bytes()).await?;
        if fields.contains("chunked") {
            let piece = [b"10000\r\n", [b'x'; 0x10000].as_slice(), b"\r\n"].concat();
            for _ in 0..LARGE / 0x10000 {
                stream.write_all(&piece).await?;
            }
            stream.write_all(b"0\r\n\r\n").await
        } else {
            stream.write_all(&vec![b'x'; LARGE]).await
        }
    };
    tokio::time::timeout(ROOM, sent).await.expect("somebody reads it").expect("nobody ends the connection");
    until(stream, "\r\n\r\n").await
}

fn both_kinds() -> [String; 2] {
    [format!("Content-Length: {LARGE}\r\n"), "Transfer-Encoding: chunked\r\n".to_owned()]
}

/// Reads heads only; answers a `POST` and closes with its body unread, so that the kernel resets the connection.
async fn refusing() -> Instance {
    Instance::new(|_, mut stream| async move {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let Ok(byte) = stream.read_u8().await else { return };
            head.push(byte);
        }
        let (status, said) =
            if head.starts_with(b"GET") { ("200 OK", "well") } else { ("413 No", "too much") };
        let answer =
            format!("HTTP/1.1 {status}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{said}", said.len());
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await
}

#[tokio::test]
async fn an_instance_that_answers_before_it_has_read_is_heard_and_not_blamed() {
    let refusing = refusing().await;
    let mut large = route(&[&refusing]);
    large.spec.limits.body_bytes_max = 2 * LARGE as u64;
    large.spec.ejection.failures = 1;
    let fleet = Fleet::with(large, |config| config.workers = 1).await;
    for fields in both_kinds() {
        for _ in 0..3 {
            let mut stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
            let answer = upload(&mut stream, &fields).await;
            assert!(answer.starts_with("HTTP/1.1 413"), "{fields}: {answer}");
            assert_eq!(until(&mut stream, "much").await, "too much");
            // The connection is as good as before.
            stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("kept");
            let answer = until(&mut stream, "well").await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        }
    }
    let table = fleet.served.load();
    let total = table.upstreams().next().expect("the instance").counters().total();
    assert_eq!((total.failures, total.broken), (0, 0), "{total:?}");
}

#[tokio::test]
async fn what_the_gateway_refuses_itself_is_answered_too() {
    let says = Instance::says("well").await;
    let fleet = Fleet::start(route(&[&says])).await;
    for fields in both_kinds() {
        let mut stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
        let answer = upload(&mut stream, &fields).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{fields}: {answer}");
    }
}

/// On either side, or both: an instance resets the stream of what it does not read (RFC 9113, 8.1), and its gateway does not.
#[tokio::test]
async fn over_http2_too() {
    let over_http1 = refusing().await;
    let over_http2 = Instance::new(|_, stream| async move {
        let service = service_fn(async |_| {
            let answer = Response::builder().status(413).body(Full::new(Bytes::from_static(b"too much")));
            Ok::<_, std::convert::Infallible>(answer.expect("an answer"))
        });
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        let _ = builder.serve_connection(TokioIo::new(stream), service).await;
    })
    .await;
    for (instance, protocol) in [(&over_http1, HttpProtocol::Http1), (&over_http2, HttpProtocol::Http2)] {
        let mut large = route(&[instance]);
        large.spec.limits.body_bytes_max = 2 * LARGE as u64;
        large.spec.entry = Entry::Http { hosts: Vec::new(), path: "/".to_owned(), protocol };
        let fleet = Fleet::start(large).await;
        let mut stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
        let answer = upload(&mut stream, &format!("Content-Length: {LARGE}\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 413"), "{protocol:?}: {answer}");
        let stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
        let shaken = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
        let (mut sender, connection) = shaken.expect("HTTP/2");
        let connection = tokio::spawn(connection);
        for _ in 0..3 {
            let body = Full::new(Bytes::from(vec![b'x'; LARGE]));
            let asked = Request::post("http://web.test/").body(body).expect("a request");
            let answer = sender.send_request(asked).await.expect("an answer");
            assert_eq!(answer.status(), 413, "{protocol:?}");
            let body = answer.into_body().collect().await.expect("all of it");
            assert_eq!(body.to_bytes(), "too much");
        }
        connection.abort();
        let total = fleet.served.load().upstreams().next().expect("one").counters().total();
        assert_eq!((total.failures, total.broken), (0, 0), "{protocol:?}: {total:?}");
    }
}
