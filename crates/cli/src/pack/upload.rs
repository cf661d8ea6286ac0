//! Sends an artifact to the coordinator, from where an earlier attempt stopped, and says how far it is.

use super::{Packed, open_at};
use crate::fault::Fault;
use crate::show;
use anyhow::{Context as _, Result};
use baton_proto::v1::operator_service_client::OperatorServiceClient;
use baton_proto::v1::upload_artifact_request::Part;
use baton_proto::v1::{StatArtifactRequest, StatArtifactResponse, UploadArtifactRequest, UploadStart};
use bytes::Bytes;
use std::io::Read as _;
use std::io::Write as _;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Code, Status};

/// Bytes in one message: far below gRPC's limit, far above its overhead.
const CHUNK_BYTES: usize = 256 * 1024;
/// Messages read ahead of the network.
const CHUNKS_AHEAD: usize = 4;
/// The upload is given up when the coordinator has taken nothing for this long, over however many attempts.
const STALLED_MAX: Duration = Duration::from_secs(15);
/// Once it has all, it may take this long to make it durable: a slow disk has 2 GiB to sync.
const FINISH_MAX: Duration = Duration::from_secs(120);
/// Pause before a further attempt.
const PAUSE: Duration = Duration::from_millis(500);
/// How often the progress line is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(100);

/// Where the progress is drawn, if anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ProgressLine {
    /// One line that redraws itself: stderr is a terminal.
    Drawn,
    /// Nothing.
    Silent,
}

/// Makes sure that the coordinator has every byte of the artifact. Gives the number of bytes that were sent.
///
/// # Errors
/// When the coordinator refuses, or takes nothing for [`STALLED_MAX`]; the error says how to go on.
pub(crate) async fn upload(
    client: &mut OperatorServiceClient<Channel>,
    packed: &Packed,
    progress: ProgressLine,
) -> Result<u64> {
    let mut began = None;
    let mut held = None;
    let watch = Watch::begin();
    let mut last: Option<Status> = None;
    loop {
        let attempt = async {
            if last.is_some() {
                tokio::time::sleep(PAUSE).await;
            }
            send_rest(client, packed, progress, &mut held, &watch).await
        };
        let stopped = tokio::select! {
            ended = attempt => match ended {
                Ok(()) => return Ok(packed.artifact.size_bytes - began.or(held).unwrap_or(0)),
                Err(stopped) => stopped,
            },
            () = watch.stalled() => return Err(given_up(last.as_ref())),
        };
        began = began.or(held);
        match stopped {
            Stopped::Local(error) => return Err(error),
            Stopped::Refused(status) if !may_pass(&status) => return Err(Fault::refused(&status).into()),
            Stopped::Refused(status) => {
                eprintln!("the upload was interrupted ({}); trying again", Fault::refused(&status));
                last = Some(status);
            }
        }
    }
}

/// Notices that an upload stands still.
#[derive(Clone)]
struct Watch {
    /// Until when something must have moved.
    deadline: tokio::sync::watch::Sender<tokio::time::Instant>,
}

impl Watch {
    fn begin() -> Self {
        Self { deadline: tokio::sync::watch::Sender::new(tokio::time::Instant::now() + STALLED_MAX) }
    }

    /// Something moved; the next thing is expected within `limit`.
    fn moved(&self, limit: Duration) {
        self.deadline.send_replace(tokio::time::Instant::now() + limit);
    }

    /// Ends when nothing moved in time.
    async fn stalled(&self) {
        let mut deadline = self.deadline.subscribe();
        loop {
            let until = *deadline.borrow_and_update();
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                // The sender is ours: it is not dropped meanwhile.
                _ = deadline.changed() => {}
            }
        }
    }
}

/// Why an attempt stopped.
enum Stopped {
    /// This machine's file cannot be read; no further attempt helps.
    Local(anyhow::Error),
    /// The coordinator, or the way to it.
    Refused(Status),
}

/// Whether a further attempt may succeed: also where somebody else is sending the same, or has just given it up.
fn may_pass(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::Cancelled
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unknown
    )
}

fn given_up(last: Option<&Status>) -> anyhow::Error {
    let why = last.map_or_else(
        || "it hangs, or the way to it is cut".to_owned(),
        |status| Fault::refused(status).to_string(),
    );
    Fault::new(
        format!("the upload stopped: the coordinator took nothing for {} s ({why})", STALLED_MAX.as_secs()),
        "look whether the coordinator runs; then run the same command again: it goes on where it stopped, and nothing was deployed",
    )
    .into()
}

/// How much the coordinator holds, and whether that is an artifact. All of its bytes are not one yet: they are checked
/// and made durable first, which an upload that broke off at its very end has not come to, nor one that is just ending.
async fn held_of(
    client: &mut OperatorServiceClient<Channel>,
    packed: &Packed,
) -> Result<StatArtifactResponse, Status> {
    let request = StatArtifactRequest { digest: packed.artifact.digest.to_string() };
    Ok(client.stat_artifact(request).await?.into_inner())
}

