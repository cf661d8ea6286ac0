//! Exit codes, for scripts. They are part of the interface: documented in `docs/cli.md` and `baton --help`.

use baton_model::rollout::RolloutOutcome;
use std::process::ExitCode;

/// The exit codes, as `--help` prints them.
pub(crate) const EXIT_CODES: &str = "\
Exit codes:
  0    done as asked
  1    it could not be done; stderr says why and what to do
  2    the command line, or a file given to it, is wrong; nothing was changed
  3    the rollout failed or was aborted, and the service is back at the release before
  4    the rollout failed with nothing to go back to or was superseded; a demo broke a promise
  5    the rollout is paused and waits for an operator
  6    the time given with --timeout passed first; the rollout goes on
  130  interrupted with Ctrl-C; a watched rollout goes on";

/// How a command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// Done as asked.
    Done,
    /// It could not be done; stderr says why and what to do.
    Error,
    /// The command line is wrong, or a file given to it is.
    BadUsage,
    /// The rollout failed or was aborted, and the service is back at the release before.
    RolledBack,
    /// The rollout failed and there is nothing to go back to, or a newer one took its place; a demo broke a promise.
    Failed,
    /// The rollout is held and waits for an operator.
    Paused,
    /// The time given with `--timeout` passed first; nothing was stopped by that.
    TimedOut,
    /// Ctrl-C.
    Interrupted,
}

impl Exit {
    /// All of them, in the order of their codes.
    #[cfg(test)]
    pub(crate) const ALL: [Self; 8] = [
        Self::Done,
        Self::Error,
        Self::BadUsage,
        Self::RolledBack,
        Self::Failed,
        Self::Paused,
        Self::TimedOut,
        Self::Interrupted,
    ];

    /// The number a script sees.
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::Error => 1,
            Self::BadUsage => 2,
            Self::RolledBack => 3,
            Self::Failed => 4,
            Self::Paused => 5,
            Self::TimedOut => 6,
            Self::Interrupted => 130,
        }
    }

    /// How a watched rollout ends the command; `None` while it goes on by itself.
    pub(crate) const fn of_rollout(outcome: RolloutOutcome) -> Option<Self> {
        match outcome {
            RolloutOutcome::Running | RolloutOutcome::RollingBack => None,
            RolloutOutcome::Paused => Some(Self::Paused),
            RolloutOutcome::Succeeded => Some(Self::Done),
            RolloutOutcome::RolledBack => Some(Self::RolledBack),
            RolloutOutcome::Superseded | RolloutOutcome::Failed => Some(Self::Failed),
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_documented() {
        for exit in Exit::ALL {
            assert!(EXIT_CODES.contains(&format!("\n  {:<4}", exit.code())), "{exit:?} is not in the help");
        }
    }

    #[test]
    fn only_a_rollout_that_goes_on_by_itself_is_watched_further() {
        let ends = [
            (RolloutOutcome::Running, None),
            (RolloutOutcome::RollingBack, None),
            (RolloutOutcome::Paused, Some(5)),
            (RolloutOutcome::Succeeded, Some(0)),
            (RolloutOutcome::RolledBack, Some(3)),
            (RolloutOutcome::Superseded, Some(4)),
            (RolloutOutcome::Failed, Some(4)),
        ];
        for (outcome, code) in ends {
            assert_eq!(Exit::of_rollout(outcome).map(Exit::code), code, "{outcome:?}");
        }
    }
}
