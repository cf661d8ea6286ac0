//! HTTP/1.1: connections that are kept, bodies of every kind, heads as RFC 9110 wants them.

use crate::fleet::{
    Fleet, Instance, ROOM, answer_all, ask, eventually, get, ok, own_port, request, rest, route, until,
};
use baton_model::time::Millis;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

#[tokio::test]
async fn a_request_is_carried_with_its_head_made_for_the_instance() {
    let echo = Instance::echo().await;
    let fleet = Fleet::start(route(&[&echo])).await;
    let answer = fleet
        .ask("POST /a?b=c HTTP/1.1\r\nHost: web.test\r\nConnection: close, X-Own\r\nX-Own: 1\r\nContent-Length: 5\r\nX-Request-Id: mine\r\n\r\nhello")
        .await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.contains("x-request-id: mine\r\n"), "{answer}");
    for there in [
        "POST /a?b=c HTTP/1.1\r\n",
        "host: web.test\r\n",
        "x-forwarded-for: 127.0.0.1\r\n",
        "x-forwarded-proto: http\r\n",
        "x-forwarded-host: web.test\r\n",
        "forwarded: for=127.0.0.1;proto=http;host=\"web.test\"\r\n",
        "via: 1.1 baton\r\n",
        "\r\n\r\nhello",
    ] {
        assert!(answer.contains(there), "{there:?} in {answer}");
    }
    assert!(!answer.contains("x-own"), "{answer}");
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let says = Instance::says("hello").await;
    let fleet = Fleet::start(route(&[&says])).await;
    let mut stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
    for _ in 0..20 {
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("kept");
        let answer = until(&mut stream, "hello").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    }
    assert_eq!(says.connections(), 1);
}

#[tokio::test]
async fn requests_that_come_at_once_are_answered_in_their_order() {
    let echo = Instance::echo().await;
    let fleet = Fleet::start(route(&[&echo])).await;
    let pipelined = format!(
        "GET /one HTTP/1.1\r\nHost: a\r\n\r\nPOST /two HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi{}",
        get("/three")
    );
    let answer = fleet.ask(&pipelined).await;
    let at = |text: &str| answer.find(text).unwrap_or_else(|| panic!("{text} in {answer}"));
    assert!(at("GET /one") < at("POST /two") && at("POST /two") < at("GET /three"));
}

#[tokio::test]
async fn bodies_of_every_size_and_kind_arrive_whole() {
    let sizes = Instance::new(|_, mut stream| async move {
        while let Some(request) = request(&mut stream).await {
            let count = request.split_once("\r\n\r\n").map_or(0, |(_, body)| body.matches('x').count());
            let chunked = request.contains("/chunked");
            let body = "y".repeat(count);
            let answer = if chunked && count > 0 {
                format!(
                    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{count:x}\r\n{body}\r\n0\r\n\r\n"
                )
            } else {
                ok(&body)
            };
            if stream.write_all(answer.as_bytes()).await.is_err() {
                return;
            }
        }
    })
    .await;
    let fleet = Fleet::start(route(&[&sizes])).await;
    for size in [0, 1, 1000, 65_536, 65_537, 99_999] {
        let body = "x".repeat(size);
        let plain = format!(
            "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n{body}"
        );
        let pieces: Vec<String> = body
            .as_bytes()
            .chunks(30_000)
            .map(|it| format!("{:x}\r\n{}\r\n", it.len(), String::from_utf8_lossy(it)))
            .collect();
        let chunked = format!(
            "POST /chunked HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
            pieces.concat()
        );
        for request in [plain, chunked] {
            let answer = ask(fleet.http(), &request).await;
            let (head, body) = answer.split_once("\r\n\r\n").expect("an answer");
            assert!(head.starts_with("HTTP/1.1 200"), "{size}: {head}");
            assert_eq!(body.matches('y').count(), size, "{head}");
        }
    }
}

