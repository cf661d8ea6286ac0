//! Following a rollout: a view that redraws itself on a terminal, lines of changes where output is piped.
//!
//! ```text
//! coordinator ── feed (connects again when it must) ──► watch ──► terminal: frame ─► screen
//!                                                         │       pipe:     plain
//!                                                         └─────  --json:   one status per line
//! ```

pub(crate) mod comparison;
mod feed;
mod frame;
mod line;
mod plain;
mod screen;
#[cfg(test)]
mod tests;
pub(crate) mod traffic;
mod watch;

pub(crate) use frame::{
    Scene, frame, header, left, outcome, passage, state_style, subject, version, waiting_line, webhook_line,
};
pub(crate) use line::{Line, Style};
pub(crate) use plain::{stamp, waits_for};
pub(crate) use screen::Screen;
pub(crate) use watch::{Follow, follow};
