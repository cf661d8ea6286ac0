//! The health of a run: startup, readiness and liveness checks, and what they say.
//!
//! One task per run. The startup check must pass first; then readiness and liveness are asked side by side, each at
//! its own interval. [`tally`] counts answers (pure), [`probe`] asks one question, [`dial`] makes the connection so
//! that during a swap it reaches the candidate and not the run that still serves.

pub(crate) mod dial;
pub(crate) mod probe;
pub(crate) mod tally;

use crate::runs::RunState;
use crate::runs::confine::Confined;
use crate::workload::Surroundings;
use baton_engine::instance::Event;
use baton_model::id::{InstanceId, RunNumber};
use baton_model::spec::{Check, ServiceSpec};
use dial::Dial;
use std::sync::Arc;
use std::time::Duration;
use tally::{Tally, Verdict};
use tokio::sync::mpsc;
use tokio::time::Instant;

/// The first pause while a check has not passed yet: a server that starts in milliseconds is known to be ready in
/// milliseconds, whatever its interval.
const EAGER_PAUSE: Duration = Duration::from_millis(5);

/// Everything needed to check one run.
#[derive(Clone, Debug)]
pub(crate) struct Subject {
    pub(crate) run: RunNumber,
    /// It was ready under an earlier agent: it stays so until its checks fail for good.
    pub(crate) was_ready: bool,
    pub(crate) spec: Arc<ServiceSpec>,
    pub(crate) around: Arc<Surroundings>,
    pub(crate) dial: Dial,
    /// Its commands run in the workload's own limits and sandbox.
    pub(crate) confined: Arc<Confined>,
    /// What the workload says of itself.
    pub(crate) notified: tokio::sync::watch::Receiver<RunState>,
}

