//! Webhooks of analysis: a verdict is posted to whoever its threshold names.
//!
//! ```text
//! decision ── commit {progress, outbox/n, webhook/id} ──► this task ── POST, as often as it takes ──► somebody's server
//!                                                            │ delivered, or given up
//!                                                            └─► journal: commit {event, no webhook/id}
//! ```
//!
//! What is to be posted is committed with the decision that says so, and goes in the commit that tells how it ended: a kill
//! at any moment loses none. It may post one twice; both have the same id (`Idempotency-Key`). Nothing waits for a
//! webhook: decisions do not know whether it was delivered.

mod post;
pub(crate) mod waiting;

use crate::events::event;
use crate::records;
use crate::state::Coordinator;
use baton_model::event::Severity;
use baton_model::time::{Millis, UnixMs};
use post::{Failure, post};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use waiting::Webhook;

/// Posts under way at a time: one server that hangs does not hold up the others.
const CALLS_MAX: usize = 8;
/// Webhooks that wait; of more, the oldest are given up.
const WAITING_MAX: usize = 1000;
/// A server that has not answered by then is asked again.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest wait before the second attempt; it doubles with each, and the wait is drawn from all of it (full jitter).
const BACKOFF_FIRST: Duration = Duration::from_millis(500);
const BACKOFF_MAX: Duration = Duration::from_secs(60);
/// A verdict that is older than this is of no use to whoever is to act on it.
const GIVE_UP_AFTER: Millis = Millis::secs(3600);
/// When the store cannot be read, it is tried again this often.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Posts what waits until `stop`; what is not done by then is posted after the next start.
pub(crate) async fn keep(coordinator: Arc<Coordinator>, stop: CancellationToken) {
    let mut changed = coordinator.records.store().watch(records::WEBHOOKS);
    let mut queue = Queue::default();
    let mut calls = JoinSet::new();
    loop {
        let read = queue.read(&coordinator).await;
        while calls.len() < CALLS_MAX
            && let Some((key, webhook)) = queue.waiting.pop_front()
        {
            calls.spawn(call(Arc::clone(&coordinator), key, webhook));
        }
        tokio::select! {
            () = stop.cancelled() => break,
            woken = changed.changed() => if woken.is_err() { break },
            Some(ended) = calls.join_next(), if !calls.is_empty() => if let Err(error) = ended {
                tracing::error!(%error, "a webhook's call failed; it is made again after the next start");
            },
            () = tokio::time::sleep(READ_AGAIN), if !read => {}
        }
    }
    calls.shutdown().await;
}

/// What waits, and what is in hand.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<(String, Webhook)>,
    /// Keys of all that were seen and are in the store still.
    known: BTreeSet<String>,
}

impl Queue {
    /// Takes in what is new in the store; `false` where that cannot be read.
    async fn read(&mut self, coordinator: &Coordinator) -> bool {
        let found = match coordinator.records.list::<Webhook>(records::WEBHOOKS).await {
            Ok(found) => found,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "cannot read which webhooks wait");
                return false;
            }
        };
        let keys: BTreeSet<String> = found.iter().map(|(key, _)| key.clone()).collect();
        self.known.retain(|key| keys.contains(key));
        for (key, read) in found {
            if self.known.insert(key.clone()) {
                self.waiting.push_back((key, read.value));
            }
        }
        while self.waiting.len() > WAITING_MAX {
            let Some((key, webhook)) = self.waiting.pop_front() else { break };
            settle(coordinator, key, &webhook, Err(format!("more than {WAITING_MAX} others wait too")));
        }
        true
    }
}

/// Posts one webhook, as often as it takes, and tells how it ended.
async fn call(coordinator: Arc<Coordinator>, key: String, webhook: Webhook) {
    let (id, body) = (webhook.id(), webhook.body(&coordinator.cluster));
    let mut longest = BACKOFF_FIRST;
    let mut attempts: u32 = 0;
    let ended = loop {
        attempts += 1;
        let answer = tokio::time::timeout(TIMEOUT, post(&webhook.call.url, &id, &body)).await;
        let why = match answer {
            Ok(Ok(())) => break Ok(attempts),
            Ok(Err(Failure::Final(why))) => break Err(why),
            Ok(Err(Failure::Passing(why))) => why,
            Err(_) => format!("it did not answer within {} s", TIMEOUT.as_secs()),
        };
        if is_too_old(webhook.call.verdict.at, coordinator.clock.now()) {
            break Err(format!("{attempts} attempts failed, the last one since {why}"));
        }
        tracing::warn!(webhook = webhook.target(), id, why, "a webhook was not delivered; it is tried again");
        tokio::time::sleep(drawn(longest)).await;
        longest = (longest * 2).min(BACKOFF_MAX);
    };
    settle(&coordinator, key, &webhook, ended);
}

fn is_too_old(at: UnixMs, now: UnixMs) -> bool {
    now.since(at) > GIVE_UP_AFTER
}

/// A wait between nothing and `longest`, so that many who failed together do not come back together.
fn drawn(longest: Duration) -> Duration {
    let mut bytes = [0; 4];
    // Without randomness the longest wait does no harm.
    if getrandom::fill(&mut bytes).is_err() {
        return longest;
    }
    longest.mul_f64(f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX))
}

/// Records how it ended, and removes it from the store in the same commit.
fn settle(coordinator: &Coordinator, key: String, webhook: &Webhook, ended: Result<u32, String>) {
    let (service, target) = (&webhook.service, webhook.target());
    let (severity, kind, message) = match ended {
        Ok(1) => {
            (Severity::Info, "webhook-delivered", format!("{service}: {target} was told of the verdict"))
        }
        Ok(attempts) => {
            let message = format!("{service}: {target} was told of the verdict, at the {attempts}th attempt");
            (Severity::Info, "webhook-delivered", message)
        }
        Err(why) => {
            let message = format!(
                "{service}: {target} was not told of the verdict, and is not tried any more: {why}; the rollout waits all \
                 the same, `baton explain {service}` says for what"
            );
            (Severity::Error, "webhook-given-up", message)
        }
    };
    let mut event = event(coordinator.clock.now(), severity, kind, message);
    event.service = Some(service.clone());
    event.fields.insert("id".to_owned(), webhook.id());
    event.fields.insert("threshold".to_owned(), webhook.call.verdict.name.clone());
    coordinator.journal.record_stored(key, vec![event]);
}

#[cfg(test)]
mod tests;
