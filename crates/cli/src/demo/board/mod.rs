//! What the demo shows while it runs: its phases, the load, and the service, redrawn on a terminal; lines on
//! stderr otherwise.

mod recent;

use super::load::{Counts, Meter};
use super::site::Site;
use crate::api::Api;
use crate::global::Global;
use crate::live::{self, Line, Scene, Screen, Style, stamp};
use crate::show;
use baton_model::status::ServiceStatus;
use baton_model::time::Millis;
use recent::Recent;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// How often a terminal is redrawn.
const REDRAW_EVERY: Duration = Duration::from_millis(100);
/// How often the service in view is asked for.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Rows that the service in view needs: its rollout, three stages, the releases, its instances, and why it waits.
const SERVICE_ROWS: usize = 14;
/// Columns of a phase's title.
const TITLE: usize = 38;

/// The board; clones show the same.
#[derive(Clone, Debug)]
pub(super) struct Board {
    shared: Arc<Mutex<Shown>>,
    began: Instant,
    drawn: bool,
}

#[derive(Debug)]
struct Shown {
    /// What is run.
    title: String,
    phases: Vec<ShownPhase>,
    /// The service that the present phase is about.
    site: Site,
    status: Option<(ServiceStatus, Instant)>,
    meter: Option<Meter>,
    recent: Recent,
    closed: bool,
}

#[derive(Debug)]
struct ShownPhase {
    title: String,
    began: Instant,
    /// Its place among the load's phases.
    tally: Option<usize>,
    /// How long it took and whether it ended as it must, once it has.
    ended: Option<(Duration, bool)>,
    /// Said by it, the last one shown.
    note: String,
}

impl Board {
    /// An empty board, drawn on the terminal where there is one and stdout is not for programs.
    pub(super) fn new(global: &Global, title: String) -> Self {
        let shown = Shown {
            title,
            phases: Vec::new(),
            site: Site::Web,
            status: None,
            meter: None,
            recent: Recent::default(),
            closed: false,
        };
        Self {
            shared: Arc::new(Mutex::new(shown)),
            began: Instant::now(),
            drawn: global.terminal && !global.json,
        }
    }

