//! What the demo shows while it runs: its phases, the load, and the service, redrawn on a terminal; lines on
//! stderr otherwise.

use super::load::Meter;
use crate::global::Global;
use crate::live::{self, Line, Scene, Screen, Style, stamp};
use crate::show;
use baton_model::status::ServiceStatus;
use baton_model::time::Millis;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How often a terminal is redrawn.
const REDRAW_EVERY: Duration = Duration::from_millis(100);

/// The board; clones show the same.
#[derive(Clone, Debug)]
pub(super) struct Board {
    shared: Arc<Mutex<Shown>>,
    began: Instant,
    drawn: bool,
}

#[derive(Debug)]
struct Shown {
    phases: Vec<ShownPhase>,
    status: Option<(ServiceStatus, Instant)>,
    meter: Option<Meter>,
    closed: bool,
}

#[derive(Debug)]
struct ShownPhase {
    title: String,
    began: Instant,
    /// How long it took and whether it ended as it must, once it has.
    ended: Option<(Duration, bool)>,
    /// Said by it, the last one shown.
    note: String,
}

impl Board {
    /// An empty board, drawn on the terminal where there is one and stdout is not for programs.
    pub(super) fn new(global: &Global) -> Self {
        let shown = Shown { phases: Vec::new(), status: None, meter: None, closed: false };
        Self {
            shared: Arc::new(Mutex::new(shown)),
            began: Instant::now(),
            drawn: global.terminal && !global.json,
        }
    }

    /// A phase begins.
    pub(super) fn begin(&self, title: &str) {
        self.say_line(title);
        self.shown().phases.push(ShownPhase {
            title: title.to_owned(),
            began: Instant::now(),
            ended: None,
            note: String::new(),
        });
    }

    /// Something worth knowing in the present phase.
    pub(super) fn note(&self, note: &str) {
        self.say_line(&format!("  {note}"));
        if let Some(phase) = self.shown().phases.last_mut() {
            phase.note = note.to_owned();
        }
    }

    /// The present phase has ended.
    pub(super) fn end(&self, ok: bool) {
        if let Some(phase) = self.shown().phases.last_mut() {
            phase.ended = Some((phase.began.elapsed(), ok));
        }
    }

    /// The service as it is now.
    pub(super) fn status(&self, status: ServiceStatus) {
        self.shown().status = Some((status, Instant::now()));
    }

    /// The load whose counts are shown.
    pub(super) fn meter(&self, meter: Meter) {
        self.shown().meter = Some(meter);
    }

    /// Draws no more: what follows is printed below.
    pub(super) fn close(&self) {
        self.shown().closed = true;
    }

    /// Redraws until it is closed, and never ends.
    pub(super) async fn draw(&self, global: &Global) -> std::convert::Infallible {
        if self.drawn {
            let mut screen = Screen::new(std::io::stdout(), global.color);
            while !self.shown().closed {
                let (width, height) = global.size();
                // The terminal may be gone; the demo goes on to its end and cleans up.
                let _ = screen.draw(&self.lines(height), width, height);
                tokio::time::sleep(REDRAW_EVERY).await;
            }
        }
        std::future::pending().await
    }

    fn say_line(&self, text: &str) {
        if !self.drawn {
            eprintln!("{} {text}", stamp(u64::try_from(self.began.elapsed().as_millis()).unwrap_or(0)));
        }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shared.lock().expect("no code that holds the board panics")
    }

    fn lines(&self, height: u16) -> Vec<Line> {
        let shown = self.shown();
        let mut lines = vec![
            Line::of(Style::Bold, "baton demo")
                .then(Style::Dim, format!("  {}", show::length(self.began.elapsed()))),
        ];
        lines.extend(shown.phases.iter().map(phase_line));
        if let Some(meter) = &shown.meter {
            lines.push(load_line(meter));
        }
        if let Some((status, received)) = &shown.status {
            let passed = Millis(u64::try_from(received.elapsed().as_millis()).unwrap_or(0));
            let scene = Scene { status, events: &[], note: None, now: status.now.plus(passed) };
            lines.push(Line::new());
            let left = usize::from(height).saturating_sub(lines.len());
            lines.extend(live::frame(&scene, u16::try_from(left).unwrap_or(u16::MAX)));
        }
        lines
    }
}

fn phase_line(phase: &ShownPhase) -> Line {
    let (style, mark, took) = match phase.ended {
        None => (Style::Busy, '▸', phase.began.elapsed()),
        Some((took, true)) => (Style::Good, '✓', took),
        Some((took, false)) => (Style::Bad, '✗', took),
    };
    Line::of(style, format!("  {mark} {}", phase.title))
        .pad_to(38)
        .then(Style::Dim, format!(" {:>6}", show::length(took)))
        .then(Style::Plain, format!("  {}", phase.note))
}

fn load_line(meter: &Meter) -> Line {
    let (sent, failed, in_flight) = meter.totals();
    let style = if failed == 0 { Style::Good } else { Style::Warn };
    Line::of(Style::Plain, format!("  {} requests sent, {in_flight} in flight, ", show::thousands(sent)))
        .then(style, format!("{failed} failed"))
}
