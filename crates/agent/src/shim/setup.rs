//! From the inherited socket to a shim that is ready: every descriptor and every byte of memory it will ever need.

use super::clock;
use super::config::Config;
use super::control::{self, Control};
use super::descriptor;
use super::group::Group;
use super::journal::Journal;
use super::kernel;
use super::logs::{Logs, Stream};
use super::notify::Socket;
use super::process::{self, Inherited};
use super::protocol::{FRAME_BYTES, Identity, LISTENERS_MAX, Message, Refusal, Request, SetupStep};
use super::statefile::StateFile;
use rustix::io::IoSliceMut;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};
use rustix::time::{TimerfdClockId, TimerfdFlags};
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, IntoRawFd, OwnedFd, RawFd};

/// Descriptors before the listeners: configuration, run directory, log directory, control group.
const FIXED_FDS_MAX: usize = 4;
const FDS_MAX: usize = FIXED_FDS_MAX + LISTENERS_MAX;

/// Everything a shim runs with.
pub(super) struct Parts {
    pub(super) config: Config,
    pub(super) boot: [u8; 16],
    pub(super) shim: Identity,
    pub(super) inherited: Inherited,
    pub(super) directory: OwnedFd,
    pub(super) group: Option<Group>,
    pub(super) listeners: [RawFd; LISTENERS_MAX],
    pub(super) listeners_len: usize,
    pub(super) null: OwnedFd,
    pub(super) signals: OwnedFd,
    pub(super) timer: OwnedFd,
    pub(super) state_file: StateFile,
    pub(super) stdout: Stream,
    pub(super) stderr: Stream,
    /// The output of commands beside the workload, where it may have any.
    pub(super) beside: Option<Stream>,
    pub(super) logs: Logs,
    pub(super) notify: Socket,
    pub(super) control: Control,
    /// Id of the first message; its answer says that the shim has taken over.
    pub(super) begin_id: u32,
}

/// Makes all parts, or tells the agent which step failed.
///
/// # Errors
/// What was told to the agent.
pub(super) fn set_up() -> io::Result<Parts> {
    let channel = descriptor::take_stdin()?;
    let mut begin_id = 0;
    let told = channel.try_clone();
    assemble(channel, &mut begin_id).map_err(|(step, error)| {
        if let Ok(agent) = &told {
            let errno = error.raw_os_error().unwrap_or(0);
            let _ = control::send(
                agent.as_fd(),
                &Message::Refused(Refusal::Setup { step, errno }),
                begin_id,
                &[],
            );
        }
        error
    })
}

fn assemble(channel: OwnedFd, begin_id: &mut u32) -> Result<Parts, (SetupStep, io::Error)> {
    let at = |step| move |error: io::Error| (step, error);
    let mut begun = receive_begin(&channel).map_err(at(SetupStep::Receive))?;
    *begin_id = begun.id;
    let file = begun.take(0).map_err(at(SetupStep::Receive))?;
    let directory = begun.take(1).map_err(at(SetupStep::Receive))?;
    let log_directory = begun.take(2).map_err(at(SetupStep::Receive))?;
    let group =
        if begun.group { Some(Group::new(begun.take(3).map_err(at(SetupStep::Receive))?)) } else { None };
    let (listeners, listeners_len) = begun.listeners();

    let config = Config::read(file.as_fd(), listeners_len).map_err(at(SetupStep::Configuration))?;
    drop(file);
    let null = descriptor::null_stdin().map_err(at(SetupStep::Process))?;
    let (signals, inherited) = process::become_parent().map_err(at(SetupStep::Process))?;
    let timer = rustix::time::timerfd_create(
        TimerfdClockId::Boottime,
        TimerfdFlags::CLOEXEC | TimerfdFlags::NONBLOCK,
    )
    .map_err(io::Error::from)
    .and_then(descriptor::move_up)
    .map_err(at(SetupStep::Process))?;
    let boot = kernel::boot_id();
    let shim = Identity { pid: std::process::id(), start: kernel::own_start_time() };
    let state_file = StateFile::open(directory.as_fd(), boot).map_err(at(SetupStep::StateFile))?;
    state_file.record(shim, Identity::default());
    let journal = config.journal.map(|(path, fields)| Journal::open(path, fields)).transpose();
    let journal = journal.map_err(at(SetupStep::Logs))?;
    let logs = Logs::open(log_directory, config.log_max_bytes, config.log_keep, journal)
        .map_err(at(SetupStep::Logs))?;
    let stdout = Stream::open(b"stdout").map_err(at(SetupStep::Logs))?;
    let stderr = Stream::open(b"stderr").map_err(at(SetupStep::Logs))?;
    let beside = if config.life.has_commands() {
        Some(Stream::open(b"stdout").map_err(at(SetupStep::Logs))?)
    } else {
        None
    };
    let notify = Socket::open(&config.mark).map_err(at(SetupStep::Control))?;
    let control = Control::open(directory.as_fd(), channel, config.cookie).map_err(at(SetupStep::Control))?;
    // The first reading of the clock maps the vdso; a restart should not wait for that.
    let _ = clock::stamp();
    Ok(Parts {
        config,
        boot,
        shim,
        inherited,
        directory,
        group,
        listeners,
        listeners_len,
        null,
        signals,
        timer,
        state_file,
        stdout,
        stderr,
        beside,
        logs,
        notify,
        control,
        begin_id: *begin_id,
    })
}

/// The first message, taken apart.
struct Begun {
    id: u32,
    group: bool,
    listeners: usize,
    fds: [Option<OwnedFd>; FDS_MAX],
}

impl Begun {
    fn take(&mut self, place: usize) -> io::Result<OwnedFd> {
        self.fds[place].take().ok_or_else(|| io::ErrorKind::InvalidData.into())
    }

    /// The listeners, open until the shim ends.
    fn listeners(&mut self) -> ([RawFd; LISTENERS_MAX], usize) {
        let mut raw = [-1; LISTENERS_MAX];
        let mut len = 0;
        let first = FIXED_FDS_MAX - usize::from(!self.group);
        for fd in self.fds[first..].iter_mut().take(self.listeners).filter_map(Option::take) {
            raw[len] = fd.into_raw_fd();
            len += 1;
        }
        (raw, len)
    }
}

fn receive_begin(channel: &OwnedFd) -> io::Result<Begun> {
    let mut frame = [0; FRAME_BYTES];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(FDS_MAX))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        channel,
        &mut [IoSliceMut::new(&mut frame)],
        &mut control,
        RecvFlags::CMSG_CLOEXEC,
    )?;
    let mut fds = [const { None }; FDS_MAX];
    let mut len = 0;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            for fd in rights.take(FDS_MAX) {
                fds[len] = Some(descriptor::move_up(fd)?);
                len += 1;
            }
        }
    }
    match Request::decode(&frame[..received.bytes]) {
        Ok((Request::Begin { listeners, group }, id))
            if len == FIXED_FDS_MAX - usize::from(!group) + usize::from(listeners) =>
        {
            Ok(Begun { id, group, listeners: usize::from(listeners), fds })
        }
        Ok(_) | Err(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}
