//! What is counted while requests pass, as a scraper sees it.

use crate::fleet::{Fleet, Instance, ask, eventually, get, local, releases};
use baton_model::id::ReleaseNumber;
use baton_model::route::{Split, Weight};
use std::collections::BTreeMap;

#[tokio::test]
async fn requests_are_counted_by_release_and_what_had_to_go_elsewhere_is() {
    let says = Instance::says("well").await;
    let mut route = releases(&[(1, &says)]);
    let mut fleet = Fleet::with(route.clone(), |config| config.metrics = Some(local(0))).await;
    for _ in 0..3 {
        assert!(fleet.get("/").await.ends_with("well"));
    }
    // Release 2 has a share and nobody.
    route.split = Split {
        weights: BTreeMap::from([(ReleaseNumber(1), Weight(1)), (ReleaseNumber(2), Weight(1).rest())]),
    };
    fleet.install(route).await;
    for _ in 0..20 {
        assert!(fleet.get("/").await.ends_with("well"));
    }
    let wanted = [
        "baton_gateway_requests_total{service=\"web\"} 23",
        "baton_gateway_answers_total{service=\"web\",release=\"1\",class=\"2xx\"} 23",
        "baton_gateway_latency_seconds_count{service=\"web\",release=\"1\"} 23",
        "baton_gateway_table_revision 2",
    ];
    // An answer is counted when its last byte is on its way: its client may be the first to know.
    let page = eventually("page with all of them", async || {
        let page = ask(fleet.gateway.metrics().expect("configured"), &get("/metrics")).await;
        wanted.iter().all(|sample| page.lines().any(|line| line == *sample)).then_some(page)
    })
    .await;
    let fallbacks =
        page.lines().find_map(|line| line.strip_prefix("baton_gateway_fallbacks_total{service=\"web\"} "));
    let fallbacks: u32 = fallbacks.expect("counted").parse().expect("a count");
    assert!((15..=20).contains(&fallbacks), "{fallbacks} of 20, at 99.99%");
}
