//! The agent's own program: another one is fetched, tried, and kept or given up.
//!
//! ```text
//!  asked ─► fetch, check ─► write "trying", start the guardian ─► execve in place ─► adopt, reach the coordinator ─► confirmed
//!    │            │                                                     │
//!    └── refused ─┴── goes on as it is, and says why ◄── killed, old program again ── not confirmed in time
//! ```
//!
//! The process stays the same, so whoever supervises it notices nothing; the shims and workloads are taken over as after
//! any restart. [`record`] is what is on disk, [`preflight`] asks whether a program can be an agent at all, [`guardian`]
//! is the process that brings the old program back. The host itself always starts the packaged program, which goes on as
//! the confirmed one; see `docs/adr/0013-agent-upgrade.md`.

mod guardian;
mod preflight;
mod record;

pub use guardian::{Guard, GuardError, guard};

use crate::artifacts::{fetch, space};
use crate::journal::{Draft, Journal};
use baton_model::artifact::Artifact;
use baton_model::id::{Digest, Version};
use baton_model::upgrade::UpgradeFailure;
use record::{Begin, Program, Programs, Record, Trying};
use std::ffi::OsString;
use std::io;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// A connection that is not back by then makes a fetch fail for now.
const CONNECTION_WAIT: Duration = Duration::from_secs(5);
/// Attempts to fetch a program; each goes on where the one before stopped.
const FETCH_ATTEMPTS: u32 = 5;
const FETCH_PAUSE: Duration = Duration::from_secs(2);

/// What the coordinator asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) request: u64,
    pub(crate) version: Version,
    pub(crate) artifact: Artifact,
}

/// How the agent's life ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Departure {
    /// It was told to stop.
    Stopped,
    /// It goes on as this program: give it to [`go_on_as`].
    Become(PathBuf),
}

/// What this process is, found out at its start.
#[derive(Debug)]
pub(crate) struct Own {
    pub(crate) programs: Programs,
    /// SHA-256 of the program that runs.
    pub(crate) digest: Digest,
    /// What the operator calls it; `None`: it is the host's own.
    pub(crate) version: Option<Version>,
    /// It has to show that it works: the request and its guardian.
    trial: Option<Trying>,
    /// An upgrade that was not taken.
    failure: Option<UpgradeFailure>,
    boot_id: String,
}

/// What a start comes to.
#[derive(Debug)]
pub(crate) enum Start {
    /// Go on.
    As(Box<Own>),
    /// Go on as that program.
    Become(PathBuf),
}

/// Finds out which program this is, and which it should be. Reads the whole program: not for a thread that may not wait.
///
/// # Errors
/// What the file system says.
pub(crate) fn begin(root: &Path, boot_id: &str, journal: &Journal) -> io::Result<Start> {
    let programs = Programs::below(root);
    let digest = guardian::digest(Path::new("/proc/self/exe"))?;
    let mut own =
        Own { programs, digest, version: None, trial: None, failure: None, boot_id: boot_id.to_owned() };
    if own.programs.read()?.is_none() {
        return Ok(Start::As(Box::new(own)));
    }
    let begun = own.programs.change(|record| record.begin(digest, boot_id))?;
    match begun {
        Begin::Packaged => {}
        Begin::Stored(program) => own.version = Some(program.version),
        Begin::Trial(trying) => {
            own.version = Some(trying.program.version.clone());
            own.trial = Some(trying);
        }
        Begin::Become(program) => match stored(&own.programs, &program) {
            Ok(file) => return Ok(Start::Become(file)),
            Err(damage) => {
                own.programs.change(|record| record.confirmed = None)?;
                let message = format!(
                    "the agent goes on as the program of its package: its copy of {} cannot be used ({damage}); upgrade it again",
                    program.version
                );
                journal.record(Draft::error("agent-program-damaged", message));
            }
        },
    }
    let record = own.programs.read()?.unwrap_or_default();
    own.programs.tidy(&record);
    tell_reverted(&own.programs, &record, journal)?;
    own.failure = record.failure;
    Ok(Start::As(Box::new(own)))
}

/// Tells of a program that was given up, before it is noted as told: a death in between tells it twice, never not at all.
fn tell_reverted(programs: &Programs, record: &Record, journal: &Journal) -> io::Result<()> {
    let (Some(program), Some(failure)) = (&record.reverted, &record.failure) else { return Ok(()) };
    let message = format!(
        "the agent returned to its program of before: {} {}; no workload was touched",
        program.version, failure.reason
    );
    journal.record(of_upgrade(Draft::error("agent-upgrade-reverted", message), failure.request, program));
    programs.change(|record| record.reverted = None)
}

