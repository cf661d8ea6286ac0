//! How many different clients there were, without remembering any of them: a HyperLogLog (Flajolet, Fusy, Gandouet and
//! Meunier, 2007) with the estimator of Ertl ("New cardinality estimation algorithms for HyperLogLog sketches", 2017,
//! section 2.4), which needs no table of corrections and is as good for a handful as for billions.
//!
//! Each client is a hash of 64 bits. Its first [`PRECISION`] bits choose a register, which keeps the longest run of zeros
//! that followed. Two sketches merge into the sketch of everybody in either; one that is merged twice changes nothing.

use serde::{Deserialize, Serialize};

/// Bits of a hash that choose a register.
pub const PRECISION: u32 = 14;
/// Registers of a sketch: 16 KiB.
pub const REGISTERS: usize = 1 << PRECISION;
/// The largest value of a register: all of a hash's other bits are zero.
pub const RANK_MAX: u8 = 64 - 14 + 1;
/// The standard error of an estimate, as a part of it: 1.04 / √[`REGISTERS`].
pub const STANDARD_ERROR: f64 = 0.008_125;

/// A register in the stored text is one character, counted from this one.
const ZERO: u8 = b'0';

/// A set of clients, of which only the size can be asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Sketch {
    /// Empty while there is nobody, [`REGISTERS`] otherwise.
    registers: Vec<u8>,
}

/// Why registers are not a sketch's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SketchError {
    /// Their number.
    #[error("a sketch has {REGISTERS} registers or none, not {0}")]
    Length(usize),
    /// A value that no hash leads to.
    #[error("a register of a sketch is at most {RANK_MAX}, not {0}")]
    Rank(u8),
}

/// The register that a client falls on, and what it brings it to at least.
#[must_use]
pub const fn place(hash: u64) -> (usize, u8) {
    let register = (hash >> (64 - PRECISION)) as usize;
    let zeros = (hash << PRECISION).leading_zeros() as u8;
    let rank = if zeros >= RANK_MAX { RANK_MAX } else { zeros + 1 };
    (register, rank)
}

impl Sketch {
    /// A sketch from its registers; those of nobody are kept as none.
    ///
    /// # Errors
    /// When there are not as many as there must be, or one is larger than any hash makes it.
    pub fn from_registers(registers: Vec<u8>) -> Result<Self, SketchError> {
        if !registers.is_empty() && registers.len() != REGISTERS {
            return Err(SketchError::Length(registers.len()));
        }
        if let Some(rank) = registers.iter().find(|rank| **rank > RANK_MAX) {
            return Err(SketchError::Rank(*rank));
        }
        let nobody = registers.iter().all(|rank| *rank == 0);
        Ok(Self { registers: if nobody { Vec::new() } else { registers } })
    }

    /// Its registers; none while there is nobody.
    #[must_use]
    pub fn registers(&self) -> &[u8] {
        &self.registers
    }

    /// Adds a client, by a hash that has nothing to do with anything that clients were chosen by.
    pub fn add(&mut self, hash: u64) {
        let (register, rank) = place(hash);
        self.registers.resize(REGISTERS, 0);
        self.registers[register] = self.registers[register].max(rank);
    }

    /// Adds everybody of `other`.
    pub fn merge(&mut self, other: &Self) {
        if other.registers.is_empty() {
            return;
        }
        self.registers.resize(REGISTERS, 0);
        for (own, other) in self.registers.iter_mut().zip(&other.registers) {
            *own = (*own).max(*other);
        }
    }

    /// About how many clients there were: within [`STANDARD_ERROR`] two times of three, within three of them nearly
    /// always.
    #[must_use]
    #[allow(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an estimate, not negative and far below 2^52"
    )]
    pub fn count(&self) -> u64 {
        if self.registers.is_empty() {
            return 0;
        }
        let mut of_rank = [0_u32; RANK_MAX as usize + 1];
        for rank in &self.registers {
            of_rank[usize::from(*rank)] += 1;
        }
        let whole = REGISTERS as f64;
        let last = usize::from(RANK_MAX);
        let mut sum = whole * tau(1.0 - f64::from(of_rank[last]) / whole);
        for count in of_rank[1..last].iter().rev() {
            sum = 0.5 * (sum + f64::from(*count));
        }
        sum += whole * sigma(f64::from(of_rank[0]) / whole);
        (whole * whole / (2.0 * std::f64::consts::LN_2 * sum)).round() as u64
    }
}

