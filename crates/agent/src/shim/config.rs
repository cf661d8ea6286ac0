//! What a shim is told at its start, in one file read once. Not in arguments or environment: those can be read by
//! others on the machine, and the workload's environment may hold secrets.
//!
//! Integers are little-endian; a text is its length (u32), its bytes and a NUL, so that the shim can point into
//! what it read.

use super::confine::{self, PROGRAM_BYTES_MAX};
use super::encoding::{Command, Input, digits_of, text, texts, with_digits};
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
    /// Where its lines go besides its log: the journal's socket, and the fields of each line as they travel.
    pub(crate) journal: Option<(&'a [u8], &'a [u8])>,
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
        out.push(self.journal.is_some().into());
        if let Some((socket, fields)) = self.journal {
            text(&mut out, socket)?;
            text(&mut out, fields)?;
        }
        Ok(out)
    }
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
    /// The journal's socket, and the fields of each line.
    pub(super) journal: Option<(&'static [u8], &'static [u8])>,
}

const LISTEN_PID: &[u8] = b"LISTEN_PID=";
const WATCHDOG_PID: &[u8] = b"WATCHDOG_PID=";
/// In the environment where there is a watchdog.
pub(crate) const WATCHDOG_PREFIX: &str = "WATCHDOG_USEC=";

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
        let journaled = input.at < bytes.len() && input.u8()? != 0;
        let journal = if journaled { Some((input.plain_text()?, input.plain_text()?)) } else { None };
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
            journal,
        })
    }
}
