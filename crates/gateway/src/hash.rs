//! Hashes that are the same on every gateway, in every version and on every machine: a client stays where it is.
//!
//! FNV-1a (Fowler, Noll and Vo) over the bytes, then the finaliser of MurmurHash3 (Appleby), since FNV alone mixes its
//! high bits badly for keys that differ only at their end, as numbered users do.

/// Points that a hash can fall on: a share of 1 is one hundredth of a percent.
pub const POINTS: u16 = 10_000;

const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// What a hash is for: hashes of one key for two purposes have nothing to do with each other, so that the users of one
/// experiment are no more likely than others to be in the next canary.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Salt(u64);

impl Salt {
    /// The salt of a purpose within a service.
    #[must_use]
    pub fn new(service: &str, purpose: &str) -> Self {
        let state = absorb(FNV_OFFSET, service.as_bytes());
        Self(absorb(absorb(state, b"\0"), purpose.as_bytes()))
    }

    /// The hash of `key`.
    #[must_use]
    pub fn hash(self, key: &[u8]) -> u64 {
        finish(absorb(self.0, key))
    }
}

fn absorb(mut state: u64, bytes: &[u8]) -> u64 {
    for byte in bytes {
        state = (state ^ u64::from(*byte)).wrapping_mul(FNV_PRIME);
    }
    state
}

/// The finaliser of MurmurHash3: each bit of the input moves half of the output's.
#[must_use]
pub const fn finish(mut state: u64) -> u64 {
    state = (state ^ (state >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    state = (state ^ (state >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    state ^ (state >> 33)
}

/// The point from 0 to 9,999 that a hash or a random number falls on: its place among all numbers of 64 bits.
#[must_use]
pub const fn point(hash: u64) -> u16 {
    ((hash as u128 * POINTS as u128) >> 64) as u16
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_is_the_same_in_every_version() {
        assert_eq!(point(0), 0);
        assert_eq!(point(u64::MAX), POINTS - 1);
        let salt = Salt::new("web", "split");
        let points: Vec<u16> = ["ada", "grace", "user-1", "user-2", ""]
            .iter()
            .map(|key| point(salt.hash(key.as_bytes())))
            .collect();
        assert_eq!(points, [5452, 4414, 512, 7708, 1038], "clients would move at an upgrade of the gateway");
    }

    #[test]
    fn purposes_are_independent() {
        let (one, two) = (Salt::new("web", "split"), Salt::new("web", "share"));
        let both = (0..100_000)
            .filter(|user: &u32| {
                let key = user.to_string();
                point(one.hash(key.as_bytes())) < 1_000 && point(two.hash(key.as_bytes())) < 1_000
            })
            .count();
        // 1,000 expected, standard deviation 31; six of them.
        assert!((812..1_188).contains(&both), "{both} of 100,000 fell into both tenths");
    }
}
