//! The whole agent with real shims, a real server as workload, and the wire's other end: deploy, swap under load,
//! heal, refuse, restart, remove.

mod node;
mod whole;
mod wire;

use baton_proto::v1::{self, InstanceState};
use node::{eventually, kill, lives};
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use whole::Fixture;

fn get(port: u16) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    stream.set_read_timeout(Some(node::WITHIN))?;
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    if text.starts_with("HTTP/1.0 200") { Ok(text) } else { Err(std::io::Error::other(text)) }
}

/// Requests one after another until it is stopped.
struct Load {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU32>,
    thread: std::thread::JoinHandle<Vec<String>>,
}

impl Load {
    fn on(port: u16) -> Self {
        let (stop, sent) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU32::new(0)));
        let (stopped, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let thread = std::thread::spawn(move || {
            let mut failed = Vec::new();
            while !stopped.load(Ordering::Relaxed) {
                count.fetch_add(1, Ordering::Relaxed);
                if let Err(error) = get(port) {
                    failed.push(error.to_string());
                }
            }
            failed
        });
        Self { stop, sent, thread }
    }

    fn end(self) -> (u32, Vec<String>) {
        self.stop.store(true, Ordering::Relaxed);
        (self.sent.load(Ordering::Relaxed), self.thread.join().unwrap())
    }
}

#[tokio::test]
async fn a_service_is_deployed_swapped_under_load_healed_and_removed() {
    let f = Fixture::new().await;
    let agent = f.agent();
    f.deploy(1, Some(f.release(1, "1.0")));
    let first = f.ready(1).await;
    assert!(get(f.port).unwrap().ends_with("1.0"));

    let load = Load::on(f.port);
    f.deploy(2, Some(f.release(2, "2.0")));
    let second = f.ready(2).await;
    eventually("the old process is gone", || async { !lives(first) }).await;
    let (sent, failed) = load.end();
    assert!(sent > 0);
    assert_eq!(failed, Vec::<String>::new(), "of {sent} requests");
    assert!(get(f.port).unwrap().ends_with("2.0"));
    let swapped = f.until_event("swap-done").await;
    assert!(swapped.fields.contains_key("total_ms"), "{swapped:?}");

    let load = Load::on(f.port);
    f.deploy(3, Some(f.release(3, "bad-3")));
    let refused = f.until_event("swap-failed").await;
    assert!(refused.message.contains("status 500"), "{}", refused.message);
    let swap_failed =
        || f.seen().and_then(|seen| seen.swap).is_some_and(|swap| swap.phase() == v1::SwapPhase::Failed);
    eventually("the candidate is gone", || async { swap_failed() }).await;
    let (sent, failed) = load.end();
    assert_eq!(failed, Vec::<String>::new(), "of {sent} requests");
    assert!(lives(second));

    f.deploy(4, Some(f.release(2, "2.0")));
    f.ready(2).await;
    kill(second);
    eventually("it is healed", || async { f.seen().is_some_and(|seen| seen.restarts == 1) }).await;
    let third = f.ready(2).await;
    assert_ne!(second, third);
    let exited = f.until_event("instance-exited").await;
    assert_eq!(exited.fields["exit"], "signal 9");

    f.wire.ask_logs.send_replace(Some(v1::LogRequest {
        request: 9,
        service: "web".into(),
        tail_lines: 1,
        ..Default::default()
    }));
    eventually("logs come", || async { f.wire.logs.lock().unwrap().iter().any(|lines| lines.end) }).await;
    let lines: Vec<_> = f.wire.logs.lock().unwrap().iter().flat_map(|lines| lines.lines.clone()).collect();
    assert_eq!(lines.len(), 1);
    assert_eq!((lines[0].instance.as_str(), &lines[0].text[..]), ("web.1", &b"serving 2.0"[..]));
    eventually("metrics come", || async {
        f.wire
            .metrics
            .borrow()
            .as_ref()
            .is_some_and(|node| node.instances.get("web.1").is_some_and(|i| i.processes == 1))
    })
    .await;

    f.deploy(5, None);
    f.until_event("instance-removed").await;
    assert!(!lives(third));
    // The event and the observation are two messages.
    eventually("it is reported no more", || async { f.seen().is_none() }).await;
    eventually("nobody listens", || async { TcpStream::connect(("127.0.0.1", f.port)).is_err() }).await;
    eventually("its folder is gone", || async { !f.folder.path().join("instances/web.1").exists() }).await;
    agent.stop();
}