#[tokio::test]
async fn what_is_larger_than_allowed_is_refused_and_the_instance_is_not_blamed() {
    let echo = Instance::echo().await;
    let fleet = Fleet::start(route(&[&echo])).await;
    let declared =
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100001\r\nExpect: 100-continue\r\n\r\n".to_owned();
    let answer = fleet.ask(&declared).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    // There is no gRPC over HTTP/1.1, and so nothing that a body of that name may do.
    let named = declared.replace("Expect", "Content-Type: application/grpc\r\nExpect");
    let answer = fleet.ask(&named).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    let piece = format!("7530\r\n{}\r\n", "x".repeat(30_000));
    let chunked = format!(
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n{}0\r\n\r\n",
        piece.repeat(4)
    );
    let answer = fleet.ask(&chunked).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert!(fleet.get("/").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_that_stops_is_answered_408() {
    let echo = Instance::echo().await;
    let mut slow = route(&[&echo]);
    slow.spec.timeouts.idle = Millis(300);
    // Shorter than the silence, and no reason to blame the instance.
    slow.spec.timeouts.response = Millis(200);
    let fleet = Fleet::start(slow).await;
    for begin in [
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 90000\r\n\r\nx",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n",
    ] {
        let answer = fleet.ask(begin).await;
        assert!(answer.starts_with("HTTP/1.1 408"), "{begin:?}: {answer}");
    }
    let counted = fleet.served.load().upstreams().map(|it| it.counters().total().failures).sum::<u64>();
    assert_eq!(counted, 0, "it is the client that was slow");
}

/// An answer that says both a length and chunks ends where the chunks end; one that is coded by more than chunks is none.
#[tokio::test]
async fn an_answer_is_framed_once() {
    for (fields, expect) in [
        ("Content-Length: 5\r\nTransfer-Encoding: chunked", Some("0123456789")),
        ("Content-Length: 50\r\nTransfer-Encoding: chunked", Some("0123456789")),
        ("Transfer-Encoding: gzip, chunked", None),
    ] {
        let odd = Instance::new(move |_, stream| {
            answer_all(stream, move |_| {
                format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\na\r\n0123456789\r\n0\r\n\r\n")
            })
        })
        .await;
        let fleet = Fleet::start(route(&[&odd])).await;
        let answer = fleet.get("/").await;
        match expect {
            Some(body) => {
                assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(body), "{fields}: {answer}");
                assert!(!answer.to_lowercase().contains("content-length"), "{fields}: {answer}");
            }
            None => assert!(answer.starts_with("HTTP/1.1 502"), "{fields}: {answer}"),
        }
    }
}

/// One slow request, for which there is nobody else, takes nothing of what others may be retried by.
#[tokio::test]
async fn a_hedge_that_nobody_is_there_for_costs_no_retry() {
    let mute = Instance::mute().await;
    let mut alone = route(&[&mute]);
    alone.spec.retries.hedge_after = Millis(1);
    alone.spec.timeouts.response = Millis(1_000);
    let fleet = Fleet::start(alone).await;
    assert!(fleet.get("/").await.starts_with("HTTP/1.1 504"));
    let table = fleet.served.load();
    let events = table.upstreams().next().expect("one").service().counters.total();
    assert_eq!(events.over_budget, 0);
}

#[tokio::test]
async fn a_head_that_does_not_end_is_answered_408_and_silence_is_not() {
    let echo = Instance::echo().await;
    let fleet = Fleet::with(route(&[&echo]), |config| config.limits.header_timeout = Millis(1_500)).await;
    let answer = fleet.ask("GET / HTTP/1.1\r\nHost: a\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let mut stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
    assert_eq!(rest(&mut stream).await, "");
    let mut stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.expect("it reads");
    let after_one = rest(&mut stream).await;
    assert_eq!(after_one.matches("HTTP/1.1").count(), 2, "the answer and the request in it: {after_one}");
}

#[tokio::test]
async fn a_body_goes_on_while_the_client_takes_nothing_of_the_answer() {
    // More than what fits into the buffers on the way.
    const SIZE: usize = 24 * 1024 * 1024;
    let both = Instance::new(|_, mut stream| async move {
        until(&mut stream, "\r\n\r\n").await;
        let (mut reads, mut writes) = stream.into_split();
        let answering = tokio::spawn(async move {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n");
            writes.write_all(head.as_bytes()).await.expect("it reads");
            writes.write_all(&vec![b'x'; SIZE]).await.expect("it reads in the end");
        });
        let mut left = SIZE;
        let mut piece = vec![0; 64 * 1024];
        while left > 0 {
            left -= reads.read(&mut piece[..left.min(64 * 1024)]).await.expect("the body");
        }
        answering.await.expect("answered");
    })
    .await;
    let mut large = route(&[&both]);
    large.spec.limits.body_bytes_max = SIZE as u64;
    let fleet = Fleet::start(large).await;
    let mut stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {SIZE}\r\nConnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.expect("it reads");
    let sent = tokio::time::timeout(ROOM, stream.write_all(&vec![b'y'; SIZE])).await;
    sent.expect("it reads on though nobody takes the answer").expect("a connection");
    let answer = rest(&mut stream).await;
    let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
    assert_eq!(body.len(), SIZE);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_not_passed_on_as_a_whole_one() {
    for head in ["Content-Length: 100", "Transfer-Encoding: chunked"] {
        let cut = Instance::new(move |_, mut stream| async move {
            request(&mut stream).await;
            let chunk = if head.starts_with('T') { "32\r\n" } else { "" };
            let text = format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{chunk}{}", "x".repeat(20));
            stream.write_all(text.as_bytes()).await.expect("it reads");
        })
        .await;
        let fleet = Fleet::start(route(&[&cut])).await;
        let answer = fleet.get("/").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(!answer.ends_with("0\r\n\r\n"), "a client would take it for whole: {answer}");
    }
}

#[tokio::test]
async fn a_head_has_no_body_and_what_says_nothing_keeps_its_connection() {
    let says = Instance::new(|_, mut stream| async move {
        while let Some(request) = request(&mut stream).await {
            let answer: &[u8] = if request.starts_with("HEAD") {
                b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
            } else {
                b"HTTP/1.1 204 No Content\r\n\r\n"
            };
            stream.write_all(answer).await.expect("it reads");
        }
    })
    .await;
    let fleet = Fleet::start(route(&[&says])).await;
    for _ in 0..3 {
        let head = fleet.ask("HEAD / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
        assert!(head.contains("content-length: 5\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let none = fleet.get("/").await;
        assert!(none.starts_with("HTTP/1.1 204") && none.ends_with("\r\n\r\n"), "{none}");
    }
    // Two workers, each with a connection of its own.
    assert!(says.connections() <= 2, "{}", says.connections());
}

#[tokio::test]
#[ignore = "needs nginx; `cargo xtask foreign` runs it"]
async fn nginx_is_served_from_as_any_server() {
    let nginx = Nginx::start().await;
    let instance = nginx.instance().await;
    let fleet = Fleet::start(route(&[&instance])).await;
    let mut stream = TcpStream::connect(fleet.http()).await.expect("a gateway");
    for size in [1_000_usize, 1_000_000, 0, 300_000] {
        let text = format!("GET /{size} HTTP/1.1\r\nHost: a\r\n\r\n");
        stream.write_all(text.as_bytes()).await.expect("kept");
        let head = until(&mut stream, "\r\n\r\n").await;
        assert!(head.contains(&format!("content-length: {size}\r\n")), "{head}");
        let mut body = vec![0; size];
        tokio::time::timeout(ROOM, stream.read_exact(&mut body)).await.expect("in time").expect("whole");
        assert!(body.iter().all(|it| *it == b'x'));
    }
}

/// An nginx that serves files of `x`.
struct Nginx {
    process: std::process::Child,
    port: u16,
    _folder: tempfile::TempDir,
}

impl Nginx {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        for size in [0, 1_000, 300_000, 1_000_000] {
            std::fs::write(folder.path().join(size.to_string()), "x".repeat(size)).expect("a file");
        }
        let port = own_port();
        let root = folder.path().display();
        let config = format!(
            "daemon off; master_process off; pid {root}/pid; error_log stderr crit; events {{}}
             http {{ access_log off; server {{ listen 127.0.0.1:{port}; root {root}; }} }}"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).expect("a file");
        let process = ["/usr/sbin/nginx", "nginx"].iter().find_map(|program| {
            std::process::Command::new(program).arg("-p").arg(folder.path()).arg("-c").arg(&file).spawn().ok()
        });
        let process = process.expect("nginx is installed (Debian: nginx-light)");
        let nginx = Self { process, port, _folder: folder };
        eventually("nginx", async || TcpStream::connect(crate::fleet::local(port)).await.ok()).await;
        nginx
    }

    /// As an instance of the fleet: a relay, so that it has an address of its own.
    async fn instance(&self) -> Instance {
        let port = self.port;
        Instance::new(move |_, mut stream| async move {
            let mut nginx = TcpStream::connect(crate::fleet::local(port)).await.expect("nginx");
            let _ = tokio::io::copy_bidirectional(&mut stream, &mut nginx).await;
        })
        .await
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[tokio::test]
async fn only_a_trusted_proxy_says_who_the_client_is() {
    let echo = Instance::echo().await;
    let folder = tempfile::tempdir().expect("a folder");
    let said = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Forwarded-For: 198.51.100.1, 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: b\r\nForwarded: for=203.0.113.9\r\n\r\n";
    for (proxies, list, proto, host, client) in [
        ("trusted_proxies = []", "127.0.0.1", "http", "a", "127.0.0.1"),
        (
            "trusted_proxies = [\"127.0.0.0/8\"]",
            "198.51.100.1, 203.0.113.9, 127.0.0.1",
            "https",
            "b",
            "203.0.113.9",
        ),
    ] {
        let path = folder.path().join(client);
        let log = path.clone();
        let fleet = Fleet::with(route(&[&echo]), |config| {
            let read = baton_gateway::GatewayConfig::parse(proxies).expect("a configuration");
            (config.trusted_proxies, config.access_log) = (read.trusted_proxies, Some(log));
        })
        .await;
        let answer = fleet.ask(said).await;
        for there in [
            format!("x-forwarded-for: {list}\r\n"),
            format!("x-forwarded-proto: {proto}\r\n"),
            format!("x-forwarded-host: {host}\r\n"),
        ] {
            assert!(answer.contains(&there), "{there:?} in {answer}");
        }
        assert_eq!(answer.contains("forwarded: for=203.0.113.9, for=127"), proto == "https", "{answer}");
        let line = eventually("its line", async || {
            std::fs::read_to_string(&path).ok().filter(|text| text.ends_with('\n'))
        })
        .await;
        assert!(line.contains(&format!("\"client\":\"{client}\"")), "{line}");
    }
}
