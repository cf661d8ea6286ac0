//! What a shim is told of its workload's life beyond the plain run: notification, reload, hooks. The last part of its
//! configuration, after the command, whose environment and folder it shares.
//!
//! ```text
//! ready_within_ms u64   watchdog_ms u64   reload: 0 | 1 signal i32, timeout u64 | 2 timed    four hooks: 0 | 1 timed
//! timed: timeout_ms u64, program text, arguments texts                             (0 of a time: none)
//! ```

use super::encoding::{Command, Input, digits_of, text, texts, with_digits};
use super::memory;
use baton_model::lifecycle::HookPoint;
use baton_model::time::Millis;
use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// The agent's side. Values are final: nothing is expanded any more.
#[derive(Clone, Debug, Default)]
pub struct Lifecycle {
    /// `READY=1` is waited for, this long.
    pub ready_within: Option<Millis>,
    /// The workload must send `WATCHDOG=1` at least this often.
    pub watchdog: Option<Millis>,
    /// How it reloads.
    pub reload: Option<Reload>,
    /// Its hooks, as [`HookPoint`] orders them.
    pub hooks: [Option<Timed>; 4],
}

/// How a workload reloads.
#[derive(Clone, Debug)]
pub enum Reload {
    /// By this signal (its number), after which `READY=1` is waited for this long where it is waited for at all.
    Signal {
        /// The signal's number.
        signal: i32,
        /// The longest wait.
        timeout: Millis,
    },
    /// By this command.
    Command(Timed),
}

/// A command with an end.
#[derive(Clone, Debug)]
pub struct Timed {
    /// The program, an absolute path.
    pub program: PathBuf,
    /// Its arguments, without its own name.
    pub args: Vec<OsString>,
    /// It is killed after this.
    pub timeout: Millis,
}

impl Lifecycle {
    /// Appends it to a configuration.
    ///
    /// # Errors
    /// A sentence: a NUL byte in a text, or too many arguments.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) -> Result<(), String> {
        out.extend(self.ready_within.unwrap_or_default().0.to_le_bytes());
        out.extend(self.watchdog.unwrap_or_default().0.to_le_bytes());
        match &self.reload {
            None => out.push(0),
            Some(Reload::Signal { signal, timeout }) => {
                out.push(1);
                out.extend(signal.to_le_bytes());
                out.extend(timeout.0.to_le_bytes());
            }
            Some(Reload::Command(timed)) => {
                out.push(2);
                timed.encode(out)?;
            }
        }
        for hook in &self.hooks {
            out.push(u8::from(hook.is_some()));
            if let Some(timed) = hook {
                timed.encode(out)?;
            }
        }
        Ok(())
    }
}

impl Timed {
    fn encode(&self, out: &mut Vec<u8>) -> Result<(), String> {
        out.extend(self.timeout.0.to_le_bytes());
        let program = self.program.as_os_str().as_bytes();
        text(out, program)?;
        let mut args = vec![program];
        args.extend(self.args.iter().map(|argument| argument.as_bytes()));
        texts(out, "arguments", args.into_iter())
    }
}

/// The shim's side.
pub(super) struct Life {
    /// 0: `READY=1` is not waited for.
    pub(super) ready_within_ms: u64,
    /// 0: there is no watchdog.
    pub(super) watchdog_ms: u64,
    pub(super) reload: Option<Way>,
    hooks: [Option<Errand>; 4],
    /// The digits of `MAINPID=` in the environment of commands, filled in before each.
    pub(super) main_pid: &'static mut [u8],
}

/// How the workload is made to reload.
pub(super) enum Way {
    Signal { signal: i32, timeout_ms: u64 },
    Command(Errand),
}

/// A command with an end.
pub(super) struct Errand {
    pub(super) command: Command,
    pub(super) timeout_ms: u64,
}

