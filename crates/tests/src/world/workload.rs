//! How releases behave when they run: good ones, and the many kinds of bad.

use super::random::Random;
use baton_model::id::{ReleaseNumber, RunNumber};
use baton_model::observed::Exit;
use baton_model::plan::InstancePlan;
use baton_model::spec::{RestartMode, RestartPolicy};

/// What a release is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Ready after this many milliseconds, for good.
    Good { start_ms: u64 },
    /// Its first execution crashes, the ones after are good.
    CrashesOnce { start_ms: u64 },
    /// It is good, but takes this long to be fetched.
    SlowToFetch { fetch_ms: u64 },
    /// Exits at once, always.
    CrashesAtStart,
    /// Runs and never becomes ready.
    NeverReady,
    /// Its check passes, then it crashes, always.
    CrashesLater { after_ms: u64 },
    /// Its check passes, then fails for good: a lying check.
    FailsLater { after_ms: u64 },
    /// Ready, and then its liveness check fails, always.
    Hangs { after_ms: u64 },
    /// It cannot be unpacked on any node.
    Unusable,
}

impl Behaviour {
    /// Draws one. `honest`: it fails at its start or never.
    pub(crate) fn draw(random: &mut Random, honest: bool) -> Self {
        let start_ms = random.between(50, 3000);
        let after_ms = random.between(2000, 40_000);
        match random.between(0, 99) {
            0..=49 => Self::Good { start_ms },
            50..=57 => Self::CrashesOnce { start_ms },
            58..=62 => Self::SlowToFetch { fetch_ms: random.between(2000, 25_000) },
            63..=72 => Self::CrashesAtStart,
            73..=82 => Self::NeverReady,
            83..=86 => Self::Unusable,
            _ if honest => Self::Good { start_ms },
            87..=90 => Self::CrashesLater { after_ms },
            91..=95 => Self::FailsLater { after_ms },
            _ => Self::Hangs { after_ms },
        }
    }

    /// Whether an instance of it comes up and stays up.
    pub(crate) fn is_good(self) -> bool {
        match self {
            Self::Good { .. } | Self::CrashesOnce { .. } | Self::SlowToFetch { .. } => true,
            Self::CrashesAtStart | Self::NeverReady | Self::CrashesLater { .. } => false,
            Self::FailsLater { .. } | Self::Hangs { .. } | Self::Unusable => false,
        }
    }

    /// How long a fetch takes.
    pub(crate) fn fetch_ms(self, random: &mut Random) -> u64 {
        match self {
            Self::SlowToFetch { fetch_ms } => fetch_ms,
            Self::Good { .. } | Self::CrashesOnce { .. } | Self::CrashesAtStart | Self::NeverReady => {
                random.between(20, 800)
            }
            Self::CrashesLater { .. } | Self::FailsLater { .. } | Self::Hangs { .. } | Self::Unusable => {
                random.between(20, 800)
            }
        }
    }

    /// What will happen to an execution by itself: when, counted from its start.
    pub(crate) fn script(self, first: bool) -> Vec<(u64, Change)> {
        let crash = Change::Exits(Exit::Code(1));
        match self {
            Self::CrashesOnce { .. } if first => vec![(20, crash)],
            Self::Good { start_ms } | Self::CrashesOnce { start_ms } => vec![(start_ms, Change::Ready)],
            Self::SlowToFetch { .. } => vec![(100, Change::Ready)],
            Self::CrashesAtStart => vec![(20, crash)],
            Self::NeverReady | Self::Unusable => vec![],
            Self::CrashesLater { after_ms } => vec![(100, Change::Ready), (after_ms, crash)],
            Self::FailsLater { after_ms } => vec![(100, Change::Ready), (after_ms, Change::Unready)],
            Self::Hangs { after_ms } => vec![(100, Change::Ready), (after_ms, Change::NotLive)],
        }
    }
}

/// A change of a running workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// Its checks would pass from now on.
    Ready,
    /// Its checks would fail from now on.
    Unready,
    /// Its liveness check fails.
    NotLive,
    /// It ends.
    Exits(Exit),
    /// Its shim starts it (again).
    Executes,
}

/// One run on a host: the shim and its workload. It outlives the agent.
#[derive(Clone, Debug)]
pub(crate) struct Run {
    pub(crate) number: RunNumber,
    pub(crate) release: ReleaseNumber,
    pub(crate) plan: Box<InstancePlan>,
    pub(crate) behaviour: Behaviour,
    pub(crate) pid: Option<u32>,
    /// Counts executions over the whole world, so that what is scheduled for an ended one is void.
    pub(crate) execution: u64,
    pub(crate) executed_at: u64,
    pub(crate) restarts: u32,
    pub(crate) crashes: u32,
    pub(crate) last_exit: Option<Exit>,
    pub(crate) down: bool,
    /// Its checks would pass.
    pub(crate) ready: bool,
    /// New connections come to it.
    pub(crate) serving: bool,
    /// It is in its stop sequence.
    pub(crate) stopping: bool,
    /// Set by a drain: when the last of its connections would end, and until when they are waited for.
    pub(crate) drain: Option<(u64, u64)>,
    /// When connections were turned from it to the run that replaced it.
    pub(crate) replaced_at: Option<u64>,
}

impl Run {
    /// What its shim does after the workload ended: the wait before the next execution, if there is one.
    pub(crate) fn exited(&mut self, exit: Exit, now: u64) -> Option<u64> {
        let policy = self.plan.spec.restart.clone();
        self.pid = None;
        self.ready = false;
        self.last_exit = Some(exit);
        if now - self.executed_at >= policy.reset_after.0 {
            self.crashes = 0;
        }
        self.crashes += 1;
        let again = !self.stopping
            && match policy.mode {
                RestartMode::Always => true,
                RestartMode::OnFailure => exit != Exit::Code(0),
                RestartMode::Never => false,
            };
        self.down = !again;
        again.then(|| backoff(&policy, self.crashes))
    }

    pub(crate) fn crash_loop(&self) -> bool {
        self.crashes >= self.plan.spec.restart.crash_loop_after
    }
}

/// The first restart is at once; then the base, doubling to the longest.
fn backoff(policy: &RestartPolicy, crashes: u32) -> u64 {
    match crashes {
        0 | 1 => 0,
        more => policy.base.0.saturating_mul(1 << (more - 2).min(16)).min(policy.max.0),
    }
}
