//! Silence between two pieces of anything.

use std::future::Future as _;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;
use tokio::time::{Instant, Sleep};

/// A limit on silence. The timer is made only when there is silence.
#[derive(Debug)]
pub(crate) struct Silence {
    most: Duration,
    timer: Option<Pin<Box<Sleep>>>,
    running: bool,
}

impl Silence {
    pub(crate) fn new(most: Duration) -> Self {
        Self { most, timer: None, running: false }
    }

    /// Something came.
    pub(crate) fn broken(&mut self) {
        self.running = false;
    }

    /// Whether the silence is too long now; if not, the task is woken when it will be.
    pub(crate) fn is_over(&mut self, context: &mut Context<'_>) -> bool {
        if self.most.is_zero() {
            return false;
        }
        let most = self.most;
        let timer = self.timer.get_or_insert_with(|| Box::pin(tokio::time::sleep(most)));
        if !self.running {
            timer.as_mut().reset(Instant::now() + most);
            self.running = true;
        }
        timer.as_mut().poll(context).is_ready()
    }
}
