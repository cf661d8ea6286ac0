//! Checks against real servers on loopback.

use super::*;
use crate::workload::tests::{spec, surroundings};
use baton_model::spec::Probe;
use baton_model::time::Millis;
use std::net::SocketAddr;
use std::path::Path;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

fn check_of(probe: Probe) -> Check {
    Check { probe, interval: Millis(40), timeout: Millis(20_000), rise: 1, fall: 2 }
}

fn http_of(path: &str, status: Option<u16>) -> Check {
    check_of(Probe::Http { port: "http".parse().unwrap(), path: path.to_owned(), status })
}

fn subject(port: u16) -> Subject {
    let around = surroundings(Path::new("/"), &[("http", port)]);
    Subject {
        run: RunNumber(7),
        was_ready: false,
        spec: Arc::new(spec()),
        dial: Dial {
            address: around.address,
            ports: around.ports.clone(),
            paths: Default::default(),
            steering: Default::default(),
        },
        around: Arc::new(around),
        confined: Default::default(),
        notified: tokio::sync::watch::Sender::new(RunState::default()).subscribe(),
    }
}

/// A server that answers each connection with `answer`, after reading the head of a request.
async fn server(answer: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 1024];
                let n = stream.read(&mut head).await.unwrap_or(0);
                let host = String::from_utf8_lossy(&head[..n]).to_lowercase();
                assert!(n == 0 || host.contains("host: 127.0.0.1:"), "{host}");
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn http_checks_pass_from_200_to_399_or_on_the_one_status() {
    for (answer, status, expect) in [
        ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok", None, None),
        ("HTTP/1.1 204 No Content\r\n\r\n", None, None),
        ("HTTP/1.0 302 Found\r\nlocation: /x\r\n\r\n", None, None),
        ("HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n", None, Some("status 500")),
        ("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n", None, Some("status 404")),
        ("HTTP/1.1 418 I'm a teapot\r\ncontent-length: 0\r\n\r\n", Some(418), None),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", Some(418), Some("status 200")),
        ("", None, Some("closed before an answer")),
        ("SSH-2.0-OpenSSH_9.2\r\n", None, Some("GET /healthz on 127.0.0.1:")),
    ] {
        let address = server(answer).await;
        let asked = probe::ask(&subject(address.port()), &http_of("/healthz", status)).await;
        match expect {
            None => assert_eq!(asked, Ok(()), "{answer:?}"),
            Some(words) => {
                let detail = asked.unwrap_err();
                assert!(detail.contains(words), "{answer:?}: {detail}");
                assert!(detail.starts_with(&format!("GET /healthz on {address}: ")), "{detail}");
            }
        }
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_or_does_not_answer_is_told_as_such() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let mut slow = http_of("/", None);
    slow.timeout = Millis(50);
    let detail = probe::ask(&subject(address.port()), &slow).await.unwrap_err();
    assert_eq!(detail, format!("GET / on {address}: no answer within 50ms"));
    let tcp = check_of(Probe::Tcp { port: "http".parse().unwrap() });
    assert_eq!(probe::ask(&subject(address.port()), &tcp).await, Ok(()));
    for check in [&tcp, &http_of("/", None)] {
        let detail = probe::ask(&subject(1), check).await.unwrap_err();
        assert_eq!(detail, "connect to 127.0.0.1:1: connection refused");
    }
    let other = check_of(Probe::Tcp { port: "admin".parse().unwrap() });
    assert_eq!(probe::ask(&subject(1), &other).await.unwrap_err(), "this run has no port `admin`");
}

#[tokio::test]
async fn grpc_checks_ask_the_health_service() {
    let (reporter, service) = tonic_health::server::health_reporter();
    reporter.set_service_status("web", tonic_health::ServingStatus::Serving).await;
    reporter.set_service_status("down", tonic_health::ServingStatus::NotServing).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(service)
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)),
    );
    let grpc =
        |service: &str| check_of(Probe::Grpc { port: "http".parse().unwrap(), service: service.to_owned() });
    assert_eq!(probe::ask(&subject(port), &grpc("web")).await, Ok(()));
    assert_eq!(probe::ask(&subject(port), &grpc("")).await, Ok(()));
    let detail = probe::ask(&subject(port), &grpc("down")).await.unwrap_err();
    assert_eq!(detail, format!("gRPC health on 127.0.0.1:{port}: NOT_SERVING"));
    assert!(probe::ask(&subject(port), &grpc("nope")).await.is_err());
    let plain = server("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
    assert!(probe::ask(&subject(plain.port()), &grpc("")).await.is_err());
}

