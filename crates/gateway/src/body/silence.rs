//! Silence between two pieces of anything.

use crate::alarm::{Alarm, Alarms};
use std::task::Context;
use std::time::Duration;
use tokio::time::Instant;

/// A limit on silence. The timer is made only when there is silence.
#[derive(Debug)]
pub(crate) struct Silence {
    most: Duration,
    alarm: Option<Alarm>,
    /// When it is too long, while there is silence.
    end: Option<Instant>,
}

impl Silence {
    pub(crate) fn new(most: Duration) -> Self {
        Self { most, alarm: None, end: None }
    }

    /// Something came.
    pub(crate) fn broken(&mut self) {
        self.end = None;
    }

    /// Whether the silence is too long now; if not, the task is woken when it will be.
    pub(crate) fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        self.has_ended(Alarm::new, context)
    }

    /// The same with an alarm of a worker's, which is to be given back.
    pub(crate) fn is_over_by(&mut self, alarms: &Alarms, context: &mut Context<'_>) -> bool {
        self.has_ended(|end| alarms.take(end), context)
    }

    /// Gives a worker's alarm back.
    pub(crate) fn give_back(&mut self, alarms: &Alarms) {
        if let Some(alarm) = self.alarm.take() {
            alarms.give_back(alarm);
        }
    }

    fn has_ended(&mut self, alarm: impl FnOnce(Instant) -> Alarm, context: &mut Context<'_>) -> bool {
        if self.most.is_zero() {
            return false;
        }
        let end = *self.end.get_or_insert_with(|| Instant::now() + self.most);
        self.alarm.get_or_insert_with(|| alarm(end)).poll(end, context).is_ready()
    }
}