#[tokio::test]
async fn a_lost_shim_costs_only_what_was_in_flight() {
    let f = Fixture::new().await;
    let agent = f.agent();
    f.deploy(1, Some(f.release(1, "1.0")));
    let mut pid = f.ready(1).await;
    let load = Load::on(f.port);
    for _ in 0..3 {
        kill(node::parent(pid));
        eventually("it runs anew", || async {
            f.seen().is_some_and(|seen| seen.pid.is_some_and(|p| p != pid))
        })
        .await;
        pid = f.ready(1).await;
    }
    let (sent, failed) = load.end();
    assert!(failed.len() <= 3, "one request at a time was sent, {sent} in all: {failed:?}");
    assert!(failed.iter().all(|error| !error.contains("refused")), "{failed:?}");
    f.deploy(2, None);
    f.until_event("instance-removed").await;
    agent.stop();
}

#[tokio::test]
async fn a_shim_lost_with_the_agent_is_replaced_while_the_old_run_drains() {
    let f = Fixture::new().await;
    let agent = f.agent();
    f.deploy(1, Some(f.release(1, "1.0")));
    let first = f.ready(1).await;
    let held = TcpStream::connect(("127.0.0.1", f.port)).unwrap();
    f.deploy(2, Some(f.release(2, "2.0")));
    f.until_event("swap-done").await;
    // The event and the observation are two messages.
    let new = || f.seen().and_then(|seen| seen.pid).filter(|pid| *pid != first);
    eventually("the new process is reported", || async { new().is_some() }).await;
    let second = new().unwrap();
    agent.stop();
    assert!(lives(first), "the old run drains");
    kill(node::parent(second));
    let agent = f.agent();
    eventually("it runs anew", || async {
        f.seen().is_some_and(|seen| {
            seen.pid.is_some_and(|pid| pid != second) && seen.state() == InstanceState::Ready
        })
    })
    .await;
    assert!(f.wire.event("instance-not-started").is_none(), "the port is its own instance's");
    drop(held);
    eventually("the old run is gone", || async { !lives(first) }).await;
    f.ready(2).await;
    assert!(get(f.port).unwrap().ends_with("2.0"));
    f.deploy(3, None);
    f.until_event("instance-removed").await;
    eventually("nobody listens", || async { TcpStream::connect(("127.0.0.1", f.port)).is_err() }).await;
    agent.stop();
}

#[tokio::test]
async fn an_agent_that_was_away_takes_over_without_a_coordinator() {
    let mut f = Fixture::new().await;
    let agent = f.agent();
    f.deploy(1, Some(f.release(1, "1.0")));
    let first = f.ready(1).await;
    let load = Load::on(f.port);
    agent.stop();
    assert!(lives(first), "the workload outlives its agent");
    f.server.abort();

    let agent = f.agent();
    // Alone, it goes on checking and healing; both are seen when the coordinator is back.
    let (before, sent) = (load.sent.load(Ordering::Relaxed), || load.sent.load(Ordering::Relaxed));
    eventually("it is used meanwhile", || async { sent() > before + 100 }).await;
    let (sent, failed) = load.end();
    assert_eq!(failed, Vec::<String>::new(), "of {sent} requests");
    kill(first);
    f.wire.observed.send_replace(v1::Observed::default());
    (_, f.server) = f.wire.serve(&f.authority, f.address).await;
    let second = f.ready(1).await;
    assert_ne!(first, second);
    let adopted = f.until_event("adopted").await;
    assert_eq!((adopted.fields["count"].as_str(), adopted.fields["lost"].as_str()), ("1", "0"));
    f.until_event("instance-exited").await;

    // An older plan is refused; the state stays what it is.
    f.deploy(0, None);
    f.until_event("plan-refused").await;
    assert!(lives(second));
    f.deploy(2, None);
    f.until_event("instance-removed").await;
    assert!(!lives(second));
    agent.stop();
}

#[tokio::test]
async fn a_release_that_cannot_run_here_is_refused_with_a_reason() {
    let f = Fixture::new().await;
    let agent = f.agent();
    let mut plan = f.release(1, "1.0");
    plan.spec.exec = vec!["no/such/program".into()];
    f.deploy(1, Some(plan));
    let told = f.until_event("release-not-staged").await;
    assert!(told.message.contains("no/such/program"), "{}", told.message);
    eventually("it is failed", || async {
        f.seen().is_some_and(|seen| seen.state() == InstanceState::Failed)
    })
    .await;
    f.deploy(2, Some(f.release(2, "2.0")));
    f.ready(2).await;
    f.deploy(3, None);
    f.until_event("instance-removed").await;
    agent.stop();
}
