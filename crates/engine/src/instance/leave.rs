//! Runs on their way out: drain, stop, gone.

use super::event::Effect;
use super::state::Leaving;
use super::{BootMs, Instance, Millis};
use baton_model::id::RunNumber;

/// How long after a drain's end its answer is awaited before the run is stopped all the same: room for an agent
/// that was busy, and a bound for an answer that never comes.
const DRAIN_GRACE: Millis = Millis::secs(5);

impl Leaving {
    /// When a drain that was not answered is over.
    pub(super) fn overdue_at(&self) -> Option<BootMs> {
        self.drain_until.map(|until| until.plus(DRAIN_GRACE))
    }

    /// The effect that stops it.
    pub(super) fn stop_effect(&self, run: RunNumber) -> Effect {
        Effect::Stop { run, signal: self.stop.signal, timeout: self.stop.timeout }
    }
}

impl Instance {
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
            .filter(|(_, leaving)| leaving.overdue_at().is_some_and(|at| at <= now))
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
