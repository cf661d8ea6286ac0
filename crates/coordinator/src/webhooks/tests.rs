//! What is posted, and for how long.

use super::*;
use baton_engine::outcome::WebhookCall;
use baton_model::id::{ReleaseNumber, RolloutId};
use baton_model::rollout::{Answer, Measured, Verdict};
use baton_model::route::Weight;
use serde_json::json;

fn webhook(url: &str) -> Webhook {
    let verdict = Verdict {
        name: "errors".to_owned(),
        answer: Answer::Fail,
        at: UnixMs(1_700_000_000_000),
        since: UnixMs(1_699_999_990_000),
        requests: 200,
        measured: Some(Measured::Share(Weight(250))),
        text: "errors is broken".to_owned(),
    };
    let call = WebhookCall {
        url: url.to_owned(),
        rollout: RolloutId(3),
        stage: 2,
        threshold: 1,
        from: Some(ReleaseNumber(1)),
        to: ReleaseNumber(2),
        verdict,
    };
    let version = |text: &str| Some(text.parse().unwrap());
    Webhook {
        service: "web".parse().unwrap(),
        call,
        from_version: version("1.0"),
        to_version: version("2.0"),
    }
}

#[test]
fn the_body_names_what_it_is_about_and_has_the_verdict_with_its_data() {
    let body: serde_json::Value = serde_json::from_str(&webhook("https://h/").body("home")).unwrap();
    assert_eq!(
        body,
        json!({
            "id": "web.3.2.1.1700000000000",
            "kind": "analysis-failed",
            "cluster": "home",
            "service": "web",
            "rollout": 3,
            "stage": 2,
            "from": { "number": 1, "version": "1.0" },
            "to": { "number": 2, "version": "2.0" },
            "verdict": {
                "name": "errors",
                "answer": "fail",
                "at": 1_700_000_000_000_u64,
                "since": 1_699_999_990_000_u64,
                "requests": 200,
                "measured": { "unit": "share", "value": 250 },
                "text": "errors is broken",
            },
        })
    );
}

#[test]
fn an_event_does_not_tell_what_may_be_secret_in_an_address() {
    for (url, target) in [
        ("https://hooks.example.com/services/SECRET", "https://hooks.example.com"),
        ("https://hooks.example.com:8443?token=SECRET", "https://hooks.example.com:8443"),
        ("http://127.0.0.1:9000", "http://127.0.0.1:9000"),
    ] {
        assert_eq!(webhook(url).target(), target);
    }
}

#[test]
fn waits_are_drawn_from_all_of_their_length_and_an_old_verdict_is_given_up() {
    let drawn: Vec<Duration> = (0..200).map(|_| drawn(BACKOFF_MAX)).collect();
    assert!(drawn.iter().all(|wait| *wait <= BACKOFF_MAX));
    assert!(
        drawn.iter().any(|wait| *wait < BACKOFF_MAX / 4) && drawn.iter().any(|wait| *wait > BACKOFF_MAX / 2)
    );
    let at = UnixMs(1_000);
    assert!(!is_too_old(at, at.plus(GIVE_UP_AFTER)) && is_too_old(at, at.plus(Millis(GIVE_UP_AFTER.0 + 1))));
}
