//! The agent's brain: the states of one instance, and the swap of its release.
//!
//! The agent persists an [`Instance`] before it carries out the effects of a step. After its own restart it tells
//! the instance which runs are alive ([`Event::Resumed`]); the step then says again every effect that is still due,
//! so effects must be idempotent per run.
//!
//! Three parts move at once: the *current* release, at most one *swap* that brings in another, and the runs that
//! are *leaving*. A step first takes the event in, then settles: it does whatever the plan, the parts and the time
//! call for. So no event is ever waited for in one particular order, and a lost one is made good by the next.
//!
//! ```text
//! current    Absent ─install─► Fetching ─fetched─► Staged ─start_current─► Running (Starting ⇄ Ready, Failed, Stopped)
//!               ▲               │  ▲ retry           ▲ ▲                     │  │  │
//!               │               ▼  │                 │ └──lose_current───────┘  │  └─park─► Parked ─unpark─► Staged
//!               │             Failed                 └───────start_again────────┘
//!               └─────────────────────────────── remove ── (from anywhere, when the plan is None)
//!
//! swap       (none) ─begin_swap─► Staging ─candidate_fetched─► Confirming ─steer─► Steering ─promote─► (none)
//!                                    │                │            │                                     │
//!            fixed port:             │                └park─► StoppingOld ─start_candidate─► Confirming ─promote
//!                                    │                             │
//!                                    ├── fail_swap / withdraw_swap ┴──► (none); the old release serves on
//!                nothing but files:  └─begin_refresh─► Refreshing ─refreshed─► (none); the same run, the new release
//!
//! jobs       Running ─exit code 0─► Done ─begin_swap (another release)─► Confirming ─exit code 0─► Done
//! leaving    Routed ─► Draining ─stop─► Stopping ─gone─► forgotten   (replaced, reverted, making way, removed, stranger)
//! ```

mod event;
mod install;
mod job;
mod leave;
mod mend;
mod observe;
mod order;
mod refresh;
mod reload;
mod resume;
mod state;
mod swap;
#[cfg(test)]
mod tests;

pub use event::{AdoptedRun, Effect, Event, Trouble};
pub use refresh::needs_no_process;

use baton_model::id::{InstanceId, RunNumber};
use baton_model::observed::Exit;
use baton_model::plan::InstancePlan;
use baton_model::time::{BootMs, Millis};
use order::Order;
use serde::{Deserialize, Serialize};
use state::{Current, Ended, FailedSwap, Leaving, Phase, Run, Swap};
use std::collections::{BTreeMap, BTreeSet};

/// One pass may make the next thing due (a start, then the swap beside it). Four are the longest chain there is
/// and one to see the rest; what a longer one would leave undone is done by the next step.
const SETTLE_PASSES_MAX: u32 = 5;

/// One instance on one node. Persisted whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Which.
    pub id: InstanceId,
    /// The last run number used; numbers are never used again.
    last_run: RunNumber,
    /// What the node's plan says.
    target: Option<Box<InstancePlan>>,
    current: Current,
    swap: Option<Swap>,
    leaving: BTreeMap<RunNumber, Leaving>,
    failed_swap: Option<FailedSwap>,
    /// What must be ready on this node before it is first started.
    #[serde(default)]
    order: Order,
    /// How the run before the current one ended, until another has taken its place: told as its last end.
    #[serde(default)]
    ended_before: Option<Exit>,
}

impl Instance {
    /// An instance of which nothing runs yet.
    #[must_use]
    pub fn new(id: InstanceId) -> Self {
        Self {
            id,
            last_run: RunNumber(0),
            target: None,
            current: Current::Absent,
            swap: None,
            leaving: BTreeMap::new(),
            failed_swap: None,
            order: Order::default(),
            ended_before: None,
        }
    }

