//! The body of a request on its way to an instance: held whole where it may have to be sent twice, or passed on piece by
//! piece, within a size and with a limit on silence.

use super::{ClientBody, Silence};
use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::time::Instant;

/// A body that is held whole is no larger; larger ones are passed on, and then not repeated.
pub(crate) const HELD_MAX: u64 = 64 * 1024;
/// One that is held whole has come whole by then: a byte now and then does not keep a connection for a day.
const HELD_WITHIN: Duration = Duration::from_secs(60);

/// How far a body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    /// More is to come.
    Open {
        /// When the latest piece was passed on.
        since: Instant,
    },
    /// All of it was passed on.
    Done(Instant),
    /// It is larger than allowed.
    TooLarge,
    /// Nothing came for too long.
    Slow,
    /// The client ended it.
    Broken,
}

/// Why a body could not be passed on; [`Progress`] has the same, for whoever waits for the answer.
#[derive(Debug, thiserror::Error)]
#[error("the client's body ended early")]
pub(crate) struct BodyCut;

/// The body of a request to an instance.
#[derive(Debug)]
pub(crate) enum SentBody {
    /// All of it at once; `None` once it was sent, or where there is none.
    Whole(Option<Bytes>),
    /// Piece by piece.
    Passed(Box<Passed>),
}

/// A body that is passed on.
#[derive(Debug)]
pub(crate) struct Passed {
    body: ClientBody,
    left: u64,
    idle: Silence,
    progress: Rc<Cell<Progress>>,
}

impl SentBody {
    /// Passes a client's body on: at most `bytes_max`, and with no silence longer than `idle`.
    pub(crate) fn passed(body: ClientBody, bytes_max: u64, idle: Duration) -> (Self, Rc<Cell<Progress>>) {
        let progress = Rc::new(Cell::new(Progress::Open { since: Instant::now() }));
        let passed =
            Passed { body, left: bytes_max, idle: Silence::new(idle), progress: Rc::clone(&progress) };
        (Self::Passed(Box::new(passed)), progress)
    }
}

impl Body for SentBody {
    type Data = Bytes;
    type Error = BodyCut;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        match self.get_mut() {
            Self::Whole(bytes) => Poll::Ready(bytes.take().map(|it| Ok(Frame::data(it)))),
            Self::Passed(passed) => passed.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(bytes) => bytes.is_none(),
            Self::Passed(passed) => passed.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |it| it.len() as u64)),
            Self::Passed(passed) => passed.body.size_hint(),
        }
    }
}

impl Passed {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyCut>>> {
        let progress = match Pin::new(&mut self.body).poll_frame(context) {
            Poll::Pending if self.idle.is_over(context) => {
                self.body.give_up();
                Progress::Slow
            }
            Poll::Pending => return Poll::Pending,
            Poll::Ready(None) => Progress::Done(Instant::now()),
            Poll::Ready(Some(Err(_))) => Progress::Broken,
            Poll::Ready(Some(Ok(frame))) => {
                self.idle.broken();
                let size = frame.data_ref().map_or(0, |it| it.len() as u64);
                match self.left.checked_sub(size) {
                    Some(left) => {
                        self.left = left;
                        let now = Instant::now();
                        let ended = self.body.is_end_stream();
                        self.progress.set(if ended {
                            Progress::Done(now)
                        } else {
                            Progress::Open { since: now }
                        });
                        return Poll::Ready(Some(Ok(frame)));
                    }
                    None => Progress::TooLarge,
                }
            }
        };
        self.progress.set(progress);
        match progress {
            Progress::Done(_) => Poll::Ready(None),
            Progress::Open { .. } | Progress::TooLarge | Progress::Slow | Progress::Broken => {
                Poll::Ready(Some(Err(BodyCut)))
            }
        }
    }
}

/// Reads a small body whole.
///
/// # Errors
/// What kept it from coming.
pub(crate) async fn hold(mut body: ClientBody, bytes_max: u64, idle: Duration) -> Result<Bytes, Progress> {
    let gathered = tokio::time::timeout(HELD_WITHIN, gather(&mut body, bytes_max, idle)).await;
    let held = gathered.unwrap_or(Err(Progress::Slow));
    if held == Err(Progress::Slow) {
        body.give_up();
    }
    held
}

async fn gather(body: &mut ClientBody, bytes_max: u64, idle: Duration) -> Result<Bytes, Progress> {
    let mut first = Bytes::new();
    let mut more: Vec<u8> = Vec::new();
    let mut size = 0;
    while let Some(frame) = next(body, idle).await? {
        let Ok(data) = frame.into_data() else { continue };
        size += data.len() as u64;
        if size > bytes_max {
            return Err(Progress::TooLarge);
        }
        if first.is_empty() {
            first = data;
        } else {
            if more.is_empty() {
                more.extend_from_slice(&first);
            }
            more.extend_from_slice(&data);
        }
    }
    Ok(if more.is_empty() { first } else { Bytes::from(more) })
}

async fn next(body: &mut ClientBody, idle: Duration) -> Result<Option<Frame<Bytes>>, Progress> {
    let frame = async { body.frame().await.transpose().map_err(|_| Progress::Broken) };
    if idle.is_zero() {
        return frame.await;
    }
    tokio::time::timeout(idle, frame).await.unwrap_or(Err(Progress::Slow))
}

/// How long a body says it is.
pub(crate) fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(http::header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
