//! Counters that threads do not fight over: each thread counts on a shard of its own, readers add the shards up.

use std::cell::Cell;
use std::sync::LazyLock;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// More shards than this are not made: a machine with more cores shares some, which costs little.
const SHARDS_MAX: usize = 32;

static SHARDS: LazyLock<usize> =
    LazyLock::new(|| std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(SHARDS_MAX));
static NEXT: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
}

/// How many shards there are: one for each core.
pub(crate) fn shards() -> usize {
    *SHARDS
}

/// The shard of this thread.
pub(crate) fn shard() -> usize {
    MINE.with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Relaxed) % shards());
        }
        mine.get()
    })
}

/// A value on cache lines of its own: two lines, since processors fetch them in pairs.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);
