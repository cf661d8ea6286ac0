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
//! webhook: decisions do not know whether it was delivered. Operators do: the first try that fails is an event, and until it
//! is delivered or given up [`undelivered`] shows why and when it is tried again.

mod post;
mod tries;
pub(crate) mod undelivered;
pub(crate) mod waiting;

use crate::events::event;
use crate::records;
use crate::state::Coordinator;
use baton_model::event::Severity;
use post::{Failure, post};
use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tries::{After, Tries};
use waiting::Webhook;

/// Posts under way at a time.
const CALLS_MAX: usize = 8;
/// Webhooks that are tried again and again beside one another: a server that is out of reach does not hold up the others.
const IN_HAND_MAX: usize = 256;
/// Webhooks that wait for that; of more, the oldest are given up.
const WAITING_MAX: usize = 1000;
/// A server that has not answered by then is asked again.
const TIMEOUT: Duration = Duration::from_secs(10);
/// When the store cannot be read, it is tried again this often.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Posts what waits until `stop`; what is not done by then is posted after the next start.
pub(crate) async fn keep(coordinator: Arc<Coordinator>, stop: CancellationToken) {
    let mut changed = coordinator.records.store().watch(records::WEBHOOKS);
    let mut queue = Queue::default();
    let (calls, mut in_hand) = (Arc::new(Semaphore::new(CALLS_MAX)), JoinSet::new());
    loop {
        let read = queue.read(&coordinator).await;
        while in_hand.len() < IN_HAND_MAX
            && let Some((key, webhook)) = queue.waiting.pop_front()
        {
            in_hand.spawn(call(Arc::clone(&coordinator), Arc::clone(&calls), key, webhook));
        }
        tokio::select! {
            () = stop.cancelled() => break,
            woken = changed.changed() => if woken.is_err() { break },
            Some(ended) = in_hand.join_next(), if !in_hand.is_empty() => if let Err(error) = ended {
                tracing::error!(%error, "a webhook's call failed; it is made again after the next start");
            },
            () = tokio::time::sleep(READ_AGAIN), if !read => {}
        }
    }
    in_hand.shutdown().await;
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
async fn call(coordinator: Arc<Coordinator>, calls: Arc<Semaphore>, key: String, webhook: Webhook) {
    let (id, body) = (webhook.id(), webhook.body(&coordinator.cluster));
    let mut tries = Tries::of(&webhook);
    let ended = loop {
        // Held for the try alone: while one waits for its next, others are made.
        let Ok(turn) = calls.acquire().await else { return };
        let answer = tokio::time::timeout(TIMEOUT, post(&webhook.call.url, &id, &body)).await;
        drop(turn);
        let why = match answer {
            Ok(Ok(())) => break Ok(tries.with_this_one()),
            Ok(Err(Failure::Final(why))) => break Err(why),
            Ok(Err(Failure::Passing(why))) => why,
            Err(_) => format!("it did not answer within {} s", TIMEOUT.as_secs()),
        };
        let now = coordinator.clock.now();
        match tries.failed(&webhook, why, now, drawn) {
            After::GivenUp(why) => break Err(why),
            After::Again { wait, state } => {
                let why = &state.reason;
                tracing::warn!(
                    webhook = webhook.target(),
                    id,
                    why,
                    "a webhook was not delivered; it is tried again"
                );
                coordinator.journal.record(tries::first_failure(&webhook, &state, now).into_iter().collect());
                coordinator.undelivered.note(&key, &webhook, state);
                tokio::time::sleep(wait).await;
            }
        }
    };
    coordinator.undelivered.forget(&key);
    settle(&coordinator, key, &webhook, ended);
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
            let message = format!("{service}: {target} was told of the verdict, at try {attempts}");
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
