//! How one of several instances is chosen.

use crate::hash::{Salt, finish};
use crate::request::{Lookup, RequestView};
use baton_model::route::Balance;

/// A [`Balance`] made ready.
#[derive(Debug)]
pub(super) enum Balancer {
    LeastLoaded,
    RoundRobin,
    Hash { key: Lookup, salt: Salt },
}

/// How one request chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// The less loaded of two drawn by chance.
    LeastLoaded,
    /// The next one.
    RoundRobin,
    /// The one that scores highest with this hash.
    Hash(u64),
}

impl Balancer {
    pub(super) fn new(balance: &Balance, service: &str) -> Self {
        match balance {
            Balance::LeastLoaded => Self::LeastLoaded,
            Balance::RoundRobin => Self::RoundRobin,
            Balance::Hash(key) => Self::Hash {
                key: Lookup::new(key).expect("the names of headers were checked"),
                salt: Salt::new(service, "balance"),
            },
        }
    }

    /// A request without the key is sent to the less loaded of two.
    pub(super) fn way(&self, view: &RequestView<'_>) -> Way {
        match self {
            Self::LeastLoaded => Way::LeastLoaded,
            Self::RoundRobin => Way::RoundRobin,
            Self::Hash { key, salt } => key.hash(view, *salt).map_or(Way::LeastLoaded, Way::Hash),
        }
    }
}

/// What a key scores with an instance (rendezvous hashing: Thaler and Ravishankar, 1998).
pub(super) const fn score(key: u64, instance: u64) -> u64 {
    finish(key ^ instance)
}
