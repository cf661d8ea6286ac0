//! What a shim is told at its start, in one file read once. Not in arguments or environment: those can be read by
//! others on the machine, and the workload's environment may hold secrets.
//!
//! Integers are little-endian; a text is its length (u32), its bytes and a NUL, so that the shim can point into
//! what it read.

use super::confine::{self, PROGRAM_BYTES_MAX};
use super::lifecycle::{Life, Lifecycle};
use super::memory;
use super::protocol::{Cookie, LISTENERS_MAX};
use super::restart::Policy;
use super::seal::{SEAL_BYTES_MAX, Seal, Sealed};
use baton_model::spec::{LogPolicy, RestartMode, RestartPolicy};
use std::io;
use std::os::fd::BorrowedFd;

const VERSION: u32 = 2;
/// Longest configuration: Linux lets arguments and environment be 2 MiB by default (8 MiB of stack, a quarter).
pub(crate) const CONFIG_BYTES_MAX: usize = 2 << 20;
/// The workload's environment carries this and the run's mark, in hex: what a run left behind is known by it.
pub(crate) const MARK_PREFIX: &str = "BATON_RUN=";
/// Most arguments, and most variables.
const STRINGS_MAX: usize = 16_384;

/// The agent's side: what is to be written.
#[derive(Debug)]
pub(crate) struct Description<'a> {
    pub(crate) cookie: Cookie,
    pub(crate) mark: [u8; 16],
    pub(crate) restart: &'a RestartPolicy,
    pub(crate) logs: LogPolicy,
    pub(crate) program: &'a [u8],
    pub(crate) cwd: &'a [u8],
    pub(crate) args: Vec<&'a [u8]>,
    pub(crate) env: Vec<Vec<u8>>,
    pub(crate) seal: &'a Seal,
    /// The steps of the child ([`confine`]).
    pub(crate) confinement: &'a [u8],
    /// The workload's limits depend on its control group.
    pub(crate) limited: bool,
    pub(crate) lifecycle: &'a Lifecycle,
}

impl Description<'_> {
    /// The file's bytes.
    ///
    /// # Errors
    /// A sentence: a NUL byte in a text, or too much of something.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, String> {
        let mut out = Vec::new();
        out.extend(VERSION.to_le_bytes());
        out.extend(self.cookie);
        out.extend(self.mark);
        out.push(match self.restart.mode {
            RestartMode::Always => 0,
            RestartMode::OnFailure => 1,
            RestartMode::Never => 2,
        });
        for number in [
            self.restart.base.0,
            self.restart.max.0,
            self.restart.reset_after.0,
            u64::from(self.restart.crash_loop_after),
            self.logs.max_bytes,
            u64::from(self.logs.keep),
        ] {
            out.extend(number.to_le_bytes());
        }
        out.push(u8::from(self.lifecycle.watchdog.is_some()));
        text(&mut out, self.program)?;
        text(&mut out, self.cwd)?;
        texts(&mut out, "arguments", self.args.iter().copied())?;
        texts(&mut out, "environment variables", self.env.iter().map(Vec::as_slice))?;
        self.lifecycle.encode(&mut out)?;
        if out.len() > CONFIG_BYTES_MAX {
            return Err(format!(
                "arguments and environment take {} bytes; at most {CONFIG_BYTES_MAX} are possible",
                out.len()
            ));
        }
        let seal = self.seal.bytes();
        if seal.len() > SEAL_BYTES_MAX {
            return Err(format!(
                "the names of the artifact's files take {} bytes; at most {SEAL_BYTES_MAX} are possible",
                seal.len()
            ));
        }
        out.extend((seal.len() as u32).to_le_bytes());
        out.extend(seal);
        out.extend((self.confinement.len() as u32).to_le_bytes());
        out.extend(self.confinement);
        out.push(self.limited.into());
        Ok(out)
    }
}

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