/// Rise and fall of a real health service: `rise` good answers in a row make it ready, `fall` bad ones end that.
#[tokio::test]
async fn grpc_checks_rise_and_fall_with_the_health_service() {
    let (reporter, service) = tonic_health::server::health_reporter();
    let asked = Arc::new(std::sync::atomic::AtomicU32::new(0));
    let count = Arc::clone(&asked);
    let counted = tonic::service::interceptor::InterceptorLayer::new(move |request: tonic::Request<()>| {
        count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        Ok(request)
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut subject = subject(listener.local_addr().unwrap().port());
    tokio::spawn(
        tonic::transport::Server::builder()
            .layer(counted)
            .add_service(service)
            .serve_with_incoming(tokio_stream::wrappers::TcpListenerStream::new(listener)),
    );
    let tell = async |serves: bool| {
        let status = if serves {
            tonic_health::ServingStatus::Serving
        } else {
            tonic_health::ServingStatus::NotServing
        };
        reporter.set_service_status("web", status).await;
        asked.load(std::sync::atomic::Ordering::SeqCst)
    };
    let more_than = |before: u32| asked.load(std::sync::atomic::Ordering::SeqCst) - before;
    let mut spec = spec();
    let probe = Probe::Grpc { port: "http".parse().unwrap(), service: "web".to_owned() };
    spec.checks.readiness = Some(Check { rise: 3, fall: 4, ..check_of(probe) });
    subject.spec = Arc::new(spec);
    tell(false).await;
    let (sender, mut events) = mpsc::channel(4);
    let task = tokio::spawn(watch(subject, sender));
    let first = next(&mut events).await;
    assert!(
        matches!(&first, Event::Health { ready: false, detail, .. } if detail.contains("NOT_SERVING")),
        "{first:?}"
    );
    // An answer may be on its way while the status is changed: it is one of those before.
    let before = tell(true).await;
    assert!(matches!(next(&mut events).await, Event::Health { ready: true, .. }));
    assert!(more_than(before) >= 3, "ready after {} answers, asked for 3", more_than(before));
    let before = tell(false).await;
    let fallen = next(&mut events).await;
    assert!(
        matches!(&fallen, Event::Health { ready: false, detail, .. } if detail.contains("NOT_SERVING")),
        "{fallen:?}"
    );
    assert!(more_than(before) >= 4, "not ready after {} answers, asked for 4", more_than(before));
    task.abort();
}

#[tokio::test]
async fn exec_checks_tell_how_the_command_ended() {
    let exec = |script: &str| {
        let command = ["/bin/sh", "-c", script].map(str::to_owned).to_vec();
        check_of(Probe::Exec { command })
    };
    let subject = subject(80);
    assert_eq!(probe::ask(&subject, &exec("exit 0")).await, Ok(()));
    assert_eq!(probe::ask(&subject, &exec("test $PORT_HTTP = 80 && test $BATON_NODE = n1")).await, Ok(()));
    let detail = probe::ask(&subject, &exec("echo no disk >&2; exit 3")).await.unwrap_err();
    assert!(detail.ends_with("exit status: 3: no disk"), "{detail}");
    let slow = Check { timeout: Millis(300), ..exec("sleep 60") };
    let detail = probe::ask(&subject, &slow).await.unwrap_err();
    assert!(detail.contains("no answer within") || detail.contains("killed"), "{detail}");
    let missing = check_of(Probe::Exec { command: vec!["/no/such/program".to_owned()] });
    let detail = probe::ask(&subject, &missing).await.unwrap_err();
    assert!(detail.contains("no such file"), "{detail}");
}

#[tokio::test]
async fn what_a_timed_out_command_started_is_killed_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!("sleep 60 & echo $! > {0}.new; mv {0}.new {0}; wait", file.display());
    let mut check = check_of(Probe::Exec { command: vec!["/bin/sh".into(), "-c".into(), script] });
    // Time enough to start its child, also on a machine that is busy.
    check.timeout = Millis(5_000);
    assert!(probe::ask(&subject(80), &check).await.is_err());
    let pid = std::fs::read_to_string(&file).unwrap();
    let stat = format!("/proc/{}/stat", pid.trim());
    for _ in 0..3_000 {
        // Gone, or a zombie that waits for init.
        let state = std::fs::read_to_string(&stat).unwrap_or_default();
        if state.is_empty() || state.contains(") Z ") {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("the command's child still runs");
}

async fn next(events: &mut mpsc::Receiver<(InstanceId, Event)>) -> Event {
    tokio::time::timeout(Duration::from_secs(60), events.recv()).await.unwrap().unwrap().1
}

#[tokio::test]
async fn a_run_without_checks_is_ready_at_once() {
    let (sender, mut events) = mpsc::channel(4);
    tokio::spawn(watch(subject(1), sender));
    assert_eq!(
        next(&mut events).await,
        Event::Health { run: RunNumber(7), ready: true, detail: String::new() }
    );
}

#[tokio::test]
async fn readiness_follows_the_server_and_liveness_comes_after_startup() {
    let folder = tempfile::tempdir().unwrap();
    let [started, ready, alive] = ["started", "ready", "alive"].map(|name| folder.path().join(name));
    let exists = |path: &Path| {
        Some(check_of(Probe::Exec {
            command: vec!["/usr/bin/test".into(), "-e".into(), path.display().to_string()],
        }))
    };
    let mut subject = subject(1);
    let mut spec = spec();
    spec.checks.startup = exists(&started);
    spec.checks.startup.as_mut().unwrap().fall = 1_000;
    spec.checks.readiness = exists(&ready);
    spec.checks.liveness = exists(&alive);
    subject.spec = Arc::new(spec);
    let (sender, mut events) = mpsc::channel(4);
    let task = tokio::spawn(watch(subject, sender));

    let first = next(&mut events).await;
    assert!(
        matches!(&first, Event::Health { ready: false, detail, .. } if detail.starts_with("startup check:")),
        "{first:?}"
    );
    std::fs::write(&alive, "").unwrap();
    std::fs::write(&started, "").unwrap();
    let second = next(&mut events).await;
    assert!(
        matches!(&second, Event::Health { ready: false, detail, .. } if detail.starts_with("readiness check:")),
        "{second:?}"
    );
    std::fs::write(&ready, "").unwrap();
    assert!(matches!(next(&mut events).await, Event::Health { ready: true, .. }));
    std::fs::remove_file(&ready).unwrap();
    assert!(matches!(next(&mut events).await, Event::Health { ready: false, .. }));
    std::fs::remove_file(&alive).unwrap();
    let last = next(&mut events).await;
    assert!(
        matches!(&last, Event::NotLive { detail, .. } if detail.starts_with("liveness check:")),
        "{last:?}"
    );
    task.abort();
}

#[tokio::test]
async fn a_startup_check_that_fails_for_good_asks_for_a_restart() {
    let mut subject = subject(1);
    let mut spec = spec();
    spec.checks.startup = Some(check_of(Probe::Exec { command: vec!["/bin/false".into()] }));
    subject.spec = Arc::new(spec);
    let (sender, mut events) = mpsc::channel(4);
    let task = tokio::spawn(watch(subject, sender));
    assert!(matches!(next(&mut events).await, Event::Health { ready: false, .. }));
    assert!(matches!(next(&mut events).await, Event::NotLive { .. }));
    task.abort();
}

#[tokio::test]
async fn a_run_that_was_ready_stays_so_until_it_fails_for_good() {
    let mut subject = subject(1);
    subject.was_ready = true;
    let mut spec = spec();
    let mut check = check_of(Probe::Exec { command: vec!["/bin/false".into()] });
    check.fall = 3;
    spec.checks.startup = Some(check.clone());
    spec.checks.readiness = Some(check);
    subject.spec = Arc::new(spec);
    let (sender, mut events) = mpsc::channel(4);
    let began = Instant::now();
    let task = tokio::spawn(watch(subject, sender));
    let first = next(&mut events).await;
    assert!(
        matches!(&first, Event::Health { ready: false, detail, .. } if detail.starts_with("readiness")),
        "{first:?}"
    );
    assert!(began.elapsed() >= Duration::from_millis(80), "one failure is not enough");
    task.abort();
}

#[tokio::test]
async fn one_that_says_that_it_is_stopping_is_no_longer_ready_with_checks_or_without() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    for readiness in [None, Some(check_of(Probe::Tcp { port: "http".parse().unwrap() }))] {
        let said = tokio::sync::watch::Sender::new(RunState::default());
        let mut spec = spec();
        spec.checks = Default::default();
        spec.checks.readiness = readiness;
        let subject = Subject { spec: Arc::new(spec), notified: said.subscribe(), ..subject(port) };
        let (events, mut told) = mpsc::channel(8);
        let watching = tokio::spawn(watch(subject, events));
        for expect in [true, false] {
            match told.recv().await {
                Some((_, Event::Health { ready, detail, .. })) => assert_eq!(ready, expect, "{detail}"),
                other => panic!("{other:?}"),
            }
            said.send_modify(|state| state.notified.stopping = true);
        }
        watching.await.unwrap();
    }
}
