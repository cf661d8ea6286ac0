//! Timers for what hardly ever takes too long.
//!
//! Every request has a time by which it must be answered, and nearly every one is. A timer that is set and taken back
//! for each costs more than all else that is counted of it. So an alarm that is set to a later time is left as it is:
//! when it goes off too early, it is set anew. And those of requests and connections that have ended are used again.

use std::cell::RefCell;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use tokio::time::{Instant, Sleep};

/// Alarms that a worker keeps for the next requests.
const KEPT_MAX: usize = 256;

/// A timer that may be asked about a different time at each poll.
#[derive(Debug)]
pub(crate) struct Alarm {
    timer: Pin<Box<Sleep>>,
    /// When the timer goes off.
    set_to: Instant,
}

impl Alarm {
    /// One that is best asked about this time.
    pub(crate) fn new(at: Instant) -> Self {
        Self { timer: Box::pin(tokio::time::sleep_until(at)), set_to: at }
    }

    /// Whether it is time; if not, the task is woken when it is, or earlier.
    pub(crate) fn poll(&mut self, at: Instant, context: &mut Context<'_>) -> Poll<()> {
        if at < self.set_to {
            self.set(at);
        }
        loop {
            ready!(self.timer.as_mut().poll(context));
            if at <= self.set_to {
                return Poll::Ready(());
            }
            self.set(at);
        }
    }

    fn set(&mut self, at: Instant) {
        self.timer.as_mut().reset(at);
        self.set_to = at;
    }
}

/// The alarms of one worker that nobody needs now.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alarms(Rc<RefCell<Vec<Alarm>>>);

impl Alarms {
    /// One that is best asked about this time.
    pub(crate) fn take(&self, at: Instant) -> Alarm {
        self.0.borrow_mut().pop().unwrap_or_else(|| Alarm::new(at))
    }

    /// It is not needed any more.
    pub(crate) fn give_back(&self, alarm: Alarm) {
        let mut kept = self.0.borrow_mut();
        if kept.len() < KEPT_MAX {
            kept.push(alarm);
        }
    }
}

/// The time in which a client's connection must bring a request's head, for hyper: one alarm for all its requests.
#[derive(Clone, Debug, Default)]
pub(crate) struct HeadTimer(Arc<Mutex<Option<Alarm>>>);

impl HeadTimer {
    /// With an alarm that was used already.
    pub(crate) fn with(alarm: Alarm) -> Self {
        Self(Arc::new(Mutex::new(Some(alarm))))
    }

    /// Takes the alarm, where nothing waits for it.
    pub(crate) fn take(&self) -> Option<Alarm> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl hyper::rt::Timer for HeadTimer {
    fn sleep(&self, duration: std::time::Duration) -> Pin<Box<dyn hyper::rt::Sleep>> {
        self.sleep_until((Instant::now() + duration).into_std())
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn hyper::rt::Sleep>> {
        Box::pin(HeadSleep { alarm: self.take(), at: deadline.into(), home: self.clone() })
    }

    fn now(&self) -> std::time::Instant {
        Instant::now().into_std()
    }
}

/// The wait for one head.
#[derive(Debug)]
struct HeadSleep {
    /// Made when it is first waited for.
    alarm: Option<Alarm>,
    at: Instant,
    home: HeadTimer,
}

impl Future for HeadSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        this.alarm.get_or_insert_with(|| Alarm::new(this.at)).poll(this.at, context)
    }
}

impl hyper::rt::Sleep for HeadSleep {}

impl Drop for HeadSleep {
    fn drop(&mut self) {
        if let Some(alarm) = self.alarm.take() {
            *self.home.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(alarm);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::time::Duration;

    #[tokio::test(start_paused = true)]
    async fn it_goes_off_at_the_time_that_was_asked_about_last() {
        let begun = Instant::now();
        let mut alarm = Alarm::new(begun + Duration::from_secs(2));
        for seconds in [3, 10, 11] {
            let at = begun + Duration::from_secs(seconds);
            poll_fn(|context| alarm.poll(at, context)).await;
            assert_eq!(begun.elapsed().as_secs(), seconds, "a later time");
        }
        let alarms = Alarms::default();
        let later = begun + Duration::from_secs(3600);
        let mut alarm = alarms.take(later);
        let woken =
            tokio::time::timeout(Duration::from_secs(1), poll_fn(|context| alarm.poll(later, context)));
        assert!(woken.await.is_err(), "it is not time");
        alarms.give_back(alarm);
        let mut alarm = alarms.take(later);
        let earlier = begun + Duration::from_secs(20);
        poll_fn(|context| alarm.poll(earlier, context)).await;
        assert_eq!(begun.elapsed().as_secs(), 20, "an earlier time");
        poll_fn(|context| alarm.poll(begun, context)).await;
        assert_eq!(begun.elapsed().as_secs(), 20, "a time that is over");
    }
}
