//! Counts answers: so many successes in a row pass, so many failures in a row fail.

use baton_model::spec::Check;

/// What the answers so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// `rise` successes in a row, and not `fall` failures in a row since.
    Passing,
    /// `fall` failures in a row, and not `rise` successes in a row since.
    Failing,
    /// Neither yet, or on the way from one to the other.
    Undecided,
}

/// The count of one check.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    rise: u32,
    fall: u32,
    successes: u32,
    failures: u32,
    state: Option<bool>,
}

impl Tally {
    pub(crate) fn new(check: &Check) -> Self {
        Self { rise: check.rise.max(1), fall: check.fall.max(1), successes: 0, failures: 0, state: None }
    }

    /// A count that has passed already.
    pub(crate) fn passing(check: &Check) -> Self {
        Self { state: Some(true), ..Self::new(check) }
    }

    /// Takes one answer in. A failure that is not `counted` still breaks a row of successes.
    pub(crate) fn count(&mut self, success: bool, counted: bool) -> Verdict {
        if success {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            if self.successes >= self.rise {
                self.state = Some(true);
                return Verdict::Passing;
            }
        } else {
            self.successes = 0;
            self.failures = self.failures.saturating_add(u32::from(counted));
            if self.failures >= self.fall {
                self.state = Some(false);
                return Verdict::Failing;
            }
        }
        Verdict::Undecided
    }

    /// Whether it has passed, and has not failed since.
    pub(crate) fn passed(&self) -> bool {
        self.state == Some(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use baton_model::spec::Probe;
    use baton_model::time::Millis;

    /// Answers as `+` (success), `-` (failure) and `.` (failure that does not count); verdicts as P, F and `?`.
    fn run(rise: u32, fall: u32, answers: &str) -> String {
        let check = Check {
            probe: Probe::Tcp { port: "http".parse().unwrap() },
            interval: Millis(1),
            timeout: Millis(1),
            rise,
            fall,
        };
        let mut tally = Tally::new(&check);
        answers
            .chars()
            .map(|answer| match tally.count(answer == '+', answer != '.') {
                Verdict::Passing => 'P',
                Verdict::Failing => 'F',
                Verdict::Undecided => '?',
            })
            .collect()
    }

    #[test]
    fn rows_decide() {
        assert_eq!(run(1, 1, "+-+-"), "PFPF");
        assert_eq!(run(2, 3, "+-++---+-++"), "???P??F???P");
        assert_eq!(run(1, 3, "+--+---"), "P??P??F");
        assert_eq!(run(1, 2, "......--"), "???????F");
        assert_eq!(run(2, 2, "+.+"), "???");
    }
}
