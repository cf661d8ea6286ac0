//! After the agent's own restart: which runs are alive is compared with what was remembered, and every effect that
//! is still due is said again.
//!
//! A run that is not alive was lost, unless the host was booted since: then it ended with its host, which says nothing
//! about it or its shim.
//!
//! Deadlines stay what they were (invariant `generation-grows`). Only a host reboot starts `CLOCK_BOOTTIME` anew;
//! then a remembered time may lie further ahead than it ever could in one boot, and is brought down to that bound.

use super::event::{AdoptedRun, Effect};
use super::state::{Current, Leaving, Phase, RETRY_MAX, Retry, Run, Why};
use super::{BootMs, Instance, Millis};
use baton_model::id::RunNumber;
use baton_model::spec::{StopPolicy, StopSignal};
use std::collections::BTreeMap;

type Alive = BTreeMap<RunNumber, AdoptedRun>;

/// How a run that no plan tells anything about is stopped.
const STRANGER_STOP: StopPolicy =
    StopPolicy { signal: StopSignal::Sigterm, timeout: Millis::secs(10), drain: Millis::ZERO };

impl Instance {
    /// Compares what is alive with what was remembered.
    pub(super) fn resume(&mut self, alive: &Alive, booted: bool, now: BootMs, effects: &mut Vec<Effect>) {
        if let Some(highest) = alive.keys().next_back() {
            self.last_run = self.last_run.max(*highest);
        }
        // What ends is said before what begins, so that no two are asked to serve.
        self.resume_leaving(alive, now, effects);
        self.stop_strangers(alive, effects);
        let was_running = self.current.run().is_some_and(|run| run.started);
        self.resume_current(alive, booted, now, effects);
        if self.current.run().is_none() {
            self.order.begins_anew();
        }
        // A job that is done says nothing of why the next one is not there: it is run again.
        let current_lost = booted || (was_running && self.current.run().is_none()) || self.has_done_job();
        self.resume_swap(alive, current_lost, now, effects);
        self.resume_refresh(effects);
    }

    fn resume_current(&mut self, alive: &Alive, booted: bool, now: BootMs, effects: &mut Vec<Effect>) {
        match &mut self.current {
            Current::Running(run) => match (alive.get(&run.number), run.started) {
                (Some(found), _) => {
                    run.adopt(found, now);
                    run.resume_orders(effects);
                    if !run.is_job() {
                        effects.push(Effect::Check { run: run.number, plan: run.plan.clone() });
                    }
                }
                (None, false) => {
                    effects.push(Effect::Start { run: run.number, plan: run.plan.clone(), beside: None });
                }
                (None, true) if booted => self.current_went_down(effects),
                (None, true) => self.lose_current(now, effects),
            },
            Current::Fetching { plan, retry } => {
                bound(retry, now);
                if retry.at.is_none() {
                    effects.push(Effect::Stage(plan.clone()));
                }
            }
            Current::Staged { retry, .. } => bound(retry, now),
            // The clock begins anew with each boot.
            Current::Done { since, .. } => *since = (*since).min(now),
            Current::Absent | Current::Parked { .. } | Current::Failed { .. } => {}
        }
    }

    fn resume_swap(&mut self, alive: &Alive, current_lost: bool, now: BootMs, effects: &mut Vec<Effect>) {
        let beside = self.current.run().map(|run| run.number);
        let alone = self.has_done_job();
        let Some(swap) = &mut self.swap else { return };
        let longest = now.plus(swap.plan.spec.rollout.healthy_deadline);
        match &mut swap.phase {
            Phase::Staging { retry, deadline } => {
                *deadline = (*deadline).min(longest);
                bound(retry, now);
                if retry.at.is_none() {
                    effects.push(Effect::Stage(swap.plan.clone()));
                }
            }
            Phase::StoppingOld | Phase::Refreshing { .. } => {}
            Phase::Confirming { run, deadline } => {
                *deadline = (*deadline).min(longest);
                match (alive.get(&run.number), run.started) {
                    (Some(found), _) => resume_candidate(run, found, now, effects),
                    (None, false) if beside.is_some() || swap.stop_first || alone => {
                        effects.push(Effect::Start { run: run.number, plan: run.plan.clone(), beside });
                    }
                    // There is nothing to start it beside any more: the release before comes up first.
                    (None, false) => self.candidate_not_found(true, effects),
                    (None, true) => self.candidate_not_found(current_lost, effects),
                }
            }
            Phase::Steering { run } => match alive.get(&run.number) {
                Some(found) => {
                    resume_candidate(run, found, now, effects);
                    effects.push(Effect::Steer { run: run.number, from: beside });
                }
                None => self.candidate_not_found(current_lost, effects),
            },
        }
    }

    /// Both gone: the host was down, which says nothing about the release; the swap begins again. The candidate
    /// alone gone: it fails.
    fn candidate_not_found(&mut self, current_lost: bool, effects: &mut Vec<Effect>) {
        let number = self.candidate().map(|run| run.number);
        if current_lost {
            self.swap = None;
            effects.extend(number.map(Effect::Forget));
        } else {
            self.lose_candidate("its shim was lost while the agent was away".to_owned(), effects);
        }
    }

    fn resume_leaving(&mut self, alive: &Alive, now: BootMs, effects: &mut Vec<Effect>) {
        let numbers: Vec<RunNumber> = self.leaving.keys().copied().collect();
        for number in numbers {
            match (alive.contains_key(&number), self.leaving.get(&number)) {
                // Its drain has not begun.
                (true, Some(Leaving { drain_until: Some(_), routed: true, .. })) => {}
                (true, Some(Leaving { drain_until: Some(until), .. })) => {
                    effects.push(Effect::Drain { run: number, within: until.since(now) });
                }
                (true, Some(leaving)) => effects.push(leaving.stop_effect(number)),
                (false, _) => self.gone(number, false, effects),
                (true, None) => {}
            }
        }
    }

    fn stop_strangers(&mut self, alive: &Alive, effects: &mut Vec<Effect>) {
        let known = self.runs();
        let stop = self
            .target
            .as_deref()
            .or(self.current.plan())
            .map_or(STRANGER_STOP, |plan| plan.spec.stop.clone());
        for (number, found) in alive.iter().filter(|(number, _)| !known.contains(number)) {
            let leaving = Leaving {
                release: found.release,
                stop: stop.clone(),
                exclusive: true,
                why: Why::Stranger,
                drain_until: None,
                routed: false,
            };
            effects.push(leaving.stop_effect(*number));
            self.leaving.insert(*number, leaving);
        }
    }
}

fn resume_candidate(run: &mut Run, found: &AdoptedRun, now: BootMs, effects: &mut Vec<Effect>) {
    run.adopt(found, now);
    run.resume_orders(effects);
    if !run.is_job() {
        effects.push(Effect::Check { run: run.number, plan: run.plan.clone() });
    }
}

fn bound(retry: &mut Retry, now: BootMs) {
    retry.at = retry.at.map(|at| at.min(now.plus(RETRY_MAX)));
}