const MAIN_PID: &[u8] = b"MAINPID=";
/// What of the workload's environment is not for the commands beside it.
const WORKLOAD_ONLY: [&[u8]; 6] = [
    b"LISTEN_FDS=",
    b"LISTEN_PID=",
    b"LISTEN_FDNAMES=",
    b"NOTIFY_SOCKET=",
    b"WATCHDOG_USEC=",
    b"WATCHDOG_PID=",
];

impl Life {
    /// Reads what [`Lifecycle::encode`] wrote; `workload` gives folder and environment.
    ///
    /// # Errors
    /// It is something else, or the system has no memory.
    pub(super) fn parse(input: &mut Input, workload: &Command) -> io::Result<Self> {
        let errand = |input: &mut Input| -> io::Result<Errand> {
            let timeout_ms = input.u64()?;
            let (program, argv) = (input.text()?, input.table(&[])?);
            let cwd = workload.cwd;
            let command =
                Command { program, argv, envp: &[], cwd, listen_pid: &mut [], watchdog_pid: &mut [] };
            Ok(Errand { command, timeout_ms })
        };
        let (ready_within_ms, watchdog_ms) = (input.u64()?, input.u64()?);
        let reload = match input.u8()? {
            0 => None,
            1 => Some(Way::Signal { signal: i32::from_le_bytes(input.array()?), timeout_ms: input.u64()? }),
            2 => Some(Way::Command(errand(input)?)),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        };
        let mut hooks = [const { None }; 4];
        for hook in &mut hooks {
            if input.u8()? != 0 {
                *hook = Some(errand(input)?);
            }
        }
        let mut life = Self { ready_within_ms, watchdog_ms, reload, hooks, main_pid: &mut [] };
        if life.has_commands() {
            life.give_environment(workload)?;
        }
        Ok(life)
    }

    fn give_environment(&mut self, workload: &Command) -> io::Result<()> {
        let variable = with_digits(MAIN_PID, true)?;
        let envp = environment(workload, variable.as_ptr().cast())?;
        self.main_pid = digits_of(variable, MAIN_PID);
        let reload = match &mut self.reload {
            Some(Way::Command(errand)) => Some(errand),
            Some(Way::Signal { .. }) | None => None,
        };
        for errand in self.hooks.iter_mut().flatten().chain(reload) {
            errand.command.envp = envp;
        }
        Ok(())
    }

    pub(super) fn hook(&mut self, point: HookPoint) -> Option<&mut Errand> {
        self.hooks[place(point)].as_mut()
    }

    /// The command of a reload, where it is one.
    pub(super) fn reload_command(&mut self) -> Option<&mut Errand> {
        match &mut self.reload {
            Some(Way::Command(errand)) => Some(errand),
            Some(Way::Signal { .. }) | None => None,
        }
    }

    pub(super) fn has_hook(&self, point: HookPoint) -> bool {
        self.hooks[place(point)].is_some()
    }

    /// Whether any command may be run beside the workload.
    pub(super) fn has_commands(&self) -> bool {
        self.hooks.iter().any(Option::is_some) || matches!(self.reload, Some(Way::Command(_)))
    }
}

fn place(point: HookPoint) -> usize {
    match point {
        HookPoint::BeforeStart => 0,
        HookPoint::AfterReady => 1,
        HookPoint::BeforeStop => 2,
        HookPoint::AfterStop => 3,
    }
}

/// The workload's environment without what is for it alone, and with `MAINPID`.
fn environment(
    workload: &Command,
    main_pid: *const libc::c_char,
) -> io::Result<&'static [*const libc::c_char]> {
    let shared = |entry: &&*const libc::c_char| {
        // SAFETY: the entries of the table but its last are NUL-terminated texts that are never unmapped.
        let entry = unsafe { std::ffi::CStr::from_ptr(**entry) }.to_bytes();
        !WORKLOAD_ONLY.iter().any(|name| entry.starts_with(name))
    };
    let entries = &workload.envp[..workload.envp.len() - 1];
    let table = memory::map_pointers(entries.len() + 2)?;
    table[0] = main_pid;
    for (place, entry) in table[1..].iter_mut().zip(entries.iter().filter(shared)) {
        *place = *entry;
    }
    Ok(table)
}
