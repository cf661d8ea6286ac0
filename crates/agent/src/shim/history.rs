//! How the workload ended, the last times: kept for an agent that is away.

use super::protocol::{Ended, HISTORY_MAX};

/// A ring of the last [`HISTORY_MAX`] ends.
pub(super) struct History {
    ring: [Option<Ended>; HISTORY_MAX],
    last_seq: u64,
    acknowledged_seq: u64,
}

impl History {
    pub(super) const fn new() -> Self {
        Self { ring: [None; HISTORY_MAX], last_seq: 0, acknowledged_seq: 0 }
    }

    /// The number of the last end; 0: none.
    pub(super) fn last_seq(&self) -> u64 {
        self.last_seq
    }

    pub(super) fn acknowledged_seq(&self) -> u64 {
        self.acknowledged_seq
    }

    /// Keeps an end and numbers it.
    pub(super) fn push(&mut self, mut ended: Ended) -> Ended {
        self.last_seq += 1;
        ended.seq = self.last_seq;
        self.ring[(self.last_seq % HISTORY_MAX as u64) as usize] = Some(ended);
        ended
    }

    pub(super) fn acknowledge(&mut self, seq: u64) {
        self.acknowledged_seq = self.acknowledged_seq.max(seq.min(self.last_seq));
    }

    /// The end with this number, while it is kept.
    pub(super) fn get(&self, seq: u64) -> Option<&Ended> {
        self.ring[(seq % HISTORY_MAX as u64) as usize].as_ref().filter(|ended| ended.seq == seq)
    }

    /// The last end.
    pub(super) fn last(&self) -> Option<&Ended> {
        self.get(self.last_seq).filter(|_| self.last_seq > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::protocol::Note;
    use baton_model::observed::Exit;

    fn ended(code: i32) -> Ended {
        Ended {
            seq: 0,
            exit: Exit::Code(code),
            restarts: 0,
            restart_in_ms: None,
            crash_loop: false,
            stopping: false,
            note: Note::EMPTY,
            damaged: false,
        }
    }

    #[test]
    fn the_last_ends_are_kept_and_numbered() {
        let mut history = History::new();
        assert!(history.last().is_none());
        for code in 1..=40 {
            history.push(ended(code));
        }
        assert_eq!(history.last().unwrap().exit, Exit::Code(40));
        let kept: Vec<u64> = (0..=41).filter(|seq| history.get(*seq).is_some()).collect();
        assert_eq!(kept, (9..=40).collect::<Vec<_>>());
    }

    #[test]
    fn acknowledging_never_goes_back_or_ahead() {
        let mut history = History::new();
        history.push(ended(1));
        history.push(ended(2));
        history.acknowledge(99);
        assert_eq!(history.acknowledged_seq(), 2);
        history.acknowledge(1);
        assert_eq!(history.acknowledged_seq(), 2);
    }
}