/// One attempt: asks where to go on, and sends from there. `held` learns where it began.
async fn send_rest(
    client: &mut OperatorServiceClient<Channel>,
    packed: &Packed,
    progress: ProgressLine,
    held: &mut Option<u64>,
    watch: &Watch,
) -> Result<(), Stopped> {
    let size = packed.artifact.size_bytes;
    let holds = held_of(client, packed).await.map_err(Stopped::Refused)?;
    let start = if holds.complete { size } else { holds.offset };
    *held = Some(start);
    if holds.complete {
        return Ok(());
    }
    if start > size {
        let error = Fault::new(
            format!("the coordinator holds {start} bytes of an artifact of {size}"),
            "its store of artifacts is damaged: look at the coordinator's log",
        );
        return Err(Stopped::Local(error.into()));
    }
    let file = open_at(packed.path(), start).map_err(Stopped::Local)?;
    let first = UploadStart { digest: packed.artifact.digest.to_string(), size_bytes: size, offset: start };
    let (sender, receiver) = mpsc::channel(CHUNKS_AHEAD);
    let line = Line { progress, started: Instant::now(), began_at: start, drawn: None, watch: watch.clone() };
    let reader = tokio::task::spawn_blocking(move || feed(file, first, &sender, line));
    let answer = client.upload_artifact(ReceiverStream::new(receiver)).await;
    // The stream is gone by now, so the reader ends by itself.
    let fed = reader.await.context("reading the artifact stopped").map_err(Stopped::Local)?;
    if progress == ProgressLine::Drawn {
        eprint!("\r\x1b[K");
    }
    match (answer, fed) {
        (_, Err(error)) => Err(Stopped::Local(error)),
        (Err(status), Ok(())) => Err(Stopped::Refused(status)),
        (Ok(answer), Ok(())) if answer.get_ref().complete => Ok(()),
        (Ok(_), Ok(())) => Err(Stopped::Refused(Status::aborted("the coordinator did not get all of it"))),
    }
}

/// Reads the file into messages until it ends or nobody takes them any more.
fn feed(
    mut file: std::fs::File,
    first: UploadStart,
    sender: &mpsc::Sender<UploadArtifactRequest>,
    mut line: Line,
) -> Result<()> {
    let (mut at, size) = (first.offset, first.size_bytes);
    if sender.blocking_send(UploadArtifactRequest { part: Some(Part::Start(first)) }).is_err() {
        return Ok(());
    }
    let mut buffer = vec![0; CHUNK_BYTES];
    while at < size {
        let most = usize::try_from(size - at).unwrap_or(usize::MAX).min(buffer.len());
        let count = file.read(&mut buffer[..most]).context("the artifact cannot be read")?;
        if count == 0 {
            let advice = "build it, and only then run the same command again; nothing was deployed";
            return Err(Fault::new("the artifact became shorter while it was sent", advice).into());
        }
        at += count as u64;
        let data = Bytes::copy_from_slice(&buffer[..count]);
        if sender.blocking_send(UploadArtifactRequest { part: Some(Part::Data(data)) }).is_err() {
            return Ok(());
        }
        line.watch.moved(if at < size { STALLED_MAX } else { FINISH_MAX });
        line.draw(at, size);
    }
    Ok(())
}

/// Tells how far the upload is: to whoever watches that it moves, and in a line.
struct Line {
    progress: ProgressLine,
    started: Instant,
    began_at: u64,
    drawn: Option<Instant>,
    watch: Watch,
}

impl Line {
    fn draw(&mut self, at: u64, size: u64) {
        if self.progress == ProgressLine::Silent
            || self.drawn.is_some_and(|drawn| drawn.elapsed() < DRAW_EVERY)
        {
            return;
        }
        self.drawn = Some(Instant::now());
        let text = progress_text(at, size, at - self.began_at, self.started.elapsed());
        let mut out = std::io::stderr().lock();
        // Talk: a terminal that is gone must not stop the upload.
        let _ = write!(out, "\r\x1b[K{text}").and_then(|()| out.flush());
    }
}

/// `uploading  [########------------]  40%  4.0 MiB of 10.0 MiB, 2.0 MiB/s`.
fn progress_text(at: u64, size: u64, sent: u64, elapsed: Duration) -> String {
    const BAR: u64 = 20;
    let full = at.saturating_mul(BAR).checked_div(size).unwrap_or(BAR).min(BAR);
    let percent = (u128::from(at) * 100).checked_div(u128::from(size)).unwrap_or(100);
    let bar = format!("{}{}", "#".repeat(full as usize), "-".repeat((BAR - full) as usize));
    let rate = u128::from(sent) * 1000 / elapsed.as_millis().max(1);
    let rate = show::bytes(u64::try_from(rate).unwrap_or(u64::MAX));
    format!("uploading  [{bar}]  {percent:>3}%  {} of {}, {rate}/s", show::bytes(at), show::bytes(size))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_far_and_how_fast() {
        let mib = 1024 * 1024;
        assert_eq!(
            progress_text(4 * mib, 10 * mib, 2 * mib, Duration::from_secs(1)),
            "uploading  [########------------]   40%  4.0 MiB of 10.0 MiB, 2.0 MiB/s"
        );
        assert!(progress_text(0, 0, 0, Duration::ZERO).contains("100%"));
    }
}
