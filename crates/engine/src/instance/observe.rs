//! What an instance tells the coordinator of itself.

use super::state::{Current, Leaving, Phase, Retry, Run, Swap, Why};
use super::{BootMs, Instance, Millis};
use baton_model::id::{ReleaseNumber, RunNumber};
use baton_model::observed::{Exit, InstanceObserved, InstanceState, LogDrops, SwapObserved, SwapPhase};
use std::collections::BTreeMap;

impl Instance {
    /// What is reported to the coordinator (`ready_since` is left to it); second, for how long it has been ready
    /// without a break. `None` when there is nothing to tell.
    #[must_use]
    pub fn observe(&self, now: BootMs) -> Option<(InstanceObserved, Option<Millis>)> {
        let mut seen = match &self.current {
            Current::Absent => self.observe_leaving()?,
            Current::Fetching { plan, retry } => {
                blank(plan.release, InstanceState::Fetching, retry_reason(retry))
            }
            Current::Staged { plan, retry } if retry.at.is_none() => {
                blank(plan.release, InstanceState::Staged, self.why_not_started())
            }
            Current::Staged { plan, retry } => {
                blank(plan.release, InstanceState::Failed, retry_reason(retry))
            }
            Current::Running(run) => observe_run(run, now),
            Current::Parked { plan } => {
                let state =
                    if self.leaving.is_empty() { InstanceState::Stopped } else { InstanceState::Draining };
                blank(plan.release, state, "it makes way for another release on its fixed port".to_owned())
            }
            Current::Failed { plan, reason } => blank(plan.release, InstanceState::Failed, reason.clone()),
            Current::Done { plan, run, restarts, since: _ } => InstanceObserved {
                run: *run,
                restarts: *restarts,
                last_exit: Some(Exit::Code(0)),
                ..blank(plan.release, InstanceState::Ready, "done: its job ended with exit code 0".to_owned())
            },
        };
        seen.swap = self.observe_swap();
        seen.last_exit = seen.last_exit.or(self.ended_before);
        let since = match &self.current {
            Current::Running(run) => run.ready_since,
            Current::Done { since, .. } => Some(*since),
            Current::Absent | Current::Fetching { .. } | Current::Staged { .. } => None,
            Current::Parked { .. } | Current::Failed { .. } => None,
        };
        let ready_for = since.map(|since| now.since(since));
        Some((seen, ready_for))
    }

    /// A removed instance is reported until its last run is gone.
    fn observe_leaving(&self) -> Option<InstanceObserved> {
        let (number, leaving) = self.leaving.iter().next_back()?;
        let mut seen = blank(leaving.release, InstanceState::Draining, "it is being stopped".to_owned());
        seen.run = *number;
        Some(seen)
    }

    fn why_not_started(&self) -> String {
        if self.leaving.is_empty() {
            self.why_it_waits()
        } else {
            "it waits for an earlier run to be gone".to_owned()
        }
    }

    /// A first release that cannot come up by itself has failed as a change of release has, and is told likewise:
    /// whoever waits for it need not wait for its deadline.
    fn observe_failed_install(&self) -> Option<SwapObserved> {
        let (plan, reason) = match &self.current {
            Current::Failed { plan, reason } => (plan, reason),
            Current::Fetching { plan, retry } if retry.lasting => (plan, &retry.reason),
            Current::Absent | Current::Fetching { .. } | Current::Staged { .. } => return None,
            // A job that failed stays so, until it is tried again.
            Current::Running(run) if run.has_failed_job() => (&run.plan, &run.reason),
            Current::Running(_) | Current::Parked { .. } | Current::Done { .. } => return None,
        };
        let (to, attempt, reason) = (plan.release, plan.attempt, reason.clone());
        Some(SwapObserved { to, attempt, phase: SwapPhase::Failed, reason })
    }

