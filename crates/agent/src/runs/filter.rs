//! Classic BPF programs that pick a socket of an SO_REUSEPORT group.
#![allow(unsafe_code)] // A socket option that no safe wrapper knows; the block says why it holds.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

/// One instruction of classic BPF.
pub(super) type Insn = libc::sock_filter;

/// Offsets from here on are into the network header (linux/filter.h).
const SKF_NET_OFF: u32 = -0x0010_0000_i32 as u32;
const LD_ABS_B: u16 = 0x30;
const LD_ABS_H: u16 = 0x28;
const LD_ABS_W: u16 = 0x20;
const LD_IND_H: u16 = 0x48;
const AND_K: u16 = 0x54;
const LSH_K: u16 = 0x64;
const TAX: u16 = 0x07;
const JEQ_K: u16 = 0x15;
const RET_K: u16 = 0x06;

/// A program under construction: blocks, one per source, each skipped as a whole where a comparison fails.
pub(super) struct Filter {
    insns: Vec<Insn>,
    /// Comparisons of the block under way, to be pointed behind it.
    skips: Vec<usize>,
}

impl Filter {
    pub(super) fn new() -> Self {
        Self { insns: Vec::new(), skips: Vec::new() }
    }
    fn push(&mut self, code: u16, k: u32) -> &mut Self {
        self.insns.push(Insn { code, jt: 0, jf: 0, k });
        self
    }
    pub(super) fn load_network_byte(&mut self, at: u32) -> &mut Self {
        self.push(LD_ABS_B, SKF_NET_OFF.wrapping_add(at))
    }
    pub(super) fn load_network_half(&mut self, at: u32) -> &mut Self {
        self.push(LD_ABS_H, SKF_NET_OFF.wrapping_add(at))
    }
    pub(super) fn load_network_word(&mut self, at: u32) -> &mut Self {
        self.push(LD_ABS_W, SKF_NET_OFF.wrapping_add(at))
    }
    /// The IPv4 header has options: its length is four times its second nibble.
    pub(super) fn load_ipv4_source_port(&mut self) -> &mut Self {
        self.load_network_byte(0).and(0x0F).push(LSH_K, 2).push(TAX, 0).push(LD_IND_H, SKF_NET_OFF)
    }
    pub(super) fn and(&mut self, mask: u32) -> &mut Self {
        self.push(AND_K, mask)
    }
    pub(super) fn unless_equal_skip_source(&mut self, value: u32) -> &mut Self {
        self.skips.push(self.insns.len());
        self.push(JEQ_K, value)
    }
    pub(super) fn give(&mut self, value: u32) -> &mut Self {
        self.push(RET_K, value)
    }
    pub(super) fn end_source(&mut self) {
        let end = self.insns.len();
        for at in self.skips.drain(..) {
            // A block has fewer than 20 instructions.
            self.insns[at].jf = (end - at - 1) as u8;
        }
    }
    pub(super) fn finish(self) -> Vec<Insn> {
        self.insns
    }
}

/// Makes this the program of the socket's SO_REUSEPORT group, in place of the one before, for all its sockets.
pub(super) fn attach(socket: &OwnedFd, program: &[Insn]) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(io::Error::other)?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut() };
    // SAFETY: the kernel copies `len` instructions from the slice and the sock_fprog itself; it writes to neither.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