/// The facts of an upgrade, as the coordinator's own events about it have them.
fn of_upgrade(draft: Draft, request: u64, program: &Program) -> Draft {
    draft.with("request", request).with("version", &program.version).with("program", program.digest)
}

/// The file of a program whose every byte was checked.
fn stored(programs: &Programs, program: &Program) -> Result<PathBuf, String> {
    let file = programs.file(&program.digest);
    match guardian::digest(&file) {
        Ok(found) if found == program.digest => Ok(file),
        Ok(found) => Err(format!("its SHA-256 is {}", found.short())),
        Err(error) => Err(error.to_string()),
    }
}

/// Goes on as `program` in this same process, with the same arguments. Where that cannot be, the program before returns in
/// it; an error is returned only where not even that works.
pub fn go_on_as(dir: &Path, program: &Path) -> io::Error {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    let error = Command::new(program).args(&args).exec();
    tracing::error!(%error, program = %program.display(), "the new program cannot be executed; the one before goes on");
    let reason = format!("it cannot be executed: {error}");
    let given_up = Programs::below(dir).change(|record| match record.trying.clone() {
        Some(trying) => {
            record.fail(trying.request, reason);
            Some(trying.guardian)
        }
        None => {
            record.confirmed = None;
            None
        }
    });
    match given_up {
        Ok(guardian) => {
            guardian.into_iter().for_each(guardian::dismiss);
            guardian::return_as(&args)
        }
        Err(error) => error,
    }
}

/// The ends of an [`Upgrader`] that the session holds.
#[derive(Debug)]
pub(crate) struct UpgradeLink {
    pub(crate) asks: watch::Sender<Option<Ask>>,
    pub(crate) failure: watch::Receiver<Option<UpgradeFailure>>,
}

/// Takes what the coordinator asks for, and confirms a trial.
pub(crate) struct Upgrader {
    own: Own,
    within: Duration,
    dir: PathBuf,
    asks: watch::Receiver<Option<Ask>>,
    failure: watch::Sender<Option<UpgradeFailure>>,
    link: watch::Receiver<Option<Channel>>,
    journal: Journal,
    /// Ends the agent, for it to go on as another program.
    leave: CancellationToken,
}

impl Upgrader {
    /// Makes it, and what the session needs of it. It cancels `leave` when the agent is to go on as another program.
    pub(crate) fn new(
        own: Own,
        within: Duration,
        dir: PathBuf,
        link: watch::Receiver<Option<Channel>>,
        journal: Journal,
        leave: CancellationToken,
    ) -> (Self, UpgradeLink) {
        let (asks, asked) = watch::channel(None);
        let (failure, failures) = watch::channel(own.failure.clone());
        (
            Self { own, within, dir, asks: asked, failure, link, journal, leave },
            UpgradeLink { asks, failure: failures },
        )
    }

    /// Works until dropped.
    pub(crate) async fn keep(mut self) {
        if let Some(trying) = self.own.trial.take()
            && !self.confirm(trying).await
        {
            return;
        }
        while self.asks.changed().await.is_ok() {
            let ask = self.asks.borrow_and_update().clone();
            if let Some(ask) = ask
                && self.take(ask).await
            {
                self.leave.cancel();
                return;
            }
        }
    }

    /// Waits for the coordinator, by when everything was adopted; then this program is the agent's.
    async fn confirm(&mut self, trying: Trying) -> bool {
        if self.connection().await.is_none() {
            return false;
        }
        match self.own.programs.change(|record| record.confirm(trying.request).then(|| record.clone())) {
            Ok(Some(record)) => {
                let message = format!("{} is the agent's program from now on", trying.program.version);
                let draft = Draft::info("agent-upgrade-kept", message);
                self.journal.record(of_upgrade(draft, trying.request, &trying.program));
                guardian::dismiss(trying.guardian);
                self.own.programs.tidy(&record);
                true
            }
            // The guardian was first, and ends this process.
            Ok(None) => false,
            Err(error) => {
                tracing::error!(%error, "that this program works cannot be written down; the one before returns");
                false
            }
        }
    }