/// The shim's side: pointers into the configuration as it was read.
pub(super) struct Config {
    pub(super) cookie: Cookie,
    pub(super) mark: [u8; 16],
    pub(super) policy: Policy,
    pub(super) log_max_bytes: u64,
    pub(super) log_keep: u32,
    pub(super) command: Command,
    /// What is compared before the command is executed.
    pub(super) sealed: Sealed,
    /// The steps between fork and exec, every one of which can be read.
    pub(super) confinement: &'static [u8],
    /// The workload must be in its control group, or not run.
    pub(super) limited: bool,
    /// What is done around the command.
    pub(super) life: Life,
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

const LISTEN_PID: &[u8] = b"LISTEN_PID=";
const WATCHDOG_PID: &[u8] = b"WATCHDOG_PID=";
/// In the environment where there is a watchdog.
pub(crate) const WATCHDOG_PREFIX: &str = "WATCHDOG_USEC=";
/// Digits of the largest process id, and a NUL.
const PID_TEXT_BYTES: usize = 11;

impl Config {
    /// Reads the whole of `file`.
    ///
    /// # Errors
    /// It cannot be read, or is not a configuration of this version.
    pub(super) fn read(file: BorrowedFd<'_>, listeners: usize) -> io::Result<Self> {
        let len = rustix::fs::fstat(file)?.st_size as usize;
        if len > CONFIG_BYTES_MAX + SEAL_BYTES_MAX + PROGRAM_BYTES_MAX || listeners > LISTENERS_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let bytes = memory::map(len)?;
        let mut filled = 0;
        while filled < len {
            match rustix::io::pread(file, &mut bytes[filled..], filled as u64)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => filled += n,
            }
        }
        Self::parse(bytes, listeners > 0)
    }

    fn parse(bytes: &'static [u8], listens: bool) -> io::Result<Self> {
        let mut input = Input { bytes, at: 0 };
        if u32::from_le_bytes(input.array()?) != VERSION {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (cookie, mark) = (input.array()?, input.array()?);
        let mode = match input.array::<1>()?[0] {
            0 => RestartMode::Always,
            1 => RestartMode::OnFailure,
            2 => RestartMode::Never,
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let policy = Policy {
            mode,
            base_ms: input.u64()?,
            max_ms: input.u64()?,
            reset_after_ms: input.u64()?,
            crash_loop_after: u32::try_from(input.u64()?).unwrap_or(u32::MAX),
        };
        let (log_max_bytes, log_keep) = (input.u64()?, u32::try_from(input.u64()?).unwrap_or(u32::MAX));
        let watched = input.u8()? != 0;
        let (program, cwd) = (input.text()?, input.text()?);
        let argv = input.table(&[])?;
        let listen_pid = with_digits(LISTEN_PID, listens)?;
        let watchdog_pid = with_digits(WATCHDOG_PID, watched)?;
        let own = [listen_pid.as_ptr().cast(), watchdog_pid.as_ptr().cast()];
        let envp = input.table(&own[usize::from(!listens)..1 + usize::from(watched)])?;
        let command = Command {
            program,
            cwd,
            argv,
            envp,
            listen_pid: digits_of(listen_pid, LISTEN_PID),
            watchdog_pid: digits_of(watchdog_pid, WATCHDOG_PID),
        };
        let life = Life::parse(&mut input, &command)?;
        // An agent of before did not send one.
        let seal = if input.at == bytes.len() { &[][..] } else { input.bytes()? };
        let sealed = Sealed::keep(seal)?;
        let (confinement, limited) = if input.at == bytes.len() {
            (&[][..], false)
        } else {
            (input.bytes()?, input.array::<1>()?[0] != 0)
        };
        if !confine::check_program(confinement) {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(Self {
            cookie,
            mark,
            policy,
            log_max_bytes,
            log_keep,
            command,
            sealed,
            life,
            confinement,
            limited,
        })
    }
}

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

pub(super) struct Input {
    bytes: &'static [u8],
    at: usize,
}

impl Input {
    fn take(&mut self, len: usize) -> io::Result<&'static [u8]> {
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
    fn bytes(&mut self) -> io::Result<&'static [u8]> {
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
