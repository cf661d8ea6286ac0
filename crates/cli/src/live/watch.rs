//! The watch itself: what ends it, and with which exit code.

use super::feed::{self, Update};
use super::frame::{Scene, frame};
use super::line::Line;
use super::plain::{Teller, stamp, summary, waits_for};
use super::screen::Screen;
use crate::exit::Exit;
use crate::global::Global;
use anyhow::Result;
use baton_model::event::Event;
use baton_model::id::{RolloutId, ServiceName};
use baton_model::report::RolloutReport;
use baton_model::rollout::RolloutOutcome;
use baton_model::status::ServiceStatus;
use baton_model::time::{Millis, UnixMs};
use std::collections::VecDeque;
use std::io::Write as _;
use std::time::{Duration, Instant};

/// How often a terminal is redrawn though nothing changed: countdowns go on.
const REDRAW_EVERY: Duration = Duration::from_millis(200);
/// Events kept for the view.
const EVENTS_KEPT: usize = 8;
/// A pause counts once it has lasted this long: right after a `resume` the old state may still be shown.
const PAUSE_SETTLES: Duration = Duration::from_millis(700);

/// What to follow, and for how long.
#[derive(Clone, Debug)]
pub(crate) struct Follow {
    /// The service.
    pub(crate) service: ServiceName,
    /// Only this rollout; the current one where `None`.
    pub(crate) rollout: Option<RolloutId>,
    /// Give up watching (not the rollout) after this long.
    pub(crate) timeout: Option<Duration>,
}

/// Shows the rollout until it ends, pauses, or the operator leaves with Ctrl-C; it goes on in any case.
///
/// # Errors
/// When the coordinator cannot be reached at first, or does not know the service.
pub(crate) async fn follow(global: &Global, follow: Follow) -> Result<Exit> {
    let mut updates = feed::follow(global, &follow.service).await?;
    let mut watch = Watch::new(global, follow.rollout);
    let deadline = async {
        match follow.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    tokio::pin!(deadline);
    let mut redraw = tokio::time::interval(REDRAW_EVERY);
    redraw.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    let interrupted = tokio::signal::ctrl_c();
    tokio::pin!(interrupted);
    loop {
        tokio::select! {
            update = updates.recv() => match update {
                Some(update) => watch.take(update)?,
                None => anyhow::bail!("the stream of changes ended"),
            },
            _ = redraw.tick() => {}
            () = &mut deadline => {
                watch.leave("the time is over; the rollout goes on")?;
                return Ok(Exit::TimedOut);
            }
            _ = &mut interrupted => {
                let service = &follow.service;
                watch.leave(&format!("the rollout goes on; `baton rollout watch {service}` shows it again, `baton rollout abort {service}` goes back"))?;
                return Ok(Exit::Interrupted);
            }
        }
        watch.draw()?;
        if let Some(exit) = watch.ended() {
            watch.finish()?;
            return Ok(exit);
        }
    }
}

/// How changes are shown.
enum Sink {
    Terminal(Screen<std::io::Stdout>),
    Lines(Teller),
    Json,
}

struct Watch<'a> {
    global: &'a Global,
    sink: Sink,
    status: Option<ServiceStatus>,
    /// When `status` came, by our own clock: the coordinator's time goes on from there.
    received: Instant,
    events: VecDeque<Event>,
    note: Option<String>,
    /// The rollout that is watched, once it is known.
    rollout: Option<RolloutId>,
    paused_since: Option<Instant>,
}

impl<'a> Watch<'a> {
    fn new(global: &'a Global, rollout: Option<RolloutId>) -> Self {
        let sink = match (global.json, global.terminal) {
            (true, _) => Sink::Json,
            (false, true) => Sink::Terminal(Screen::new(std::io::stdout(), global.color)),
            (false, false) => Sink::Lines(Teller::default()),
        };
        let events = VecDeque::with_capacity(EVENTS_KEPT);
        Self {
            global,
            sink,
            status: None,
            received: Instant::now(),
            events,
            note: None,
            rollout,
            paused_since: None,
        }
    }

    fn take(&mut self, update: Update) -> Result<()> {
        match update {
            Update::Status(status) => self.take_status(*status)?,
            Update::Event(event) => {
                if self.events.len() == EVENTS_KEPT {
                    self.events.pop_front();
                }
                self.events.push_back(event);
            }
            Update::Lost(why) => self.say(&format!("{why}; trying again")),
            Update::Back => {
                self.say("the coordinator answers again");
                self.note = None;
            }
            Update::Ended(error) => return Err(error),
        }
        Ok(())
    }