/// Checks the run until the task is dropped; a closed `events` ends it too.
pub(crate) async fn watch(subject: Subject, events: mpsc::Sender<(InstanceId, Event)>) {
    let told = Told { subject, events };
    let checks = told.subject.spec.checks.clone();
    if told.await_ready().await.is_err() {
        return;
    }
    if let Some(startup) = &checks.startup
        && !told.subject.was_ready
        && told.await_startup(startup).await.is_err()
    {
        return;
    }
    let watched = async {
        let both = tokio::try_join!(
            told.readiness(checks.readiness.as_ref()),
            told.liveness(checks.liveness.as_ref())
        );
        // Without checks there is nothing to ask; what the workload says of itself still counts.
        if both.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    tokio::select! {
        () = watched => {}
        () = told.await_stopping() => {
            let _ = told.health(false, "it says that it is stopping (STOPPING=1)".to_owned()).await;
        }
    }
}

/// Nobody takes the events any more.
struct Closed;

struct Told {
    subject: Subject,
    events: mpsc::Sender<(InstanceId, Event)>,
}

impl Told {
    /// Until the workload has said `READY=1`, where that is waited for. One that is late is ended by its shim.
    async fn await_ready(&self) -> Result<(), Closed> {
        if self.subject.spec.lifecycle.notify.ready_within.is_none() || self.subject.was_ready {
            return Ok(());
        }
        let mut notified = self.subject.notified.clone();
        if !notified.borrow().notified.ready {
            self.health(false, "it has not sent READY=1 yet".to_owned()).await?;
        }
        notified.wait_for(|state| state.notified.ready).await.map(drop).map_err(|_| Closed)
    }

    /// Until the workload says that it is stopping.
    async fn await_stopping(&self) {
        let mut notified = self.subject.notified.clone();
        if notified.wait_for(|state| state.notified.stopping).await.is_err() {
            std::future::pending().await
        }
    }

    /// Until the startup check has passed; when it fails for good, the workload is said to be not live.
    async fn await_startup(&self, check: &Check) -> Result<(), Closed> {
        let mut tally = Tally::new(check);
        let mut pace = Pace::new(check);
        let mut last = String::new();
        loop {
            let answer = probe::ask(&self.subject, check).await;
            let counted = pace.counts(answer.is_ok());
            let verdict = tally.count(answer.is_ok(), counted);
            match answer {
                Ok(()) if verdict == Verdict::Passing => return Ok(()),
                Ok(()) => {}
                Err(detail) => {
                    let detail = format!("startup check: {detail}");
                    if detail != last {
                        self.health(false, detail.clone()).await?;
                        last.clone_from(&detail);
                    }
                    if verdict == Verdict::Failing && counted {
                        self.not_live(detail).await?;
                        tally = Tally::new(check);
                    }
                }
            }
            pace.rest().await;
        }
    }

    async fn readiness(&self, check: Option<&Check>) -> Result<(), Closed> {
        let Some(check) = check else { return self.health(true, String::new()).await };
        let mut tally = if self.subject.was_ready { Tally::passing(check) } else { Tally::new(check) };
        let mut pace = Pace::new(check);
        let mut told: Option<(bool, String)> = None;
        loop {
            let answer = probe::ask(&self.subject, check).await;
            let verdict = tally.count(answer.is_ok(), pace.counts(answer.is_ok()));
            let detail = answer.err().map(|detail| format!("readiness check: {detail}")).unwrap_or_default();
            let now = match verdict {
                Verdict::Passing => Some((true, String::new())),
                Verdict::Failing => Some((false, detail)),
                // The first failures say why it is not ready yet; a ready one stays ready until it fails for good.
                Verdict::Undecided if !detail.is_empty() && !tally.passed() => Some((false, detail)),
                Verdict::Undecided => None,
            };
            if let Some((ready, detail)) = now
                && told.as_ref().is_none_or(|(before, why)| (*before, why) != (ready, &detail))
            {
                self.health(ready, detail.clone()).await?;
                told = Some((ready, detail));
            }
            pace.rest().await;
        }
    }

    async fn liveness(&self, check: Option<&Check>) -> Result<(), Closed> {
        let Some(check) = check else { return Ok(()) };
        let mut tally = Tally::new(check);
        loop {
            let began = Instant::now();
            let answer = probe::ask(&self.subject, check).await;
            let verdict = tally.count(answer.is_ok(), true);
            if let Err(detail) = answer
                && verdict == Verdict::Failing
            {
                self.not_live(format!("liveness check: {detail}")).await?;
                tally = Tally::new(check);
            }
            tokio::time::sleep_until(began + check.interval.duration()).await;
        }
    }

    async fn health(&self, ready: bool, detail: String) -> Result<(), Closed> {
        let event = Event::Health { run: self.subject.run, ready, detail };
        self.tell(event).await
    }

    async fn not_live(&self, detail: String) -> Result<(), Closed> {
        let event = Event::NotLive { run: self.subject.run, detail };
        self.tell(event).await
    }
}

impl Told {
    async fn tell(&self, event: Event) -> Result<(), Closed> {
        let instance = self.subject.around.instance.clone();
        self.events.send((instance, event)).await.map_err(|_| Closed)
    }
}

/// When the next question is asked, and whether a failure counts.
///
/// Until the first success questions come fast, slowing down to the interval; of the failures in that time only as
/// many count as would have come at the interval's pace. From the first success on, the interval holds.
struct Pace {
    interval: Duration,
    pause: Duration,
    began: Instant,
    count_from: Instant,
}

impl Pace {
    fn new(check: &Check) -> Self {
        let interval = check.interval.duration();
        let now = Instant::now();
        Self { interval, pause: EAGER_PAUSE.min(interval), began: now, count_from: now + interval }
    }

    /// Called once per answer, before [`Pace::rest`].
    fn counts(&mut self, passed: bool) -> bool {
        if passed {
            self.pause = self.interval;
            return true;
        }
        let now = Instant::now();
        if self.pause >= self.interval {
            return true;
        }
        let due = now >= self.count_from;
        if due {
            self.count_from = now + self.interval;
        }
        due
    }

    async fn rest(&mut self) {
        tokio::time::sleep_until(self.began + self.pause).await;
        self.began = Instant::now();
        self.pause = (self.pause * 2).min(self.interval);
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
