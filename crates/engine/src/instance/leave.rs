//! Runs on their way out: let go by the gateways, drained, stopped, gone.

use super::event::Effect;
use super::state::Leaving;
use super::{BootMs, Instance, Millis};
use baton_model::id::RunNumber;

/// How long after a drain's end its answer is awaited before the run is stopped all the same: room for an agent
/// that was busy, and a bound for an answer that never comes.
const DRAIN_GRACE: Millis = Millis::secs(5);

impl Leaving {
    /// When a drain that was not answered is over; of one that has not begun, when it begins at the latest.
    pub(super) fn overdue_at(&self) -> Option<BootMs> {
        self.drain_until.map(|until| if self.routed { until } else { until.plus(DRAIN_GRACE) })
    }

    /// The effect that stops it.
    pub(super) fn stop_effect(&self, run: RunNumber) -> Effect {
        Effect::Stop { run, signal: self.stop.signal, timeout: self.stop.timeout }
    }
}

impl Instance {
    /// Routed → Draining: every live gateway has let go of the run, or its time is over. Connections that did not come
    /// by a gateway are waited for, and counted where they are cut, as without one.
    pub(super) fn drain_released(&mut self, now: BootMs, effects: &mut Vec<Effect>) {
        let released = self.target.as_ref().map_or(RunNumber(0), |target| target.released);
        for (number, leaving) in self.leaving.iter_mut().filter(|(_, leaving)| leaving.routed) {
            let Some(until) = leaving.drain_until else { continue };
            if *number <= released || until <= now {
                leaving.routed = false;
                effects.push(Effect::Drain { run: *number, within: until.since(now) });
            }
        }
    }

    /// Draining → Stopping: its connections are done, or were cut.
    pub(super) fn drained(&mut self, number: RunNumber, cut: u32, effects: &mut Vec<Effect>) {
        let draining = self.leaving.get(&number).is_some_and(|leaving| leaving.drain_until.is_some());
        if draining && cut > 0 {
            let message = format!(
                "{cut} connections of {} (run {number}) were still open when its drain ended",
                self.id
            );
            effects.push(Effect::Note { warning: true, kind: "connections-cut", message });
        }
        self.stop_draining(number, effects);
    }

    /// Draining → Stopping, whatever the reason. Nothing where it is being stopped already.
    pub(super) fn stop_draining(&mut self, number: RunNumber, effects: &mut Vec<Effect>) {
        if let Some(leaving) = self.leaving.get_mut(&number)
            && leaving.drain_until.take().is_some()
        {
            effects.push(leaving.stop_effect(number));
        }
    }

    /// Draining → Stopping for drains that were never answered.
    pub(super) fn stop_overdue_drains(&mut self, now: BootMs, effects: &mut Vec<Effect>) {
        let overdue: Vec<RunNumber> = self
            .leaving
            .iter()
            .filter(|(_, leaving)| !leaving.routed && leaving.overdue_at().is_some_and(|at| at <= now))
            .map(|(number, _)| *number)
            .collect();
        overdue.into_iter().for_each(|number| self.stop_draining(number, effects));
    }

    /// Stopping → forgotten: its processes are gone, and it was confirmed.
    pub(super) fn gone(&mut self, number: RunNumber, killed: bool, effects: &mut Vec<Effect>) {
        if self.leaving.remove(&number).is_none() {
            return;
        }
        effects.push(Effect::Forget(number));
        if killed {
            let message = format!("{} (run {number}) did not end by its stop signal and was killed", self.id);
            effects.push(Effect::Note { warning: true, kind: "instance-killed", message });
        }
    }
}
