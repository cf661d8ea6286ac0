//! What happened, line by line: hashed always, kept or printed only when asked. Two runs of a seed are the same run
//! when their hashes are.

/// FNV-1a, 64 bits: small, and the same on every machine.
const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const PRIME: u64 = 0x0100_0000_01b3;

/// The record of one run.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    hash: u64,
    /// Lines are printed as they come.
    print: bool,
}

impl Trace {
    pub(crate) fn new(print: bool) -> Self {
        Self { hash: OFFSET, print }
    }

    /// Takes a line in.
    pub(crate) fn line(&mut self, at: u64, text: &str) {
        for byte in at.to_le_bytes().iter().chain(text.as_bytes()) {
            self.hash = (self.hash ^ u64::from(*byte)).wrapping_mul(PRIME);
        }
        if self.print {
            println!("{:>4}.{:03} {text}", at / 1000, at % 1000);
        }
    }

    /// The hash of all lines so far.
    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }
}