    fn take_status(&mut self, status: ServiceStatus) -> Result<()> {
        self.received = Instant::now();
        if self.rollout.is_none() {
            self.rollout = status.report.rollout.as_ref().map(|rollout| rollout.id);
        }
        let about = status.report.rollout.as_ref().is_some_and(|rollout| Some(rollout.id) >= self.rollout);
        match &mut self.sink {
            Sink::Json => self.global.print_json_line(&status)?,
            Sink::Lines(teller) if about => {
                let mut out = std::io::stdout().lock();
                for line in teller.tell(&status) {
                    writeln!(out, "{line}")?;
                }
                out.flush()?;
            }
            Sink::Lines(_) | Sink::Terminal(_) => {}
        }
        self.status = Some(status);
        Ok(())
    }

    /// Tells something about the view itself: in it on a terminal, on stderr otherwise.
    fn say(&mut self, text: &str) {
        match self.sink {
            Sink::Terminal(_) => self.note = Some(text.to_owned()),
            Sink::Lines(_) => eprintln!("{} {text}", stamp(self.elapsed().0)),
            Sink::Json => eprintln!("{text}"),
        }
    }

    fn now(&self) -> UnixMs {
        let passed = u64::try_from(self.received.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.status.as_ref().map_or(UnixMs(0), |status| status.now.plus(Millis(passed)))
    }

    fn elapsed(&self) -> Millis {
        let started = self.current().map(|rollout| rollout.started_at);
        started.map_or(Millis::ZERO, |started| self.now().since(started))
    }

    fn current(&self) -> Option<&RolloutReport> {
        self.status.as_ref()?.report.rollout.as_ref()
    }

    fn lines(&self, height: u16) -> Vec<Line> {
        let Some(status) = &self.status else { return Vec::new() };
        let events: Vec<Event> = self.events.iter().cloned().collect();
        frame(&Scene { status, events: &events, note: self.note.as_deref(), now: self.now() }, height)
    }

    fn draw(&mut self) -> Result<()> {
        if !self.global.terminal || self.global.json {
            return Ok(());
        }
        let (width, height) = self.global.size();
        let lines = self.lines(height);
        if let Sink::Terminal(screen) = &mut self.sink {
            screen.draw(&lines, width, height)?;
        }
        Ok(())
    }

    /// The exit code, once there is one.
    fn ended(&mut self) -> Option<Exit> {
        let wanted = self.rollout?;
        let (id, outcome) = self.current().map(|rollout| (rollout.id, rollout.outcome))?;
        if id < wanted {
            // Asked for and not begun yet.
            return None;
        }
        if id > wanted {
            return Some(Exit::Failed);
        }
        let exit = Exit::of_rollout(outcome);
        if outcome != RolloutOutcome::Paused {
            self.paused_since = None;
            return exit;
        }
        let since = *self.paused_since.get_or_insert_with(Instant::now);
        exit.filter(|_| since.elapsed() >= PAUSE_SETTLES)
    }

    /// The last view stays, and a line sums it up.
    fn finish(&mut self) -> Result<()> {
        let told = self.status.as_ref().is_some_and(|status| self.has_told(status));
        let text = self.status.as_ref().map(|status| summary(status, told)).unwrap_or_default();
        self.close(&text)
    }

    /// Whether the reason of the rollout can be read above the line that sums it up.
    fn has_told(&self, status: &ServiceStatus) -> bool {
        let Some(rollout) = &status.report.rollout else { return true };
        match &self.sink {
            Sink::Lines(teller) => teller.has_told(rollout),
            Sink::Terminal(_) => waits_for(status, &rollout.reason),
            Sink::Json => false,
        }
    }

    /// The last view stays, and a line says why we go.
    fn leave(&mut self, text: &str) -> Result<()> {
        self.draw()?;
        if let Sink::Terminal(screen) = &mut self.sink {
            screen.settle();
        }
        eprintln!("{text}");
        Ok(())
    }

    fn close(&mut self, text: &str) -> Result<()> {
        match &mut self.sink {
            Sink::Terminal(screen) => {
                screen.settle();
                screen.print(&[Line::of(super::line::Style::Bold, text)], u16::MAX)?;
            }
            Sink::Lines(_) => writeln!(std::io::stdout(), "{text}")?,
            Sink::Json => eprintln!("{text}"),
        }
        Ok(())
    }
}
