//! When a webhook is tried again, and when it is given up; decided in values, with the time as an argument.

use super::waiting::Webhook;
use crate::events::event;
use baton_model::event::{Event, Severity};
use baton_model::status::UndeliveredWebhook;
use baton_model::time::{Millis, UnixMs};
use std::time::Duration;

/// The longest wait before the second try; it doubles with each, and the wait is drawn from all of it (full jitter).
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
pub(super) const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A verdict that is older than this is of no use to whoever is to act on it.
pub(super) const GIVE_UP_AFTER: Millis = Millis::secs(3600);

/// The tries of one webhook since the coordinator started.
#[derive(Debug)]
pub(super) struct Tries {
    made: u32,
    longest: Duration,
    given_up_after: UnixMs,
}

/// What follows a try that failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum After {
    /// Another one, after this wait.
    Again { wait: Duration, state: UndeliveredWebhook },
    /// None any more: why.
    GivenUp(String),
}

impl Tries {
    pub(super) fn of(webhook: &Webhook) -> Self {
        let given_up_after = webhook.call.verdict.at.plus(GIVE_UP_AFTER);
        Self { made: 0, longest: BACKOFF_FIRST, given_up_after }
    }

    /// How many were made, with the one that is under way.
    pub(super) fn with_this_one(&self) -> u32 {
        self.made.saturating_add(1)
    }

    /// A try failed at `now`. `draw` draws a wait that is no longer than what it is given.
    pub(super) fn failed(
        &mut self,
        webhook: &Webhook,
        reason: String,
        now: UnixMs,
        draw: impl Fn(Duration) -> Duration,
    ) -> After {
        self.made = self.with_this_one();
        if now > self.given_up_after {
            let made = self.made;
            let tries = if made == 1 { "1 try".to_owned() } else { format!("{made} tries") };
            return After::GivenUp(format!("{tries} failed, the last one since {reason}"));
        }
        let wait = draw(self.longest);
        self.longest = (self.longest * 2).min(BACKOFF_MAX);
        let state = UndeliveredWebhook {
            target: webhook.target().to_owned(),
            threshold: webhook.call.verdict.name.clone(),
            attempts: self.made,
            reason,
            next_at: now.plus(Millis(u64::try_from(wait.as_millis()).unwrap_or(u64::MAX))),
            given_up_after: self.given_up_after,
        };
        After::Again { wait, state }
    }
}

/// What is told of the first try that failed; of the others nothing is, until it is delivered or given up.
pub(super) fn first_failure(webhook: &Webhook, state: &UndeliveredWebhook, now: UnixMs) -> Option<Event> {
    if state.attempts != 1 {
        return None;
    }
    let UndeliveredWebhook { target, threshold, reason, next_at, given_up_after, .. } = state;
    let (service, next, left) = (&webhook.service, next_at.since(now), given_up_after.since(now));
    let left = if left < Millis::secs(60) {
        "for less than a minute"
    } else {
        &format!("for {} min", left.0 / 60_000)
    };
    let message = format!(
        "{service}: {target} was not told of the verdict of {threshold} yet: {reason}; the next try comes in {next}, and \
         then ever less often {left}: see that it answers; `baton explain {service}` says how it stands"
    );
    let mut event = event(now, Severity::Warning, "webhook-failed", message);
    event.service = Some(service.clone());
    event.fields.insert("id".to_owned(), webhook.id());
    event.fields.insert("threshold".to_owned(), threshold.clone());
    Some(event)
}
