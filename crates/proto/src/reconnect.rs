//! The pauses between two attempts to reach the coordinator: growing, and different for each who tries.

use std::time::Duration;

/// The first pause at most.
const FIRST: Duration = Duration::from_millis(100);
/// The longest pause: a coordinator that is back has everyone back within this.
const LONGEST: Duration = Duration::from_secs(2);

/// Doubles from [`FIRST`] to [`LONGEST`]; of each pause, a random half to the whole is taken, so that a fleet
/// does not come back all at once (Brooker, "Exponential Backoff and Jitter", AWS 2015, its "equal jitter").
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
}

impl Default for Backoff {
    fn default() -> Self {
        Self { next: FIRST }
    }
}

impl Backoff {
    /// The next pause is the longest one.
    pub fn lengthen(&mut self) {
        self.next = LONGEST;
    }

    /// How long to wait now.
    #[must_use]
    pub fn pause(&mut self) -> Duration {
        let whole = self.next;
        self.next = (whole * 2).min(LONGEST);
        // Without randomness the pause is whole: late, never wrong.
        let random = getrandom::u32().unwrap_or(u32::MAX);
        whole / 2 + (whole / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_stay_within_their_half() {
        let mut backoff = Backoff::default();
        for whole in [100, 200, 400, 800, 1600, 2000, 2000] {
            let pause = backoff.pause().as_millis();
            assert!((whole / 2..=whole).contains(&pause), "{pause} of {whole}");
        }
    }
}
