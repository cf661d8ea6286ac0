//! The access log: a line for each request, whatever came of it.

use crate::fleet::{Fleet, Instance, answer_all, eventually, get, route};
use baton_model::time::Millis;
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

#[tokio::test]
async fn an_access_log_has_a_line_for_each_request() {
    let echo = Instance::says("hello").await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let log = path.clone();
    let fleet = Fleet::with(route(&[&echo]), |config| config.access_log = Some(log)).await;
    fleet.get("/one").await;
    fleet.ask("GET /two HTTP/1.1\r\n\r\n").await;
    let lines = eventually("two lines", async || {
        let text = std::fs::read_to_string(&path).expect("text");
        (text.lines().count() == 2).then_some(text)
    })
    .await;
    let lines: Vec<serde_json::Value> =
        lines.lines().map(|it| serde_json::from_str(it).expect("json")).collect();
    let of = |path: &str| lines.iter().find(|it| it["path"] == path).expect("its line");
    assert_eq!((&of("/one")["status"], &of("/one")["bytes"]), (&200.into(), &5.into()));
    assert_eq!(of("/one")["upstream"], "web.1/1");
    assert_eq!(of("/two")["status"], 400);
}

/// Also of a request that nobody answered, and of a client that did not wait for its answer.
#[tokio::test]
async fn the_access_log_says_whose_the_request_was_that_came_to_nothing() {
    let mute = Instance::mute().await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let log = path.clone();
    let mut slow = route(&[&mute]);
    slow.spec.timeouts.response = Millis(1_000);
    slow.spec.retries.attempts = 0;
    let fleet = Fleet::with(slow, |config| config.access_log = Some(log)).await;
    let mut leaves = TcpStream::connect(fleet.http()).await.expect("a gateway");
    leaves.write_all(get("/left").as_bytes()).await.expect("it reads");
    eventually("its request", async || (mute.connections() > 0).then_some(())).await;
    drop(leaves);
    assert!(fleet.get("/late").await.starts_with("HTTP/1.1 504"));
    let lines = eventually("two lines", async || {
        let text = std::fs::read_to_string(&path).expect("text");
        (text.lines().count() == 2).then_some(text)
    })
    .await;
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect("json");
        let left = line["path"] == "/left";
        assert_eq!(
            (&line["service"], &line["upstream"]),
            (&"web".into(), &serde_json::Value::Null),
            "{line}"
        );
        assert_eq!(line["status"], if left { 0 } else { 504 }, "{line}");
        assert_eq!(line["attempts"], u32::from(!left), "{line}");
        let trouble = if left { "the client went away" } else { "the instance did not answer in time" };
        assert_eq!(line["trouble"], trouble, "{line}");
    }
}

/// With trailers too: the connection is kept, and nobody went away.
#[tokio::test]
async fn an_answer_with_trailers_is_whole() {
    let trails = Instance::new(|_, stream| {
        answer_all(stream, |_| {
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: 1\r\n\r\n".to_owned()
        })
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let log = path.clone();
    let fleet = Fleet::with(route(&[&trails]), |config| {
        (config.access_log, config.workers) = (Some(log), 1);
    })
    .await;
    for _ in 0..3 {
        assert!(fleet.get("/").await.contains("ok"));
    }
    let lines = eventually("three lines", async || {
        let text = std::fs::read_to_string(&path).expect("text");
        (text.lines().count() == 3).then_some(text)
    })
    .await;
    assert!(!lines.contains("trouble"), "{lines}");
    assert_eq!(trails.connections(), 1);
}

/// A WebSocket on which nothing passes any more is cut off, and its line says so; and an instance that makes ids of its own
/// does not make the client know the request by another id than the log.
#[tokio::test]
async fn a_silent_websocket_has_its_reason_and_a_request_has_one_id() {
    let odd = Instance::new(|_, mut stream| async move {
        let asked = crate::fleet::request(&mut stream).await.unwrap_or_default();
        let head = if asked.contains("websocket") {
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nX-Request-Id: theirs\r\n\r\n"
        } else {
            "HTTP/1.1 204 No Content\r\nConnection: close\r\nX-Request-Id: theirs\r\nX-Request-Id: again\r\n\r\n"
        };
        stream.write_all(head.as_bytes()).await.expect("it reads");
        std::future::pending::<()>().await;
    })
    .await;
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("access.log");
    let log = path.clone();
    let mut silent = route(&[&odd]);
    silent.spec.timeouts.idle = Millis(1_000);
    let fleet = Fleet::with(silent, |config| config.access_log = Some(log)).await;
    let switch = "GET /chat HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let answers = [fleet.get("/").await, fleet.ask(switch).await];
    let lines = eventually("two lines", async || {
        let text = std::fs::read_to_string(&path).expect("text");
        (text.lines().count() == 2).then_some(text)
    })
    .await;
    for (line, answer) in lines.lines().zip(answers) {
        let line: serde_json::Value = serde_json::from_str(line).expect("json");
        let id = format!("x-request-id: {}\r\n", line["id"].as_str().expect("an id"));
        assert_eq!((answer.matches("x-request-id").count(), answer.contains(&id)), (1, true), "{answer}");
        let silent = line["path"] == "/chat";
        assert_eq!(line["trouble"] == "both sides were silent for too long", silent, "{line}");
    }
}
