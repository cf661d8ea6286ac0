//! Where the frames of a WebSocket begin and end (RFC 6455, 5.2), so that a close frame can be put between two of them,
//! and nothing else: what is in them is not looked at.

use std::num::NonZeroU64;

/// A server's close frame: unmasked, status 1012, "service restart" (the IANA registry of close codes).
pub(super) const CLOSE_TO_CLIENT: [u8; 4] = [0x88, 0x02, 0x03, 0xf4];
/// A client's: the same, masked with zeros, which leave it as it is.
pub(super) const CLOSE_TO_INSTANCE: [u8; 8] = [0x88, 0x82, 0, 0, 0, 0, 0x03, 0xf4];

/// The longest header: two bytes, eight of length, four of mask.
const HEADER_MAX: usize = 14;

/// Follows the frames that pass in one direction.
#[derive(Debug, Default)]
pub(super) struct Frames {
    header: [u8; HEADER_MAX],
    /// Of the header that has begun.
    known: usize,
    /// Of the payload that is still to come.
    payload: Option<NonZeroU64>,
    /// A close frame has passed: nothing may follow it.
    closed: bool,
}

impl Frames {
    /// These bytes pass.
    pub(super) fn pass(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            if let Some(payload) = self.payload {
                let some = usize::try_from(payload.get()).unwrap_or(usize::MAX).min(bytes.len());
                self.payload = NonZeroU64::new(payload.get() - some as u64);
                bytes = &bytes[some..];
                continue;
            }
            self.header[self.known] = bytes[0];
            self.known += 1;
            bytes = &bytes[1..];
            if self.known >= 2 && self.known == self.header_length() {
                self.closed |= self.header[0] & 0x0f == 0x8;
                self.payload = NonZeroU64::new(self.payload_length());
                self.known = 0;
            }
        }
    }

    /// The latest frame has passed whole, and another may come after it.
    pub(super) fn is_between(&self) -> bool {
        self.known == 0 && self.payload.is_none() && !self.closed
    }

    fn header_length(&self) -> usize {
        let mask = if self.header[1] & 0x80 == 0 { 0 } else { 4 };
        mask + match self.header[1] & 0x7f {
            126 => 4,
            127 => 10,
            _ => 2,
        }
    }

    fn payload_length(&self) -> u64 {
        let big_endian = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | u64::from(*byte));
        match self.header[1] & 0x7f {
            126 => big_endian(&self.header[2..4]),
            127 => big_endian(&self.header[2..10]),
            short => u64::from(short),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn frame(opcode: u8, masked: bool, payload: usize) -> Vec<u8> {
        let mut bytes = vec![0x80 | opcode];
        let mask = if masked { 0x80 } else { 0 };
        match payload {
            0..=125 => bytes.push(mask | u8::try_from(payload).expect("small")),
            126..=0xffff => {
                bytes.push(mask | 126);
                bytes.extend(u16::try_from(payload).expect("below").to_be_bytes());
            }
            _ => {
                bytes.push(mask | 127);
                bytes.extend((payload as u64).to_be_bytes());
            }
        }
        if masked {
            bytes.extend([1, 2, 3, 4]);
        }
        bytes.resize(bytes.len() + payload, 0x88);
        bytes
    }

    #[test]
    fn our_own_close_frames_are_whole_frames_and_the_last() {
        for bytes in [&CLOSE_TO_CLIENT[..], &CLOSE_TO_INSTANCE[..]] {
            let mut frames = Frames::default();
            frames.pass(&bytes[..bytes.len() - 1]);
            assert!(frames.payload.is_some(), "one byte is missing");
            frames.pass(&bytes[bytes.len() - 1..]);
            assert!(frames.closed && frames.known == 0 && frames.payload.is_none());
        }
    }

    proptest! {
        /// Whatever passes, in whatever pieces: it is followed alike, and nothing may come after a close frame.
        #[test]
        fn anything_may_pass_in_any_pieces(
            bytes in prop::collection::vec(prop_oneof![any::<u8>(), Just(0x88), Just(0xff), Just(0x7e), Just(0)], 0..400),
            cuts in prop::collection::vec(1_usize..40, 1..8),
        ) {
            let mut whole = Frames::default();
            whole.pass(&bytes);
            let (mut pieces, mut at, mut closed) = (Frames::default(), 0, false);
            for cut in cuts.iter().cycle() {
                let end = (at + cut).min(bytes.len());
                pieces.pass(&bytes[at..end]);
                prop_assert!(!closed || pieces.closed);
                prop_assert!(!(pieces.closed && pieces.is_between()));
                (at, closed) = (end, pieces.closed);
                if at == bytes.len() {
                    break;
                }
            }
            prop_assert_eq!((pieces.known, pieces.payload, pieces.closed), (whole.known, whole.payload, whole.closed));
        }

        #[test]
        fn it_is_between_frames_exactly_where_one_ends(
            frames in prop::collection::vec(
                (0_u8..3, any::<bool>(), prop_oneof![0_usize..130, 120_usize..300, 65_000_usize..66_000]), 1..6,
            ),
            cut in 1_usize..700,
        ) {
            let (mut bytes, mut ends) = (Vec::new(), vec![0]);
            for (opcode, masked, payload) in frames {
                bytes.extend(frame(opcode, masked, payload));
                ends.push(bytes.len());
            }
            let (mut follower, mut at) = (Frames::default(), 0);
            for piece in bytes.chunks(cut) {
                follower.pass(piece);
                at += piece.len();
                prop_assert_eq!(follower.is_between(), ends.contains(&at), "at {}", at);
            }
        }
    }
}
