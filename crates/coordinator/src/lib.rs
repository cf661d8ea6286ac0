//! The coordinator: knows what operators want, hears what agents report, decides with `baton-engine`, and tells every
//! node its whole plan.
//!
//! ```text
//! operators ─► api ─► records (Desired) ──wake──► reconcile ─► engine::cycle ─► records (Progress, plans)
//! agents ◄══► sessions ─► Observed ───────wake──►    │                              │ durable
//!    ▲                                               └──────────► dispatch ◄────────┘
//!    └────────────────── NodePlan ◄──────────────────────────────────┘   journal, view for readers
//! ```
//!
//! [`init`] makes a cluster in a folder; [`run`] serves it.

mod api;
mod app;
mod artifacts;
pub mod authority;
mod background;
mod clock;
mod counts;
mod dispatch;
mod error;
mod events;
mod evidence;
mod flapping;
mod gateways;
mod init;
mod lock;
mod logs;
mod metrics;
mod outline;
mod provisions;
mod pulse;
mod reconcile;
mod records;
mod secrets;
mod sessions;
mod state;
pub mod store;
mod systemd;
mod trials;
mod upgrade;
mod usage;
mod webhooks;

pub use app::{Bound, CoordinatorConfig, bind, run};
pub use error::CoordinatorError;
pub use init::{InitDone, InitOptions, init};
pub use records::{RecordError, RecordsError};
pub use secrets::SecretsError;