    fn observe_swap(&self) -> Option<SwapObserved> {
        if let Some(swap) = &self.swap {
            let (phase, reason) = swap_phase(swap);
            return Some(SwapObserved { to: swap.plan.release, attempt: swap.plan.attempt, phase, reason });
        }
        if let Some(failed) = self.observe_failed_install() {
            return Some(failed);
        }
        let failed = self.failed_swap.as_ref();
        let leaving = self.leaving.values().find_map(|leaving| match leaving.why {
            Why::Replaced { to, attempt } => Some(SwapObserved {
                to,
                attempt,
                phase: SwapPhase::DrainingOld,
                reason: draining_reason(leaving),
            }),
            Why::Reverted { to, attempt } => Some(SwapObserved {
                to,
                attempt,
                phase: SwapPhase::Reverting,
                reason: failed.map_or_else(
                    || "the plan wants another release now".to_owned(),
                    |failed| failed.reason.clone(),
                ),
            }),
            Why::MakingWay | Why::Removed | Why::Stranger | Why::Finished => None,
        });
        leaving.or_else(|| {
            failed.map(|failed| SwapObserved {
                to: failed.release,
                attempt: failed.attempt,
                phase: SwapPhase::Failed,
                reason: failed.reason.clone(),
            })
        })
    }
}

fn swap_phase(swap: &Swap) -> (SwapPhase, String) {
    match &swap.phase {
        Phase::Staging { retry, .. } if retry.failures > 0 => (SwapPhase::Staging, retry_reason(retry)),
        Phase::Staging { .. } => (SwapPhase::Staging, "the release is being fetched and verified".to_owned()),
        Phase::StoppingOld => {
            (SwapPhase::StoppingOld, "the old process must free its fixed port first".to_owned())
        }
        Phase::Confirming { run, .. } if run.is_job() && run.pid.is_some() => {
            (SwapPhase::Confirming, "its job has not ended yet".to_owned())
        }
        Phase::Confirming { run, .. } if run.reason.is_empty() => {
            (SwapPhase::Confirming, "its checks have not passed yet".to_owned())
        }
        Phase::Confirming { run, .. } => (SwapPhase::Confirming, run.reason.clone()),
        Phase::Refreshing { trial: None, .. } => {
            (SwapPhase::Refreshing, "nothing but files differs: they are being written".to_owned())
        }
        Phase::Refreshing { trial: Some(_), .. } => {
            (SwapPhase::Refreshing, "its files are written; its checks are given the time to fail".to_owned())
        }
        Phase::Steering { .. } => {
            (SwapPhase::Confirming, "it is ready; new connections are being turned to it".to_owned())
        }
    }
}

fn draining_reason(leaving: &Leaving) -> String {
    let doing = match leaving.drain_until {
        Some(_) if leaving.routed => "serves until the gateways have let go of it",
        Some(_) => "finishes its connections",
        None => "is being stopped",
    };
    format!("release {} {doing}", leaving.release)
}

fn observe_run(run: &Run, now: BootMs) -> InstanceObserved {
    let state = if run.ready_since.is_some() {
        InstanceState::Ready
    } else if run.ended_well() {
        InstanceState::Stopped
    } else if run.down || (run.crash_loop && run.pid.is_none()) {
        InstanceState::Failed
    } else {
        InstanceState::Starting
    };
    InstanceObserved {
        release: run.plan.release,
        state,
        ready_since: None,
        run: run.number,
        pid: run.pid,
        ports: run.ports.clone(),
        restarts: run.restarts,
        crash_loop: run.is_in_crash_loop(now),
        last_exit: run.last_exit,
        reason: if run.ready_since.is_some() { String::new() } else { run.reason.clone() },
        swap: None,
        status: String::new(),
        reload: run.reload.clone(),
        log_drops: LogDrops::default(),
    }
}

/// Names no remaining time: what is reported changes only when something happened.
fn retry_reason(retry: &Retry) -> String {
    match retry.at {
        Some(_) => format!("{}; tried again after a wait (failure {})", retry.reason, retry.failures),
        None => retry.reason.clone(),
    }
}

fn blank(release: ReleaseNumber, state: InstanceState, reason: String) -> InstanceObserved {
    InstanceObserved {
        release,
        state,
        ready_since: None,
        run: RunNumber(0),
        pid: None,
        ports: BTreeMap::new(),
        restarts: 0,
        crash_loop: false,
        last_exit: None,
        reason,
        swap: None,
        status: String::new(),
        reload: None,
        log_drops: LogDrops::default(),
    }
}
