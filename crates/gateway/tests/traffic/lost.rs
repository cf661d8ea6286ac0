//! Instances that are gone, stopped or cut off, without any sign to the gateway: what may be asked again is asked
//! elsewhere, and what may not is not.

use crate::fleet::{Fleet, Instance, eventually, nowhere, ok, request, route};
use baton_model::time::Millis;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use tokio::io::AsyncWriteExt as _;

/// Reads a request, counts it, and ends the connection without a word.
async fn dying(seen: &Arc<AtomicUsize>) -> Instance {
    let seen = Arc::clone(seen);
    Instance::new(move |_, mut stream| {
        let seen = Arc::clone(&seen);
        async move {
            if request(&mut stream).await.is_some() {
                seen.fetch_add(1, SeqCst);
            }
        }
    })
    .await
}

/// An address where nobody listens.
async fn nobody() -> Instance {
    let mut gone = Instance::says("").await;
    gone.address = nowhere();
    gone
}

fn post(body: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

#[tokio::test]
async fn a_request_that_reached_nobody_goes_to_another_whatever_it_is() {
    let (gone, says) = (nobody().await, Instance::echo().await);
    let fleet = Fleet::start(route(&[&gone, &says])).await;
    let large = "x".repeat(80_000);
    for request in [crate::fleet::get("/"), post("hello"), post(&large)] {
        for _ in 0..4 {
            let answer = fleet.ask(&request).await;
            assert!(answer.starts_with("HTTP/1.1 200"), "{}", &answer[..answer.len().min(300)]);
        }
    }
}

#[tokio::test]
async fn what_may_be_repeated_is_and_what_may_not_is_answered_502() {
    let seen = Arc::new(AtomicUsize::new(0));
    let (dies, says) = (dying(&seen).await, Instance::says("well").await);
    let fleet = Fleet::start(route(&[&dies, &says])).await;
    for _ in 0..8 {
        assert!(fleet.get("/").await.ends_with("well"));
    }
    assert!(seen.load(SeqCst) >= 3, "the dying one was asked too");
    let mut broken = 0;
    for _ in 0..8 {
        let before = seen.load(SeqCst);
        let answer = fleet.ask(&post("pay")).await;
        let reached = seen.load(SeqCst) - before;
        assert!(reached <= 1, "sent twice");
        assert_eq!(answer.starts_with("HTTP/1.1 502"), reached == 1, "{answer}");
        broken += reached;
    }
    assert!(broken > 0, "no request met the dying one");
}

#[tokio::test]
async fn a_stopped_instance_is_not_waited_for() {
    let (stopped, says) = (Instance::mute().await, Instance::says("well").await);
    let mut hedged = route(&[&stopped, &says]);
    hedged.spec.retries.hedge_after = Millis(50);
    let fleet = Fleet::start(hedged).await;
    for _ in 0..8 {
        assert!(fleet.get("/").await.ends_with("well"));
    }
    assert!(stopped.connections() > 0, "it was never asked");
    let in_flight = || fleet.served.load().upstreams().map(|it| it.in_flight()).sum::<u64>();
    eventually("the end of the tries that were outrun", async || (in_flight() == 0).then_some(())).await;
}

#[tokio::test]
async fn what_may_not_be_sent_twice_waits_for_its_time_and_is_answered_504() {
    let seen = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&seen);
    let slow = Instance::new(move |_, mut stream| {
        let counted = Arc::clone(&counted);
        async move {
            request(&mut stream).await;
            counted.fetch_add(1, SeqCst);
            std::future::pending::<()>().await;
        }
    })
    .await;
    let other = Instance::says("well").await;
    let mut timed = route(&[&slow, &other]);
    timed.spec.retries.hedge_after = Millis(50);
    timed.spec.timeouts.response = Millis::secs(3);
    let fleet = Fleet::start(timed).await;
    let mut late = 0;
    for _ in 0..4 {
        let answer = fleet.ask(&post("pay")).await;
        assert!(answer.starts_with("HTTP/1.1 504") || answer.ends_with("well"), "{answer}");
        late += usize::from(answer.starts_with("HTTP/1.1 504"));
    }
    assert!(late > 0 && seen.load(SeqCst) == late, "each reached it once, and none was sent twice");
}

#[tokio::test]
async fn a_kept_connection_that_was_closed_costs_no_request() {
    // One answer on each connection, which then ends without having said so.
    let once = Instance::new(|_, mut stream| async move {
        if request(&mut stream).await.is_some() {
            stream.write_all(ok("once").as_bytes()).await.expect("it reads");
        }
    })
    .await;
    let mut single = route(&[&once]);
    single.spec.retries.attempts = 0;
    let fleet = Fleet::with(single, |config| config.workers = 1).await;
    for _ in 0..50 {
        let answer = fleet.get("/").await;
        // Without a try left, only a connection that was found closed before anything was sent helps.
        assert!(answer.ends_with("once"), "{answer}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn without_any_instance_a_request_waits_and_then_is_told_to_come_again() {
    let mut none = route(&[]);
    none.spec.limits.queue_timeout = Millis(200);
    none.split = baton_model::route::Split::default();
    let fleet = Fleet::start(none).await;
    let answer = fleet.get("/").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after: 1\r\n"), "{answer}");
}

/// What waits for an instance to be free, and counts what is cut in the end, does not wait for a request that is with
/// another one too, and counts none twice.
#[tokio::test]
async fn a_request_that_is_with_two_instances_is_waited_for_at_one() {
    let (one, other) = (Instance::mute().await, Instance::mute().await);
    let mut hedged = route(&[&one, &other]);
    hedged.spec.retries.hedge_after = Millis(50);
    hedged.spec.timeouts.response = Millis::secs(120);
    let mut fleet = Fleet::start(hedged.clone()).await;
    let mut stream = tokio::net::TcpStream::connect(fleet.http()).await.expect("a gateway");
    stream.write_all(crate::fleet::get("/").as_bytes()).await.expect("it reads");
    eventually("its hedge", async || (fleet.in_flight() == 2).then_some(())).await;
    let leaving = |fleet: &Fleet| fleet.served.load().leaving().map(|it| it.in_flight()).sum::<u64>();
    hedged.upstreams.retain(|id, _| id.instance.slot == 2);
    fleet.install(hedged.clone()).await;
    eventually("end of the try at the one that left", async || (leaving(&fleet) == 0).then_some(())).await;
    assert_eq!(fleet.in_flight(), 1, "the other has it");
    hedged.upstreams.clear();
    fleet.install(hedged).await;
    assert_eq!(leaving(&fleet), 1, "the last one is waited for");
}
