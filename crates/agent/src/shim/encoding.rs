//! How texts and numbers stand in a shim's configuration, and the commands that are made of them.
//!
//! Integers are little-endian; a text is its length (u32), its bytes and a NUL, so that the shim can point into
//! what it read.

use super::memory;
use std::io;

/// Most arguments, and most variables.
const STRINGS_MAX: usize = 16_384;

pub(super) fn text(out: &mut Vec<u8>, bytes: &[u8]) -> Result<(), String> {
    if bytes.contains(&0) {
        return Err(format!("`{}` contains a NUL byte", String::from_utf8_lossy(bytes).escape_debug()));
    }
    out.extend((bytes.len() as u32).to_le_bytes());
    out.extend(bytes);
    out.push(0);
    Ok(())
}

pub(super) fn texts<'a>(
    out: &mut Vec<u8>,
    what: &str,
    list: impl ExactSizeIterator<Item = &'a [u8]>,
) -> Result<(), String> {
    if list.len() > STRINGS_MAX {
        return Err(format!("{} {what}; at most {STRINGS_MAX} are possible", list.len()));
    }
    out.extend((list.len() as u32).to_le_bytes());
    for bytes in list {
        text(out, bytes)?;
    }
    Ok(())
}

/// What is executed: NUL-terminated texts and null-terminated tables, for execve(2).
pub(super) struct Command {
    pub(super) program: *const libc::c_char,
    pub(super) cwd: *const libc::c_char,
    pub(super) argv: &'static [*const libc::c_char],
    pub(super) envp: &'static [*const libc::c_char],
    /// The digits of `LISTEN_PID=` in the environment, filled in by the child; empty without listeners.
    pub(super) listen_pid: &'static mut [u8],
    /// Those of `WATCHDOG_PID=`; empty without a watchdog.
    pub(super) watchdog_pid: &'static mut [u8],
}

/// Digits of the largest process id, and a NUL.
const PID_TEXT_BYTES: usize = 11;

/// `NAME=` and room for the digits of a process id, where it is wanted.
pub(super) fn with_digits(name: &[u8], wanted: bool) -> io::Result<&'static mut [u8]> {
    let variable = memory::map(if wanted { name.len() + PID_TEXT_BYTES } else { 0 })?;
    if wanted {
        variable[..name.len()].copy_from_slice(name);
    }
    Ok(variable)
}

/// The room in what [`with_digits`] made.
pub(super) fn digits_of(variable: &'static mut [u8], name: &[u8]) -> &'static mut [u8] {
    let start = name.len().min(variable.len());
    &mut variable[start..]
}

/// What is read, and how far.
pub(super) struct Input {
    pub(super) bytes: &'static [u8],
    pub(super) at: usize,
}

impl Input {
    pub(super) fn take(&mut self, len: usize) -> io::Result<&'static [u8]> {
        let end = self.at.checked_add(len).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        let part = &self.bytes[self.at..end];
        self.at = end;
        Ok(part)
    }
    pub(super) fn array<const N: usize>(&mut self) -> io::Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }
    pub(super) fn u8(&mut self) -> io::Result<u8> {
        Ok(self.array::<1>()?[0])
    }
    pub(super) fn u64(&mut self) -> io::Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }
    pub(super) fn bytes(&mut self) -> io::Result<&'static [u8]> {
        let len = u32::from_le_bytes(self.array()?) as usize;
        self.take(len)
    }
    pub(super) fn text(&mut self) -> io::Result<*const libc::c_char> {
        let len = u32::from_le_bytes(self.array()?) as usize;
        let text = self.take(len + 1)?;
        if text[len] != 0 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(text.as_ptr().cast())
    }
    /// A text without its NUL.
    pub(super) fn plain_text(&mut self) -> io::Result<&'static [u8]> {
        let text = self.bytes()?;
        self.take(1)?;
        Ok(text)
    }
    /// A null-terminated table of the texts that follow, after those in `first`.
    pub(super) fn table(
        &mut self,
        first: &[*const libc::c_char],
    ) -> io::Result<&'static [*const libc::c_char]> {
        let count = u32::from_le_bytes(self.array()?) as usize;
        if count > STRINGS_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let table = memory::map_pointers(first.len() + count + 1)?;
        table[..first.len()].copy_from_slice(first);
        for entry in &mut table[first.len()..first.len() + count] {
            *entry = self.text()?;
        }
        Ok(table)
    }
}
