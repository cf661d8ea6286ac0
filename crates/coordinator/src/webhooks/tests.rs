//! What is posted, and for how long.

use super::tries::{BACKOFF_MAX, GIVE_UP_AFTER, first_failure};
use super::*;
use baton_engine::outcome::WebhookCall;
use baton_model::id::{ReleaseNumber, RolloutId};
use baton_model::rollout::{Answer, Measured, Verdict};
use baton_model::route::Weight;
use baton_model::time::{Millis, UnixMs};
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
fn waits_are_drawn_from_all_of_their_length() {
    let drawn: Vec<Duration> = (0..200).map(|_| drawn(BACKOFF_MAX)).collect();
    assert!(drawn.iter().all(|wait| *wait <= BACKOFF_MAX));
    assert!(
        drawn.iter().any(|wait| *wait < BACKOFF_MAX / 4) && drawn.iter().any(|wait| *wait > BACKOFF_MAX / 2)
    );
}

#[test]
fn a_receiver_that_is_never_there_is_told_of_once_and_given_up_after_an_hour() {
    let webhook = webhook("https://hooks.example.com/SECRET");
    let verdict_at = webhook.call.verdict.at;
    let (mut tries, mut now) = (Tries::of(&webhook), verdict_at);
    let (mut told, mut states) = (Vec::new(), Vec::new());
    let why = loop {
        match tries.failed(&webhook, "it cannot be reached".to_owned(), now, |longest| longest) {
            After::GivenUp(why) => break why,
            After::Again { wait, state } => {
                told.extend(first_failure(&webhook, &state, now));
                now = now.plus(Millis(wait.as_millis() as u64));
                assert_eq!(state.next_at, now, "it is tried again when it says");
                states.push(state);
            }
        }
    };
    let [event] = &told[..] else { panic!("one event, not one a try: {told:?}") };
    assert_eq!((event.kind.as_str(), event.at), ("webhook-failed", verdict_at));
    assert!(
        event.message.starts_with(
            "web: https://hooks.example.com was not told of the verdict of errors yet: it cannot be reached; the next try \
             comes in 500ms, and then ever less often for 60 min"
        ),
        "{}",
        event.message
    );
    // Waits of 0.5, 1, 2, 4, 8, 16 and 32 s, then of 60 s each.
    assert_eq!(states.len(), 7 + 59, "{states:?}");
    assert_eq!(
        states.last().map(|last| (last.attempts, last.given_up_after)),
        Some((66, verdict_at.plus(GIVE_UP_AFTER)))
    );
    assert!(now > verdict_at.plus(GIVE_UP_AFTER) && now <= verdict_at.plus(Millis(GIVE_UP_AFTER.0 + 60_000)));
    assert_eq!(why, "67 tries failed, the last one since it cannot be reached");
    // One that was stored and not read for as long gets one try.
    let mut late = Tries::of(&webhook);
    let after = late.failed(&webhook, "it answered 503".to_owned(), now, |longest| longest);
    assert_eq!(after, After::GivenUp("1 try failed, the last one since it answered 503".to_owned()));
}
