//! Waiting: for room, for an instance, for the end of a planned switch; bounded in number and in time.

use crate::fleet::{Fleet, Instance, ask, eventually, get, ok, releases, request, route, web};
use baton_model::id::ReleaseNumber;
use baton_model::route::{Split, Weight};
use baton_model::time::Millis;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

fn waiting(fleet: &Fleet) -> u32 {
    fleet.served.load().routes()[&web()].service().waiting()
}

#[tokio::test]
async fn requests_wait_through_a_switch_and_go_to_the_new_release() {
    let (old, new) = (Instance::says("old").await, Instance::says("new").await);
    let mut fleet = Fleet::start(releases(&[(1, &old), (2, &new)])).await;
    assert!(fleet.get("/").await.ends_with("old"));
    let mut held = releases(&[(1, &old), (2, &new)]);
    held.held = true;
    fleet.install(held).await;
    let address = fleet.http();
    let asked: Vec<_> = (0..5).map(|_| tokio::spawn(async move { ask(address, &get("/")).await })).collect();
    eventually("five that wait", async || (waiting(&fleet) == 5).then_some(())).await;
    let mut switched = releases(&[(1, &old), (2, &new)]);
    switched.split = Split { weights: BTreeMap::from([(ReleaseNumber(2), Weight::ALL)]) };
    fleet.install(switched).await;
    for answer in asked {
        assert!(answer.await.expect("joined").ends_with("new"));
    }
    assert_eq!(waiting(&fleet), 0);
}

#[tokio::test]
async fn more_than_may_wait_are_refused_at_once() {
    let says = Instance::says("well").await;
    let mut held = route(&[&says]);
    held.held = true;
    held.spec.limits.queue_max = 2;
    let mut fleet = Fleet::start(held).await;
    let address = fleet.http();
    let asked: Vec<_> = (0..2).map(|_| tokio::spawn(async move { ask(address, &get("/")).await })).collect();
    eventually("two that wait", async || (waiting(&fleet) == 2).then_some(())).await;
    let answer = fleet.get("/").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("retry-after"), "{answer}");
    fleet.install(route(&[&says])).await;
    for answer in asked {
        assert!(answer.await.expect("joined").ends_with("well"));
    }
}

#[tokio::test]
async fn one_waits_for_room_and_gets_it() {
    let doors = Arc::new(Semaphore::new(0));
    let gate = Arc::clone(&doors);
    let slow = Instance::new(move |_, mut stream| {
        let gate = Arc::clone(&gate);
        async move {
            while request(&mut stream).await.is_some() {
                gate.acquire().await.expect("open").forget();
                if stream.write_all(ok("well").as_bytes()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let mut narrow = route(&[&slow]);
    narrow.spec.limits.in_flight_max = 1;
    let fleet = Fleet::start(narrow).await;
    let address = fleet.http();
    let asked: Vec<_> = (0..4).map(|_| tokio::spawn(async move { ask(address, &get("/")).await })).collect();
    eventually("three that wait", async || (waiting(&fleet) == 3).then_some(())).await;
    doors.add_permits(4);
    for answer in asked {
        assert!(answer.await.expect("joined").ends_with("well"));
    }
}

#[tokio::test]
async fn a_service_whose_only_instance_is_exchanged_fails_no_request() {
    let old = Instance::says("old").await;
    let mut fleet = Fleet::start(route(&[&old])).await;
    fleet.install(route(&[])).await;
    let address = fleet.http();
    let asked = tokio::spawn(async move { ask(address, &get("/")).await });
    eventually("one that waits", async || (waiting(&fleet) == 1).then_some(())).await;
    let new = Instance::says("new").await;
    fleet.install(route(&[&new])).await;
    assert!(asked.await.expect("joined").ends_with("new"));
}

#[tokio::test]
async fn a_wait_ends() {
    let says = Instance::says("well").await;
    let mut held = route(&[&says]);
    held.held = true;
    held.spec.limits.queue_timeout = Millis(200);
    let fleet = Fleet::start(held).await;
    assert!(fleet.get("/").await.starts_with("HTTP/1.1 503"));
}
