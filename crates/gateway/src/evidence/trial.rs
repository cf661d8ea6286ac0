//! What is counted while two releases are compared: of each arm what its clients saw, how many clients they were, and what
//! became of copies.

use super::counters::{ReleaseCounters, ReleaseEvent};
use super::shard::{Padded, shard, shards};
use crate::choose::Arm;
use baton_model::evidence::ReleaseEvidence;
use baton_model::evidence::sketch::{REGISTERS, Sketch, place};
use baton_model::evidence::trial::{ArmCounts, CopyCounts, TrialCounts, TrialEvidence};
use baton_model::route::Trial;
use http::StatusCode;
use std::array;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// What can become of a request that was drawn to be copied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CopyEvent {
    /// It was drawn.
    Drawn,
    /// A copy was sent.
    Sent,
    /// None was sent, for the request's method or upgrade.
    NotSafe,
    /// None was sent, for the size of the body.
    NotSmall,
    /// None was sent, since as many as may be were in flight.
    NotFree,
    /// None was sent, since there was nobody to send it to.
    NotThere,
    /// The copy was not answered.
    Unanswered,
    /// It was compared.
    Compared,
    /// Only the client was answered.
    DiffersUnanswered,
    /// Another status.
    DiffersStatus,
    /// Another body.
    DiffersBody,
    /// Bodies that differ in noise alone.
    Noise,
}

const COPY_EVENTS: usize = CopyEvent::Noise as usize + 1;

/// The counts of a comparison at this gateway, since it was told to compare.
#[derive(Debug)]
pub struct TrialCounters {
    trial: Trial,
    /// Tells these counts from those of an earlier or a later life of the gateway.
    source: u64,
    control: ArmCounters,
    treatment: ArmCounters,
    copies: Box<[Padded<[AtomicU64; COPY_EVENTS]>]>,
}

#[derive(Debug, Default)]
struct ArmCounters {
    counters: ReleaseCounters,
    /// Made when the first client comes: where copies are compared, none does.
    clients: OnceLock<Box<[AtomicU8]>>,
}

impl TrialCounters {
    /// Begins to count.
    #[must_use]
    pub fn new(trial: Trial) -> Self {
        Self {
            trial,
            source: fastrand::u64(..),
            control: ArmCounters::default(),
            treatment: ArmCounters::default(),
            copies: (0..shards()).map(|_| Padded(array::from_fn(|_| AtomicU64::new(0)))).collect(),
        }
    }

    /// What is compared.
    #[must_use]
    pub const fn trial(&self) -> &Trial {
        &self.trial
    }

    const fn arm(&self, arm: Arm) -> &ArmCounters {
        match arm {
            Arm::Control => &self.control,
            Arm::Treatment => &self.treatment,
        }
    }

    /// A client came; it counts once however often it comes.
    pub fn exposed(&self, arm: Arm, hash: u64) {
        let clients = self
            .arm(arm)
            .clients
            .get_or_init(|| std::iter::repeat_with(|| AtomicU8::new(0)).take(REGISTERS).collect());
        let (register, rank) = place(hash);
        // Nearly always it is there already, and a read disturbs no other thread.
        if clients[register].load(Relaxed) < rank {
            clients[register].fetch_max(rank, Relaxed);
        }
    }

    /// A request of an arm was answered.
    pub fn answered(&self, arm: Arm, status: StatusCode, latency: Duration) {
        self.arm(arm).counters.answered(ReleaseEvent::of(status), latency);
    }

    /// No instance answered it.
    pub fn unanswered(&self, arm: Arm) {
        self.arm(arm).counters.count(ReleaseEvent::Failure);
    }

    /// Counts what became of a copy.
    pub fn copy(&self, event: CopyEvent) {
        self.copies[shard()].0[event as usize].fetch_add(1, Relaxed);
    }

    /// All of it.
    #[must_use]
    pub fn total(&self) -> TrialEvidence {
        TrialEvidence {
            source: self.source,
            rollout: self.trial.rollout,
            counts: TrialCounts {
                control: self.control.counts(),
                treatment: self.treatment.counts(),
                copies: self.copies(),
            },
            control: self.control.sketch(),
            treatment: self.treatment.sketch(),
        }
    }

    fn copies(&self) -> CopyCounts {
        let of =
            |event: CopyEvent| self.copies.iter().map(|shard| shard.0[event as usize].load(Relaxed)).sum();
        CopyCounts {
            drawn: of(CopyEvent::Drawn),
            sent: of(CopyEvent::Sent),
            not_safe: of(CopyEvent::NotSafe),
            not_small: of(CopyEvent::NotSmall),
            not_free: of(CopyEvent::NotFree),
            not_there: of(CopyEvent::NotThere),
            unanswered: of(CopyEvent::Unanswered),
            compared: of(CopyEvent::Compared),
            differs_unanswered: of(CopyEvent::DiffersUnanswered),
            differs_status: of(CopyEvent::DiffersStatus),
            differs_body: of(CopyEvent::DiffersBody),
            noise: of(CopyEvent::Noise),
        }
    }
}

impl ArmCounters {
    fn counts(&self) -> ArmCounts {
        let ReleaseEvidence { status, failures, latency, .. } = self.counters.total();
        ArmCounts { status, failures, latency }
    }

    fn sketch(&self) -> Sketch {
        let registers = self.clients.get().map(|all| all.iter().map(|it| it.load(Relaxed)).collect());
        Sketch::from_registers(registers.unwrap_or_default()).expect("each value comes from a hash")
    }
}
