//! What is counted is told once, and the page's names stay.

use super::{Reporter, prometheus};
use crate::evidence::counters::{ReleaseEvent, ServiceEvent};
use crate::fixture::{fleet, sent, service, web};
use baton_metrics::page::documented;
use baton_model::evidence::{Evidence, ReleaseEvidence};
use baton_model::id::{ReleaseNumber, TableRevision};
use baton_model::route::RouteTable;
use baton_model::time::Millis;
use http::StatusCode;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;

fn of_release(evidence: &Evidence, release: u64) -> ReleaseEvidence {
    evidence.services[&service("web")].releases.get(&ReleaseNumber(release)).cloned().unwrap_or_default()
}

#[test]
fn each_report_has_what_came_since_the_last() {
    let (served, now) = (fleet(1).served(), Instant::now());
    let mut reporter = Reporter::new(now);
    let mut report = |seconds| reporter.next(&served.load(), now + Duration::from_secs(seconds));
    let route = web(&served);
    let mut held = sent(&route, "x", now);
    held.answered(StatusCode::OK, Duration::from_millis(20), now);
    sent(&route, "x", now).failed(now);
    drop(sent(&route, "x", now));
    let first = report(2);
    assert_eq!((first.span, first.services[&service("web")].requests), (Millis(2_000), 3));
    let counted = of_release(&first, 1);
    assert_eq!(
        (counted.status.successful, counted.failures, counted.cancelled, counted.in_flight),
        (1, 1, 1, 1)
    );
    assert_eq!((counted.latency.total(), counted.latency.sum_us()), (1, 20_000));
    held.failed(now);
    let second = report(3);
    let counted = of_release(&second, 1);
    assert_eq!(second.span, Millis(1_000));
    assert_eq!((counted.broken, counted.in_flight, counted.ended(), counted.latency.total()), (1, 0, 0, 0));
    assert_eq!(of_release(&report(4), 1), ReleaseEvidence::default());
}

#[test]
fn what_leaves_the_table_is_told_to_its_end_and_then_forgotten() {
    let mut fleet = fleet(1);
    fleet.add(2, 2);
    fleet.weights(&[(1, 0), (2, 10_000)]);
    let (served, now) = (fleet.served(), Instant::now());
    let mut reporter = Reporter::new(now);
    let mut report = || reporter.next(&served.load(), now);
    let mut held = sent(&web(&served), "x", now);
    report();
    fleet.remove(2);
    fleet.weights(&[(1, 10_000)]);
    fleet.next(&served, now);
    assert_eq!(of_release(&report(), 2).in_flight, 1);
    held.answered(StatusCode::OK, Duration::from_millis(1), now);
    drop(held);
    assert_eq!(of_release(&report(), 2).status.successful, 1);
    assert!(!report().services[&service("web")].releases.contains_key(&ReleaseNumber(2)), "forgotten");

    let mut last = sent(&web(&served), "x", now);
    let gone = RouteTable { revision: TableRevision(9), routes: BTreeMap::new() };
    served.install(&gone, now).expect("an empty table");
    assert_eq!(of_release(&report(), 1).in_flight, 1, "the service is gone, its request is not");
    last.answered(StatusCode::OK, Duration::from_millis(1), now);
    drop(last);
    assert_eq!(of_release(&report(), 1).status.successful, 1);
    assert!(report().services.is_empty());
}

#[test]
fn a_service_that_is_back_counts_anew_and_nothing_is_lost() {
    let mut fleet = fleet(1);
    let (served, now) = (fleet.served(), Instant::now());
    let mut reporter = Reporter::new(now);
    let mut first = sent(&web(&served), "x", now);
    reporter.next(&served.load(), now);
    let gone = RouteTable { revision: TableRevision(5), routes: BTreeMap::new() };
    served.install(&gone, now).expect("an empty table");
    fleet.revision = 5;
    fleet.next(&served, now);
    first.answered(StatusCode::OK, Duration::from_millis(1), now);
    sent(&web(&served), "x", now).answered(StatusCode::OK, Duration::from_millis(1), now);
    let counted = of_release(&reporter.next(&served.load(), now), 1);
    assert_eq!((counted.status.successful, counted.in_flight), (2, 1), "of both lives");
}

#[test]
fn threads_count_together() {
    let served = fleet(1).served();
    let route = web(&served);
    let counters = route.service().release(ReleaseNumber(1));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for us in 0..10_000_u64 {
                    counters.answered(ReleaseEvent::Successful, Duration::from_micros(us));
                    route.service().counters.count(ServiceEvent::Request);
                }
            });
        }
    });
    let total = counters.total();
    assert_eq!((total.status.successful, total.latency.total()), (40_000, 40_000));
    assert_eq!(total.latency.sum_us(), 4 * (0..10_000).sum::<u64>());
    assert_eq!(route.service().counters.total().requests, 40_000);
}

/// The names, labels and types of docs/metrics.md: dashboards and alerts of others depend on them.
#[test]
fn the_page_is_as_documented() {
    let (served, now) = (fleet(1).served(), Instant::now());
    sent(&web(&served), "x", now).answered(StatusCode::OK, Duration::from_millis(7), now);
    let page = prometheus::text(&served.load(), now);
    let missing = documented::missing(&page, include_str!("../../../../docs/metrics.md"));
    assert!(missing.is_empty(), "docs/metrics.md has not:\n{missing:#?}");
    assert_eq!(documented::rows(&page).len(), 24, "{page}");
    for sample in [
        "baton_gateway_requests_total{service=\"web\"} 1",
        "baton_gateway_answers_total{service=\"web\",release=\"1\",class=\"2xx\"} 1",
        "baton_gateway_latency_seconds_bucket{le=\"0.005\",service=\"web\",release=\"1\"} 0",
        "baton_gateway_latency_seconds_bucket{le=\"0.01\",service=\"web\",release=\"1\"} 1",
        "baton_gateway_latency_seconds_bucket{le=\"+Inf\",service=\"web\",release=\"1\"} 1",
        "baton_gateway_latency_seconds_count{service=\"web\",release=\"1\"} 1",
        "baton_gateway_upstream_well{service=\"web\",release=\"1\",instance=\"web.1\"} 1",
        "baton_gateway_table_revision 1",
    ] {
        assert!(page.lines().any(|line| line == sample), "{sample} is not in\n{page}");
    }
}

#[tokio::test]
async fn scrapers_are_answered_until_the_end() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let (address, stop) = (listener.local_addr().expect("an address"), CancellationToken::new());
    let served = Arc::new(fleet(1).served());
    let page = move || prometheus::text(&served.load(), Instant::now());
    let serving = tokio::spawn(baton_metrics::port::serve(listener, page, stop.clone()));
    for (request, status, said) in [
        ("GET /metrics", "200 OK", "baton_gateway_table_revision 1\n"),
        ("POST /metrics", "405 Method Not Allowed", "ask by GET"),
        ("GET /", "404 Not Found", "the page is at /metrics"),
    ] {
        let mut stream = TcpStream::connect(address).await.expect("accepted");
        let request = format!("{request} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("taken");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered to its end");
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}\r\n")) && answer.contains(said), "{answer}");
    }
    // One that says nothing holds nothing up.
    let silent = TcpStream::connect(address).await.expect("accepted");
    stop.cancel();
    serving.await.expect("ends when it is told to");
    drop(silent);
}
