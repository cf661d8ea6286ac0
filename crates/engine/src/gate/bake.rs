//! The bake: a stage rests, all healthy, before the next one begins.

use baton_model::time::{Millis, UnixMs};

/// Until when a stage that is healthy since `healthy_at` still bakes; `None` once it is done.
pub(crate) fn bakes_until(healthy_at: UnixMs, bake: Millis, now: UnixMs) -> Option<UnixMs> {
    let end = healthy_at.plus(bake);
    (now < end).then_some(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_exactly_when_its_time_is_over() {
        let until = |now| bakes_until(UnixMs(100), Millis(50), UnixMs(now));
        assert_eq!(until(100), Some(UnixMs(150)));
        assert_eq!(until(149), Some(UnixMs(150)));
        assert_eq!(until(150), None);
        assert_eq!(bakes_until(UnixMs(100), Millis::ZERO, UnixMs(100)), None);
    }
}
