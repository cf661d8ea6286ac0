//! Copies: made beside the request, compared, counted, and never in its way.

use crate::fleet::{Fleet, Instance, answer_all, eventually, ok, releases, web};
use baton_model::evidence::ReleaseEvidence;
use baton_model::id::ReleaseNumber;
use baton_model::route::{Mirror, Route, Weight};
use baton_model::time::Millis;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

fn mirrored(live: &Instance, dark: &Instance) -> Route {
    let mut route = releases(&[(1, live), (2, dark)]);
    route.mirror = Some(Mirror {
        to: ReleaseNumber(2),
        share: Weight::ALL,
        body_bytes_max: 1000,
        in_flight_max: 100,
        unsafe_methods: false,
        compare_bodies: true,
    });
    route
}

fn of(fleet: &Fleet, release: u64) -> ReleaseEvidence {
    fleet.served.load().routes()[&web()].service().release(ReleaseNumber(release)).total()
}

async fn counted(fleet: &Fleet, what: &str, is: impl Fn(&ReleaseEvidence) -> bool) {
    eventually(what, async || is(&of(fleet, 2)).then_some(())).await;
}

#[tokio::test]
async fn the_same_answers_do_not_differ_and_others_do() {
    let (live, same, other) =
        (Instance::says("a").await, Instance::says("a").await, Instance::says("b").await);
    let mut fleet = Fleet::start(mirrored(&live, &same)).await;
    for _ in 0..5 {
        assert!(fleet.get("/").await.ends_with('a'));
    }
    counted(&fleet, "five copies", |it| it.status.successful == 5).await;
    assert_eq!((of(&fleet, 2).mirrored, of(&fleet, 2).differing), (5, 0));
    fleet.install(mirrored(&live, &other)).await;
    for _ in 0..5 {
        assert!(fleet.get("/").await.ends_with('a'));
    }
    counted(&fleet, "five that differ", |it| it.differing == 5).await;
}

#[tokio::test]
async fn what_the_live_release_says_differently_each_time_is_no_difference() {
    let numbered = async || {
        let count = Arc::new(AtomicUsize::new(0));
        Instance::new(move |_, stream| {
            let count = Arc::clone(&count);
            answer_all(stream, move |_| {
                let at = count.fetch_add(1, SeqCst);
                ok(&format!("{{\"at\": {at}, \"name\": \"ada\"}}"))
            })
        })
        .await
    };
    let (live, dark) = (numbered().await, numbered().await);
    let fleet = Fleet::start(mirrored(&live, &dark)).await;
    for _ in 0..5 {
        fleet.get("/").await;
    }
    counted(&fleet, "five copies", |it| it.status.successful >= 5).await;
    eventually("the end of all", async || {
        let table = fleet.served.load();
        table.upstreams().all(|it| it.in_flight() == 0).then_some(())
    })
    .await;
    assert_eq!(of(&fleet, 2).differing, 0);
}

#[tokio::test]
async fn a_mirror_that_hangs_slows_nobody_and_what_is_not_copied_is_counted() {
    let (live, hangs) = (Instance::says("a").await, Instance::mute().await);
    let mut few = mirrored(&live, &hangs);
    few.mirror.as_mut().expect("there").in_flight_max = 4;
    let fleet = Fleet::start(few).await;
    for _ in 0..10 {
        assert!(fleet.get("/").await.ends_with('a'));
    }
    counted(&fleet, "four under way at a time, and the others", |it| (it.mirrored, it.unmirrored) == (4, 6))
        .await;
}

/// What was drawn is copied, or counted, also where its client gets an error or goes away.
#[tokio::test]
async fn a_request_without_an_answer_is_copied_all_the_same() {
    let (live, dark) = (Instance::mute().await, Instance::says("a").await);
    let mut route = mirrored(&live, &dark);
    // The copy's too.
    route.spec.timeouts.response = Millis(2_000);
    route.spec.retries.attempts = 0;
    let fleet = Fleet::start(route).await;
    assert!(fleet.get("/").await.starts_with("HTTP/1.1 504"));
    counted(&fleet, "a copy of what the gateway answered", |it| it.status.successful == 1).await;
    assert_eq!(
        (of(&fleet, 2).mirrored, of(&fleet, 2).compared),
        (1, 0),
        "there is nothing to compare it with"
    );
}

#[tokio::test]
async fn unsafe_methods_and_large_bodies_are_not_copied_unless_allowed() {
    let (live, dark) = (Instance::says("a").await, Instance::says("a").await);
    let mut fleet = Fleet::start(mirrored(&live, &dark)).await;
    let post = |size: usize| {
        let body = "x".repeat(size);
        format!("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: {size}\r\n\r\n{body}")
    };
    fleet.ask(&post(10)).await;
    counted(&fleet, "one that is not copied", |it| (it.mirrored, it.unmirrored) == (0, 1)).await;
    let mut allowed = mirrored(&live, &dark);
    allowed.mirror.as_mut().expect("there").unsafe_methods = true;
    fleet.install(allowed).await;
    fleet.ask(&post(10)).await;
    fleet.ask(&post(2000)).await;
    counted(&fleet, "one copy and one too large", |it| it.mirrored == 1 && it.unmirrored == 2).await;
}
