//! The body of an answer on its way to the client: while it lives, its request is in flight; read to its end, its
//! connection goes back to the pool.

use super::client::Client;
use super::streams::Taking;
use crate::access::{CLIENT_LEFT, CLIENT_STUCK, Record};
use crate::body::{Progress, Silence};
use crate::mirror::LiveCopy;
use crate::pool::Lease;
use crate::upstream::InFlight;
use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use std::cell::Cell;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Why an answer breaks off: the client sees its connection or stream end before the body does, and so cannot take it
/// for a whole one.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    /// The instance ended it.
    #[error("the instance ended its answer early")]
    Instance(#[source] hyper::Error),
    /// The instance was silent for too long.
    #[error("the instance was silent in the middle of its answer")]
    Silent,
}

/// The body of an answer.
#[derive(Debug)]
pub(crate) struct AnswerBody(Inner);

#[derive(Debug)]
enum Inner {
    Whole(Option<Bytes>),
    Instance(Box<FromInstance>),
}

/// What an answer's body comes with.
#[derive(Debug)]
pub(crate) struct Companions {
    /// Counted until the last byte.
    pub(crate) in_flight: InFlight,
    /// The connection.
    pub(crate) lease: Lease,
    /// How far the request's own body is; a connection whose request is not all sent cannot be used again.
    pub(crate) request: Option<Rc<Cell<Progress>>>,
    /// The longest silence.
    pub(crate) idle: Duration,
    /// Where a mirrored copy is compared.
    pub(crate) copy: Option<LiveCopy>,
    /// Its line in the access log.
    pub(crate) record: Option<Record>,
}

#[derive(Debug)]
struct FromInstance {
    body: Incoming,
    silence: Silence,
    client: Rc<Client>,
    /// It broke, and that is still to be told.
    error: Option<hyper::Error>,
    bytes: u64,
    companions: Option<Companions>,
}

impl AnswerBody {
    /// A body that is there.
    pub(crate) fn whole(bytes: Bytes) -> Self {
        Self(Inner::Whole(Some(bytes).filter(|it| !it.is_empty())))
    }

    /// A body that comes from an instance.
    pub(crate) fn from_instance(body: Incoming, client: Rc<Client>, companions: Companions) -> Self {
        client.taking.set(Taking::Some);
        let mut from = FromInstance {
            silence: Silence::new(companions.idle),
            client,
            body,
            error: None,
            bytes: 0,
            companions: Some(companions),
        };
        if from.body.is_end_stream() {
            from.ended();
            return Self(Inner::Whole(None));
        }
        Self(Inner::Instance(Box::new(from)))
    }
}

impl Body for AnswerBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match &mut self.get_mut().0 {
            Inner::Whole(bytes) => Poll::Ready(bytes.take().map(|it| Ok(Frame::data(it)))),
            Inner::Instance(from) => from.poll(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            Inner::Whole(bytes) => bytes.is_none(),
            Inner::Instance(from) => from.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.0 {
            Inner::Whole(bytes) => SizeHint::with_exact(bytes.as_ref().map_or(0, |it| it.len() as u64)),
            Inner::Instance(from) => from.body.size_hint(),
        }
    }
}

impl FromInstance {
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        if let Some(error) = self.error.take() {
            return Poll::Ready(Some(Err(BodyError::Instance(error))));
        }
        let frame = match &mut self.companions {
            Some(companions) => companions.lease.poll_frame(&mut self.body, context),
            None => Pin::new(&mut self.body).poll_frame(context),
        };
        match frame {
            Poll::Pending if self.silence.is_over_by(&self.client.worker.alarms, context) => {
                self.broke("the instance was silent in the middle of its answer");
                Poll::Ready(Some(Err(BodyError::Silent)))
            }
            Poll::Pending => {
                self.client.taking.set(Taking::Waiting);
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                self.client.taking.set(Taking::Some);
                self.silence.broken();
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len() as u64;
                    if let Some(copy) = self.companions.as_mut().and_then(|it| it.copy.as_mut()) {
                        copy.add(data);
                    }
                }
                // The server does not ask again for what is known to be the last piece, as trailers are.
                if frame.is_trailers() || self.body.is_end_stream() {
                    self.ended();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.ended();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => {
                self.broke("the instance ended its answer early");
                // At an error the server drops what it has not written yet. What came before it is the client's: so the
                // server is left to write that first.
                self.error = Some(error);
                context.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn ended(&mut self) {
        let Some(companions) = self.companions.take() else { return };
        let sent = companions.request.is_none_or(|it| matches!(it.get(), Progress::Done(_)));
        if sent {
            companions.lease.give_back();
        }
        if let Some(copy) = companions.copy {
            copy.ended();
        }
        if let Some(record) = companions.record {
            record.ended(self.bytes);
        }
    }

    fn broke(&mut self, why: &str) {
        let Some(companions) = self.companions.take() else { return };
        companions.in_flight.failed(Instant::now());
        if let Some(record) = companions.record {
            record.broke(self.bytes, why);
        }
    }
}

impl Drop for FromInstance {
    /// With companions left, the client went away before the end.
    fn drop(&mut self) {
        self.silence.give_back(&self.client.worker.alarms);
        if let Some(record) = self.companions.take().and_then(|it| it.record) {
            let stuck = self.client.taking.get() == Taking::Never;
            record.broke(self.bytes, if stuck { CLIENT_STUCK } else { CLIENT_LEFT });
        }
    }
}