    /// Takes one event in and says what must be done now.
    pub fn step(&mut self, event: Event, now: BootMs) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.take(event, now, &mut effects);
        self.settle(now, &mut effects);
        effects
    }

    /// When [`Event::Timer`] is due at the latest.
    #[must_use]
    pub fn wake_at(&self) -> Option<BootMs> {
        let current = match &self.current {
            Current::Fetching { retry, .. } | Current::Staged { retry, .. } => retry.at,
            Current::Absent | Current::Running(_) | Current::Parked { .. } => None,
            Current::Failed { .. } | Current::Done { .. } => None,
        };
        let swap = self.swap.as_ref().and_then(|swap| match &swap.phase {
            Phase::Staging { retry, deadline } => Some(retry.at.map_or(*deadline, |at| at.min(*deadline))),
            Phase::Confirming { deadline, .. } => Some(*deadline),
            Phase::Refreshing { trial: Some(trial), .. } => {
                let ready = self.current.run().is_some_and(|run| run.ready_since.is_some());
                Some(if ready { trial.settles_at } else { trial.deadline })
            }
            Phase::StoppingOld | Phase::Steering { .. } | Phase::Refreshing { trial: None, .. } => None,
        });
        let runs = self.current.run().into_iter().chain(self.candidate());
        let runs = runs.filter_map(Run::wake_at);
        let drains = self.leaving.values().filter_map(Leaving::overdue_at);
        current.into_iter().chain(swap).chain(runs).chain(drains).min()
    }

    /// Whether nothing is left of it and the agent may forget it.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        self.target.is_none()
            && self.current == Current::Absent
            && self.swap.is_none()
            && self.leaving.is_empty()
    }

    /// The runs it still knows. What a node keeps for any other run of this instance is a leftover.
    #[must_use]
    pub fn runs(&self) -> BTreeSet<RunNumber> {
        let current = self.current.run().map(|run| run.number);
        let candidate = self.candidate().map(|run| run.number);
        current.into_iter().chain(candidate).chain(self.leaving.keys().copied()).collect()
    }

    /// The release whose files a run has, of one that serves or is to serve; `None` of one that is on its way out.
    #[must_use]
    pub fn plan_of(&self, run: RunNumber) -> Option<&InstancePlan> {
        let mut runs = self.current.run().into_iter().chain(self.candidate());
        let known = runs.find(|known| known.number == run)?;
        Some(self.refreshing(run).unwrap_or(&known.plan))
    }

    /// Every release that it may run next, or go back to.
    pub fn plans(&self) -> impl Iterator<Item = &InstancePlan> {
        let swap = self.swap.as_ref().map(|swap| &*swap.plan);
        self.target.as_deref().into_iter().chain(self.current.plan()).chain(swap)
    }

    fn take(&mut self, event: Event, now: BootMs, effects: &mut Vec<Effect>) {
        match event {
            Event::Plan(plan) => self.target = plan,
            Event::Resumed { alive, booted } => self.resume(&alive, booted, now, effects),
            Event::Staged(release) => self.fetched(release, now, effects),
            Event::StageFailed { release, reason, trouble } => {
                self.fetch_failed(release, &reason, trouble, now, effects)
            }
            Event::Started { run, pid, ports } => self.started(run, pid, ports, now, effects),
            Event::StartFailed { run, reason } => self.start_failed(run, &reason, now, effects),
            Event::Exited { run, exit, restarts, restart_in, crash_loop, last_words, damage } => {
                let ended = Ended { exit, restarts, restart_in, crash_loop, last_words, damage };
                self.exited(run, &ended, effects);
                self.finish_job(run, now, effects);
            }
            Event::Mended { run, fetched } => self.mended(run, fetched, effects),
            Event::MendFailed { run, reason } => self.mend_failed(run, &reason, effects),
            Event::Health { run, ready, detail } => self.health(run, ready, detail, now, effects),
            Event::NotLive { run, detail } => self.not_live(run, &detail, effects),
            Event::Steered(run) => self.steered(run, now, effects),
            Event::SteerFailed { run, reason } => self.steer_failed(run, &reason, effects),
            Event::Drained { run, cut } => self.drained(run, cut, effects),
            Event::Stopped { run, killed } => self.gone(run, killed, effects),
            Event::ShimLost(run) => self.shim_lost(run, now, effects),
            Event::Dependencies { unready } => self.dependencies(unready),
            Event::Reloaded { run, reload, failure } => self.reloaded(run, reload, failure, effects),
            Event::Refreshed(run) => self.refreshed(run, now, effects),
            Event::RefreshFailed { run, reason } => self.refresh_failed(run, &reason, now, effects),
            Event::Rerendered { run, signals } => self.rerendered(run, signals, effects),
            Event::Provisioned => self.provisioned(now),
            Event::Timer => self.runs_mut().for_each(|run| run.forget_crash_loop(now)),
        }
    }

    /// Does whatever the plan, the parts and the time call for. Nothing where nothing is due.
    fn settle(&mut self, now: BootMs, effects: &mut Vec<Effect>) {
        for _ in 0..SETTLE_PASSES_MAX {
            let said = effects.len();
            self.drain_released(now, effects);
            self.stop_overdue_drains(now, effects);
            self.drop_stale_refresh();
            self.judge_swap(now, effects);
            self.judge_refresh(now, effects);
            self.follow_target(now, effects);
            self.try_due(now, effects);
            self.retry_refresh(now, effects);
            self.tell_ready(effects);
            if effects.len() == said {
                return;
            }
        }
    }

    /// Brings the parts in line with the plan.
    fn follow_target(&mut self, now: BootMs, effects: &mut Vec<Effect>) {
        let Some(target) = self.target.clone() else {
            return self.remove(effects);
        };
        if self.swap.as_ref().is_some_and(|swap| swap.plan.release != target.release) {
            self.withdraw_swap(effects);
        }
        if let Some(swap) = &mut self.swap {
            if swap.plan.release == target.release {
                swap.plan.attempt = target.attempt;
                swap.plan.reload = target.reload;
            }
            return;
        }
        if self.current.plan().is_some_and(|plan| plan.release == target.release) {
            self.failed_swap = None;
        }
        let given_up = self.has_given_up_on(&target);
        match &mut self.current {
            Current::Absent => self.install(target, effects),
            Current::Fetching { plan, retry } | Current::Staged { plan, retry }
                if plan.release == target.release =>
            {
                if target.attempt > plan.attempt {
                    retry.hurry(now);
                }
                plan.attempt = target.attempt;
                plan.reload = target.reload;
            }
            Current::Done { plan, .. } if plan.release == target.release => plan.attempt = target.attempt,
            Current::Done { .. } if given_up || !self.leaving.is_empty() => {}
            Current::Done { .. } => self.begin_swap(target, now, effects),
            Current::Failed { plan, .. }
                if plan.release == target.release && plan.attempt >= target.attempt => {}
            // It can serve at once: it is started first, and the other release comes by a swap.
            Current::Staged { retry, .. } if retry.at.is_none() => {}
            Current::Fetching { .. } | Current::Staged { .. } | Current::Failed { .. } if given_up => {}
            Current::Fetching { .. } | Current::Staged { .. } | Current::Failed { .. } => {
                self.install(target, effects);
            }
            Current::Parked { .. } => {}
            Current::Running(run) if run.plan.release == target.release => {
                let retried = target.attempt > run.plan.attempt;
                run.plan.attempt = target.attempt;
                run.plan.reload = target.reload;
                if retried && run.ready_since.is_none() && (run.down || run.crash_loop) {
                    self.start_again(effects);
                }
                self.follow_reload(effects);
            }
            Current::Running(_) if given_up || !self.leaving.is_empty() => {}
            Current::Running(_) => self.begin_swap(target, now, effects),
        }
    }

    /// Tries again what waited for a time or for a run to be gone.
    fn try_due(&mut self, now: BootMs, effects: &mut Vec<Effect>) {
        // A candidate holds the fixed port, or is about to serve.
        let held_by_swap = self.swap.as_ref().is_some_and(|swap| match swap.phase {
            Phase::StoppingOld | Phase::Steering { .. } => true,
            Phase::Confirming { .. } => swap.stop_first,
            Phase::Staging { .. } | Phase::Refreshing { .. } => false,
        });
        match &mut self.current {
            Current::Fetching { plan, retry } if retry.is_due(now) => {
                retry.at = None;
                effects.push(Effect::Stage(plan.clone()));
            }
            Current::Staged { .. } | Current::Parked { .. } if held_by_swap => {}
            Current::Staged { retry, .. } if retry.at.is_none() => self.start_current(effects),
            Current::Staged { retry, .. } if retry.is_due(now) => self.stage_again(effects),
            Current::Parked { .. } => self.unpark(effects),
            Current::Fetching { .. } | Current::Staged { .. } => {}
            Current::Absent | Current::Running(_) | Current::Failed { .. } | Current::Done { .. } => {}
        }
        match self.swap.as_mut().map(|swap| (&swap.plan, &mut swap.phase)) {
            Some((plan, Phase::Staging { retry, .. })) if retry.is_due(now) => {
                retry.at = None;
                effects.push(Effect::Stage(plan.clone()));
            }
            Some((_, Phase::StoppingOld)) if self.leaving.is_empty() => self.start_candidate(now, effects),
            Some(_) | None => {}
        }
    }

    fn started(
        &mut self,
        number: RunNumber,
        pid: u32,
        ports: BTreeMap<String, u16>,
        now: BootMs,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(run) = self.run_mut(number) {
            run.started(pid, ports, now);
            // A job is ready when it is done.
            if !run.is_job() {
                effects.push(Effect::Check { run: number, plan: run.plan.clone() });
            }
        }
    }

    fn health(
        &mut self,
        number: RunNumber,
        ready: bool,
        detail: String,
        now: BootMs,
        effects: &mut Vec<Effect>,
    ) {
        let id = self.id.clone();
        let Some(run) = self.run_mut(number) else { return };
        let was_ready = run.ready_since.is_some();
        if ready {
            run.became_ready(now);
        } else {
            run.ready_since = None;
        }
        // Between an end and the restart, the end is the better reason.
        if run.pid.is_some() {
            run.reason = detail;
        }
        if was_ready && !ready {
            let message = format!("{id} is no longer ready: {}", run.reason);
            effects.push(Effect::Note { warning: true, kind: "instance-not-ready", message });
        }
    }

    fn not_live(&mut self, number: RunNumber, detail: &str, effects: &mut Vec<Effect>) {
        let id = self.id.clone();
        let Some(run) = self.run_mut(number) else { return };
        if run.pid.is_none() {
            return;
        }
        run.ready_since = None;
        run.reason = format!("restarted, since its liveness check failed: {detail}");
        let stop = &run.plan.spec.stop;
        effects.push(Effect::Restart { run: number, signal: stop.signal, timeout: stop.timeout });
        let message = format!("{id} is restarted, since its liveness check failed: {detail}");
        effects.push(Effect::Note { warning: true, kind: "instance-not-live", message });
    }

    /// Notes the end of a workload; a draining one has nothing left to wait for. What may come from damaged files
    /// has them checked.
    fn exited(&mut self, number: RunNumber, ended: &Ended, effects: &mut Vec<Effect>) {
        if self.leaving.contains_key(&number) {
            return self.stop_draining(number, effects);
        }
        let id = self.id.clone();
        let is_candidate = self.candidate().is_some_and(|run| run.number == number);
        let Some(run) = self.run_mut(number) else { return };
        let message = match &ended.damage {
            Some(damage) => format!("{id} was not started: {damage}"),
            None => format!("{id} ended with {}", ended.exit),
        };
        let well = run.is_job() && ended.exit == Exit::Code(0);
        effects.push(Effect::Note { warning: !well, kind: "instance-exited", message });
        // A candidate was checked a moment ago, and its swap fails at once.
        let suspect = ended.damage.is_some() || (!is_candidate && run.is_suspect_after(ended));
        run.exited(ended);
        if suspect {
            effects.push(Effect::Mend { run: number, plan: run.plan.clone() });
        }
    }
}