    /// A phase begins, about a service; `tally` is its place among the load's phases.
    pub(super) fn begin(&self, title: &str, site: Site, tally: Option<usize>) {
        self.say_line(title);
        let mut shown = self.shown();
        if shown.site != site {
            shown.status = None;
        }
        shown.site = site;
        shown.phases.push(ShownPhase {
            title: title.to_owned(),
            began: Instant::now(),
            tally,
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
        let mut shown = self.shown();
        let counts = shown.phases.last().and_then(|phase| shown.counts(phase));
        let Some(phase) = shown.phases.last_mut() else { return };
        let took = phase.began.elapsed();
        let ok = ok && counts.is_none_or(|counts| counts.failed == 0);
        phase.ended = Some((took, ok));
        drop(shown);
        let mark = if ok { '✓' } else { '✗' };
        let counts = counts.map(|counts| format!(": {}", sentence(&counts))).unwrap_or_default();
        self.say_line(&format!("  {mark} {}{counts}", show::length(took)));
    }

    /// A service as it is now; shown if the present phase is about it.
    pub(super) fn status(&self, status: ServiceStatus) {
        let mut shown = self.shown();
        if status.name.as_str() == shown.site.name() {
            shown.status = Some((status, Instant::now()));
        }
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
    pub(super) async fn draw(&self, global: &Global) -> Infallible {
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

    /// Keeps the service in view as it is now, where it is drawn, and never ends.
    pub(super) async fn look(&self, mut api: Api) -> Infallible {
        if !self.drawn {
            return std::future::pending().await;
        }
        loop {
            tokio::time::sleep(LOOK_EVERY).await;
            let site = self.shown().site;
            // A coordinator that is slow now is asked again; what goes wrong for good, the phase itself finds.
            if let Ok(service) = site.service()
                && let Ok(status) = api.service(&service).await
            {
                self.status(status);
            }
        }
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
        let mut shown = self.shown();
        let shown = &mut *shown;
        if let Some(meter) = &shown.meter {
            shown.recent.look(meter, Instant::now());
        }
        let mut lines = vec![
            Line::of(Style::Bold, "baton demo")
                .then(Style::Dim, format!("  {}  {}", shown.title, show::length(self.began.elapsed()))),
        ];
        lines.extend(shown.phase_lines(usize::from(height)));
        if let Some(meter) = &shown.meter {
            lines.push(Line::new());
            lines.push(load_line(&meter.totals()));
        }
        if let Some((status, received)) = &shown.status {
            let passed = Millis(u64::try_from(received.elapsed().as_millis()).unwrap_or(0));
            let mut status = status.clone();
            shown.recent.fill(shown.site, &mut status.traffic);
            let scene = Scene { status: &status, events: &[], note: None, now: status.now.plus(passed) };
            lines.push(Line::new());
            let left = usize::from(height).saturating_sub(lines.len());
            lines.extend(live::frame(&scene, u16::try_from(left).unwrap_or(u16::MAX)));
        }
        lines
    }
}

impl Shown {
    fn counts(&self, phase: &ShownPhase) -> Option<Counts> {
        self.meter.as_ref()?.phase(phase.tally?)
    }

    /// A line for each phase; where the terminal is low, the first ones in one.
    fn phase_lines(&self, height: usize) -> Vec<Line> {
        let room = height.saturating_sub(SERVICE_ROWS + 4).max(2);
        let folded = if self.phases.len() > room { self.phases.len() - room + 1 } else { 0 };
        let (first, rest) = self.phases.split_at(folded);
        let mut lines = Vec::new();
        if folded > 0 {
            let good = first.iter().all(|phase| phase.ended.is_none_or(|(_, ok)| ok));
            let (style, mark) = if good { (Style::Good, '✓') } else { (Style::Bad, '✗') };
            lines.push(Line::of(style, format!("  {mark} {folded} phases before")));
        }
        lines.extend(rest.iter().map(|phase| phase_line(phase, self.counts(phase))));
        lines
    }
}

fn phase_line(phase: &ShownPhase, counts: Option<Counts>) -> Line {
    let (style, mark, took) = match phase.ended {
        None => (Style::Busy, '▸', phase.began.elapsed()),
        Some((took, true)) => (Style::Good, '✓', took),
        Some((took, false)) => (Style::Bad, '✗', took),
    };
    let line = Line::of(style, format!("  {mark} {}", phase.title))
        .pad_to(TITLE)
        .then(Style::Dim, format!(" {:>6}", show::length(took)));
    let line = match counts {
        None => line,
        Some(counts) => line.then(Style::Dim, format!(" {:>7}", show::thousands(counts.sent))).then(
            if counts.failed == 0 { Style::Good } else { Style::Bad },
            format!(" {:>3} failed", show::thousands(counts.failed)),
        ),
    };
    line.then(Style::Plain, format!("  {}", phase.note))
}

fn load_line(counts: &Counts) -> Line {
    let style = if counts.failed == 0 { Style::Good } else { Style::Bad };
    let line =
        Line::of(Style::Plain, format!("  {} requests through the gateways, ", show::thousands(counts.sent)))
            .then(style, format!("{} failed", show::thousands(counts.failed)));
    let errors = show::thousands(counts.errors);
    let line = match counts.errors {
        0 => line,
        _ => line.then(Style::Plain, ", ").then(Style::Warn, format!("{errors} errors of bad versions")),
    };
    line.then(Style::Dim, format!(", {} in flight", counts.in_flight))
}

fn sentence(counts: &Counts) -> String {
    let (sent, failed) = (show::thousands(counts.sent), show::thousands(counts.failed));
    match counts.errors {
        0 => format!("{sent} requests, {failed} failed"),
        errors => {
            format!("{sent} requests, {failed} failed, {} answered with an error", show::thousands(errors))
        }
    }
}
