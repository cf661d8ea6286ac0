//! Signals that people name.

use serde::{Deserialize, Serialize};

/// Signals that may ask a workload to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum StopSignal {
    /// SIGTERM
    Sigterm,
    /// SIGINT
    Sigint,
    /// SIGQUIT
    Sigquit,
    /// SIGHUP
    Sighup,
    /// SIGUSR1
    Sigusr1,
    /// SIGUSR2
    Sigusr2,
    /// SIGKILL: no warning at all.
    Sigkill,
}

impl StopSignal {
    /// All of them, in the order they are offered to people.
    pub const ALL: [Self; 7] = [
        Self::Sigterm,
        Self::Sigint,
        Self::Sigquit,
        Self::Sighup,
        Self::Sigusr1,
        Self::Sigusr2,
        Self::Sigkill,
    ];

    /// The name, as in signal(7).
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Sigterm => "SIGTERM",
            Self::Sigint => "SIGINT",
            Self::Sigquit => "SIGQUIT",
            Self::Sighup => "SIGHUP",
            Self::Sigusr1 => "SIGUSR1",
            Self::Sigusr2 => "SIGUSR2",
            Self::Sigkill => "SIGKILL",
        }
    }
}
