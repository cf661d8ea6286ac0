//! When a workload that ended is started again: the restart policy, as pure arithmetic.

use baton_model::observed::Exit;
use baton_model::spec::RestartMode;

/// The policy, as in `baton_model::spec::RestartPolicy`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Policy {
    pub(super) mode: RestartMode,
    pub(super) base_ms: u64,
    pub(super) max_ms: u64,
    pub(super) reset_after_ms: u64,
    pub(super) crash_loop_after: u32,
}

/// The memory of the policy.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Crashes {
    in_a_row: u32,
}

/// What follows an end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Start again after this; `None`: stay down.
    pub(super) restart_in_ms: Option<u64>,
    pub(super) crash_loop: bool,
}

impl Crashes {
    /// How many there were without a healthy time between.
    pub(super) fn in_a_row(self) -> u32 {
        self.in_a_row
    }

    /// Takes in an end after `ran_ms`. `ordered`: a restart was asked for, so it follows whatever the mode is.
    /// `random` is uniform; full jitter picks the delay with it.
    pub(super) fn ended(
        &mut self,
        policy: &Policy,
        exit: Exit,
        ran_ms: u64,
        ordered: bool,
        random: u64,
    ) -> Verdict {
        if ran_ms >= policy.reset_after_ms {
            self.in_a_row = 0;
        }
        let again = ordered
            || match policy.mode {
                RestartMode::Always => true,
                RestartMode::OnFailure => exit != Exit::Code(0),
                RestartMode::Never => false,
            };
        self.in_a_row = self.in_a_row.saturating_add(1);
        let crash_loop = policy.crash_loop_after > 0 && self.in_a_row >= policy.crash_loop_after;
        let restart_in_ms = again.then(|| match self.in_a_row {
            1 => 0,
            n => random % (Self::cap_ms(policy, n) + 1),
        });
        Verdict { restart_in_ms, crash_loop }
    }

    /// The longest delay before the restart that follows the `n`th crash in a row (`n` from 2).
    fn cap_ms(policy: &Policy, n: u32) -> u64 {
        let doublings = (n - 2).min(63);
        let doubled = policy.base_ms.checked_shl(doublings).filter(|d| d >> doublings == policy.base_ms);
        doubled.unwrap_or(u64::MAX - 1).min(policy.max_ms).min(u64::MAX - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: Policy = Policy {
        mode: RestartMode::Always,
        base_ms: 100,
        max_ms: 1000,
        reset_after_ms: 60_000,
        crash_loop_after: 3,
    };
    const SEGV: Exit = Exit::Signal(11);

    /// The delays after crashes in a row, each at its longest: `random` modulo (cap + 1) is cap.
    fn longest(policy: &Policy, count: u32) -> Vec<u64> {
        let mut crashes = Crashes::default();
        (1..=count)
            .map(|n| {
                let cap = if n == 1 { 0 } else { Crashes::cap_ms(policy, n) };
                crashes.ended(policy, SEGV, 10, false, cap).restart_in_ms.unwrap()
            })
            .collect()
    }

    #[test]
    fn first_at_once_then_doubling_to_the_maximum() {
        assert_eq!(longest(&POLICY, 7), [0, 100, 200, 400, 800, 1000, 1000]);
        let huge = Policy { base_ms: 1 << 40, max_ms: u64::MAX, ..POLICY };
        assert!(longest(&huge, 200).is_sorted());
    }

    #[test]
    fn jitter_is_full() {
        let mut crashes = Crashes { in_a_row: 1 };
        assert_eq!(crashes.ended(&POLICY, SEGV, 0, false, 101 * 7).restart_in_ms, Some(0));
        let mut crashes = Crashes { in_a_row: 1 };
        assert_eq!(crashes.ended(&POLICY, SEGV, 0, false, 101 * 7 + 55).restart_in_ms, Some(55));
    }

    #[test]
    fn health_forgets_earlier_crashes() {
        let mut crashes = Crashes { in_a_row: 9 };
        let verdict = crashes.ended(&POLICY, SEGV, 60_000, false, 77);
        assert_eq!(verdict, Verdict { restart_in_ms: Some(0), crash_loop: false });
        assert!(Crashes { in_a_row: 9 }.ended(&POLICY, SEGV, 59_999, false, 77).crash_loop);
    }

    #[test]
    fn a_crash_loop_is_told_and_retried() {
        let mut crashes = Crashes::default();
        let verdicts: Vec<_> = (0..4).map(|_| crashes.ended(&POLICY, SEGV, 5, false, 0)).collect();
        assert_eq!(verdicts.iter().map(|v| v.crash_loop).collect::<Vec<_>>(), [false, false, true, true]);
        assert!(verdicts.iter().all(|v| v.restart_in_ms.is_some()));
    }

    #[test]
    fn the_mode_says_what_is_followed_by_a_restart() {
        let again = |mode, exit, ordered| {
            Crashes::default().ended(&Policy { mode, ..POLICY }, exit, 5, ordered, 0).restart_in_ms.is_some()
        };
        assert!(again(RestartMode::Always, Exit::Code(0), false));
        assert!(!again(RestartMode::OnFailure, Exit::Code(0), false));
        assert!(again(RestartMode::OnFailure, Exit::Code(1), false));
        assert!(again(RestartMode::OnFailure, Exit::Exec(2), false));
        assert!(!again(RestartMode::Never, SEGV, false));
        assert!(again(RestartMode::Never, SEGV, true));
    }
}