    /// Prepares the program that is asked for. `true`: everything is ready to go on as it.
    async fn take(&mut self, ask: Ask) -> bool {
        if ask.artifact.digest == self.own.digest {
            return false;
        }
        let known = self.failure.borrow().as_ref().is_some_and(|failure| failure.request >= ask.request);
        if known {
            // It asks again because it has not heard the answer.
            self.failure.send_modify(|_| {});
            return false;
        }
        tracing::info!(version = %ask.version, "asked to go on as another program");
        let prepared = match self.prepare(&ask).await {
            Ok(()) => self.begin_trial(&ask),
            Err(reason) => Err(reason),
        };
        let program = Program { digest: ask.artifact.digest, version: ask.version.clone() };
        let Err(reason) = prepared else {
            let message = format!(
                "the agent goes on as {} in the same process; the program of before returns unless it reaches the coordinator within {} s",
                ask.version,
                self.within.as_secs()
            );
            self.journal.record(of_upgrade(
                Draft::info("agent-upgrade-started", message),
                ask.request,
                &program,
            ));
            return true;
        };
        let message = format!("the agent goes on as it is, {} is not taken: {reason}", ask.version);
        self.journal.record(of_upgrade(
            Draft::error("agent-upgrade-refused", message),
            ask.request,
            &program,
        ));
        let failure = UpgradeFailure { request: ask.request, reason: reason.clone() };
        let written = self.own.programs.change(|record| {
            record.fail(ask.request, reason);
            record.clone()
        });
        match written {
            Ok(record) => self.own.programs.tidy(&record),
            Err(error) => tracing::warn!(%error, "that it was not taken cannot be written down"),
        }
        self.failure.send_replace(Some(failure));
        false
    }

    /// Fetches the program and asks whether it can be the agent.
    async fn prepare(&mut self, ask: &Ask) -> Result<(), String> {
        let digest = ask.artifact.digest;
        let file = self.own.programs.file(&digest);
        let program = Program { digest, version: ask.version.clone() };
        if stored(&self.own.programs, &program).is_err() {
            std::fs::create_dir_all(self.own.programs.dir())
                .map_err(|error| format!("{} cannot be made: {error}", self.own.programs.dir().display()))?;
            let part = self.own.programs.dir().join(format!("{digest}.part"));
            self.fetch(ask, &part).await?;
            preflight::install(&part, &file)
                .map_err(|error| format!("{} cannot be written: {error}", file.display()))?;
        }
        preflight::check(&file).await
    }

    async fn fetch(&mut self, ask: &Ask, part: &Path) -> Result<(), String> {
        let mut attempt = 1;
        loop {
            let error = match self.fetch_once(ask, part).await {
                Ok(()) => return Ok(()),
                Err(error) => error,
            };
            if attempt == FETCH_ATTEMPTS {
                return Err(error);
            }
            attempt += 1;
            tokio::time::sleep(FETCH_PAUSE).await;
        }
    }

    /// The connection to the coordinator, once there is one; `None` when the agent ends.
    async fn connection(&mut self) -> Option<Channel> {
        self.link.wait_for(Option::is_some).await.ok()?.clone()
    }

    async fn fetch_once(&mut self, ask: &Ask, part: &Path) -> Result<(), String> {
        let here = std::fs::metadata(part).map_or(0, |part| part.len());
        let dir = self.own.programs.dir();
        let free = space::of(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
        space::check(&ask.artifact, here, free.free_bytes, dir).map_err(|error| error.to_string())?;
        let connected = tokio::time::timeout(CONNECTION_WAIT, self.connection()).await;
        let channel = connected.ok().flatten();
        let channel = channel.ok_or("this node is not connected to the coordinator")?;
        fetch::fetch(channel, &ask.artifact, part).await.map_err(|error| error.to_string())
    }

    /// Starts the guardian and writes the trial down; from here on the program is tried, whatever happens.
    fn begin_trial(&mut self, ask: &Ask) -> Result<(), String> {
        let args: Vec<OsString> = std::env::args_os().skip(1).collect();
        let guard = Guard {
            dir: self.dir.clone(),
            process: std::process::id(),
            request: ask.request,
            within: self.within,
            supervised: guardian::is_supervised(&args),
            agent: args,
        };
        let guardian = guardian::start(&guard).map_err(|error| {
            format!("the process that would bring this program back cannot be started: {error}")
        })?;
        let trying = Trying {
            program: Program { digest: ask.artifact.digest, version: ask.version.clone() },
            request: ask.request,
            boot_id: self.own.boot_id.clone(),
            guardian,
        };
        let own = self.own.digest;
        self.own.programs.change(|record| record.try_program(own, trying)).map_err(|error| {
            guardian::dismiss(guardian);
            format!("it cannot be written down: {error}")
        })
    }
}

/// The agent ends for `leave` or because it was told to: which program comes next.
///
/// # Errors
/// What the file system says.
pub(crate) fn depart(root: &Path, stopped: bool) -> io::Result<Departure> {
    let programs = Programs::below(root);
    let Some(trying) = programs.read()?.and_then(|record| record.trying) else {
        return Ok(Departure::Stopped);
    };
    if !stopped {
        return Ok(Departure::Become(programs.file(&trying.program.digest)));
    }
    // Told to stop while a program was tried: nothing is said about that program, and nobody brings the agent back.
    programs.change(|record| record.trying = None)?;
    guardian::dismiss(trying.guardian);
    Ok(Departure::Stopped)
}
