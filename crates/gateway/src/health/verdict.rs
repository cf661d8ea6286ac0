//! From single checks to a verdict: so many in a row, either way.

/// What the checks of an upstream say together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    well: bool,
    /// Checks in a row that said otherwise.
    against: u32,
}

impl Verdict {
    /// An upstream is well until its checks say otherwise: the coordinator has asked it before it named it.
    pub(super) const fn new(well: bool) -> Self {
        Self { well, against: 0 }
    }

    /// The verdict after one more check.
    #[must_use]
    pub(super) fn after(self, passed: bool, rise: u32, fall: u32) -> Self {
        let against = if passed == self.well { 0 } else { self.against.saturating_add(1) };
        let needed = if passed { rise } else { fall };
        if against >= needed.max(1) && passed != self.well {
            Self::new(passed)
        } else {
            Self { against, ..self }
        }
    }

    pub(super) const fn is_well(self) -> bool {
        self.well
    }

    /// The last check said otherwise: the next one follows soon.
    pub(super) const fn is_in_doubt(self) -> bool {
        self.against > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each character of `checks` is a check, `+` passed and `-` failed; each of `expect` is the verdict after it.
    fn check(rise: u32, fall: u32, checks: &str, expect: &str) {
        let mut verdict = Verdict::new(true);
        let told: String = checks
            .chars()
            .map(|it| {
                verdict = verdict.after(it == '+', rise, fall);
                if verdict.is_well() { 'w' } else { 'd' }
            })
            .collect();
        assert_eq!(told, expect, "rise {rise}, fall {fall}, {checks}");
    }

    #[test]
    fn so_many_in_a_row() {
        check(2, 3, "---", "wwd");
        check(2, 3, "--+--+---", "wwwwwwwwd");
        check(2, 3, "---+-++", "wwddddw");
        check(1, 1, "-+-", "dwd");
        check(0, 0, "-+", "dw");
    }

    #[test]
    fn in_doubt_from_the_first_that_says_otherwise() {
        let once = Verdict::new(true).after(false, 2, 3);
        assert!(once.is_in_doubt() && !once.after(true, 2, 3).is_in_doubt());
        assert!(!Verdict::new(true).after(false, 2, 1).is_in_doubt(), "decided");
    }
}