/// What registers that no client fell on add: Ertl's σ, the sum of x^(2^k) 2^(k-1).
fn sigma(part: f64) -> f64 {
    let (mut power, mut weight, mut sum) = (part, 1.0, part);
    // Doubles its exponent each time: from below 1 it vanishes after some 60.
    loop {
        power *= power;
        let next = sum + power * weight;
        weight += weight;
        if next == sum || !next.is_finite() {
            return next;
        }
        sum = next;
    }
}

/// What registers that are full take away: Ertl's τ.
fn tau(part: f64) -> f64 {
    if part <= 0.0 || part >= 1.0 {
        return 0.0;
    }
    let (mut root, mut weight, mut sum) = (part, 1.0, 1.0 - part);
    // Halves its weight each time.
    loop {
        root = root.sqrt();
        weight *= 0.5;
        let next = sum - (1.0 - root) * (1.0 - root) * weight;
        if next == sum {
            return next / 3.0;
        }
        sum = next;
    }
}

impl From<Sketch> for String {
    fn from(sketch: Sketch) -> Self {
        sketch.registers.into_iter().map(|rank| char::from(ZERO + rank)).collect()
    }
}

impl TryFrom<String> for Sketch {
    type Error = SketchError;
    fn try_from(text: String) -> Result<Self, SketchError> {
        // What lies below the first character is told as a value that cannot be.
        Self::from_registers(text.into_bytes().into_iter().map(|byte| byte.wrapping_sub(ZERO)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// SplitMix64 (Steele, Lea and Flood, 2014).
    fn hash(number: u64) -> u64 {
        let mut state = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        state = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        state = (state ^ (state >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        state ^ (state >> 31)
    }

    fn of(clients: impl Iterator<Item = u64>) -> Sketch {
        let mut sketch = Sketch::default();
        clients.for_each(|client| sketch.add(hash(client)));
        sketch
    }

    #[test]
    #[allow(clippy::cast_precision_loss, reason = "a share")]
    fn the_number_of_clients_is_known_within_its_error() {
        assert_eq!(Sketch::default().count(), 0);
        for (index, clients) in
            [1_u64, 10, 100, 1_000, 5_000, 20_000, 50_000, 200_000].into_iter().enumerate()
        {
            let from = 10_000_000 * index as u64;
            let counted = of(from..from + clients).count();
            let off = (counted as f64 / clients as f64 - 1.0).abs();
            assert!(off < 4.0 * STANDARD_ERROR, "{counted} of {clients}");
        }
        assert_eq!(of(0..10).count(), 10, "a handful is known exactly");
    }

    #[test]
    fn a_client_counts_once_wherever_and_however_often_it_came() {
        let mut both = of(0..6_000);
        let other = of(4_000..10_000);
        both.merge(&other);
        both.merge(&other);
        assert_eq!(both, of(0..10_000));
    }

    #[test]
    fn every_hash_has_its_place() {
        assert_eq!(place(0), (0, RANK_MAX));
        assert_eq!(place(1), (0, RANK_MAX - 1));
        assert_eq!(place(u64::MAX), (REGISTERS - 1, 1));
        let mut full = Sketch::from_registers(vec![RANK_MAX; REGISTERS]).unwrap();
        full.add(7);
        assert!(full.count() > 1 << 40, "all registers full is more than anybody counts");
    }

    #[test]
    fn what_is_stored_is_read_and_what_is_none_is_refused() {
        for sketch in [Sketch::default(), of(0..1), of(0..100_000)] {
            assert_eq!(Sketch::try_from(String::from(sketch.clone())).unwrap(), sketch);
        }
        assert_eq!(Sketch::from_registers(vec![0; REGISTERS]).unwrap(), Sketch::default());
        assert_eq!(Sketch::from_registers(vec![0; 7]), Err(SketchError::Length(7)));
        assert_eq!(Sketch::from_registers(vec![52; REGISTERS]), Err(SketchError::Rank(52)));
        assert!(Sketch::try_from("!".repeat(REGISTERS)).is_err());
    }

    proptest! {
        #[test]
        fn the_order_of_merges_does_not_matter(sets in prop::collection::vec(prop::collection::vec(any::<u64>(), 0..20), 0..5)) {
            let merged = |order: &mut dyn Iterator<Item = &Vec<u64>>| {
                let mut all = Sketch::default();
                order.for_each(|set| all.merge(&of(set.iter().copied())));
                all
            };
            prop_assert_eq!(merged(&mut sets.iter()), merged(&mut sets.iter().rev()));
        }
    }
}
