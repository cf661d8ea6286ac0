//! Streams that outlive the coordinator's restarts: when to connect again, how long to wait before it, and what
//! no further attempt can help.

use crate::api::Api;
use crate::fault;
use crate::global::Global;
use anyhow::Result;
use baton_proto::identity::IdentityError;
use std::time::Duration;

/// First pause before connecting again; it doubles to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(200);
/// Longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(2);

/// Pauses that grow. Attempts have no limit of their own: whoever follows a stream ends it with Ctrl-C.
#[derive(Debug)]
pub(crate) struct Pauses {
    next: Duration,
}

impl Pauses {
    /// Nothing was tried yet.
    pub(crate) const fn new() -> Self {
        Self { next: PAUSE_MIN }
    }

    /// Waits before the next attempt.
    pub(crate) async fn wait(&mut self) {
        tokio::time::sleep(self.longer()).await;
    }

    fn longer(&mut self) -> Duration {
        let pause = self.next;
        self.next = (pause * 2).min(PAUSE_MAX);
        pause
    }
}

/// A connection that is made anew when it is lost; says on stderr when it is lost, and when it is back.
#[derive(Debug)]
pub(crate) struct Lifeline<'a> {
    global: &'a Global,
    pauses: Pauses,
    lost: bool,
}

impl<'a> Lifeline<'a> {
    /// For a connection that stands.
    pub(crate) const fn new(global: &'a Global) -> Self {
        Self { global, pauses: Pauses::new(), lost: false }
    }

    /// Something came over the connection.
    pub(crate) fn well(&mut self) {
        self.pauses = Pauses::new();
        if std::mem::take(&mut self.lost) {
            eprintln!("connected again; going on where it stopped");
        }
    }

    /// A stream ended with `error`: connects again, however long that takes.
    ///
    /// # Errors
    /// `error`, or that of a later attempt, where trying again cannot help.
    pub(crate) async fn again(&mut self, error: anyhow::Error) -> Result<Api> {
        let mut error = error;
        loop {
            if is_final(&error) {
                return Err(error);
            }
            if !std::mem::replace(&mut self.lost, true) {
                eprintln!("{}; reconnecting", fault::briefly(&error));
            }
            self.pauses.wait().await;
            match self.global.api().await {
                Ok(api) => return Ok(api),
                Err(failed) => error = failed,
            }
        }
    }
}

/// What a stream that should have gone on, but ended, is taken for.
pub(crate) fn ended() -> tonic::Status {
    tonic::Status::unavailable("the coordinator ended the stream")
}

/// Whether trying again cannot help.
pub(crate) fn is_final(error: &anyhow::Error) -> bool {
    use tonic::Code;
    if let Some(identity) = error.downcast_ref::<IdentityError>() {
        return !identity.retryable();
    }
    match error.downcast_ref::<tonic::Status>().map(tonic::Status::code) {
        Some(
            Code::NotFound
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::InvalidArgument
            | Code::Unimplemented
            | Code::OutOfRange,
        ) => true,
        Some(
            Code::Ok
            | Code::Cancelled
            | Code::Unknown
            | Code::DeadlineExceeded
            | Code::AlreadyExists
            | Code::ResourceExhausted
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::Internal
            | Code::Unavailable
            | Code::DataLoss,
        ) => false,
        // Not understood, or not of the network at all: another attempt ends no other way.
        None => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_tried_again() {
        let unreachable = IdentityError::Unreachable { address: "a:1".into(), detail: "refused".into() };
        let expired = IdentityError::Expired { who: "operator/a".into(), detail: "its time is over".into() };
        let cases: [(anyhow::Error, bool); 6] = [
            (ended().into(), false),
            (tonic::Status::unknown("h2 protocol error").into(), false),
            (unreachable.into(), false),
            (expired.into(), true),
            (tonic::Status::not_found("there is no service `web`").into(), true),
            (anyhow::anyhow!("the coordinator's answer is not understood"), true),
        ];
        for (error, expect) in cases {
            assert_eq!(is_final(&error), expect, "{error}");
        }
    }

    #[test]
    fn pauses_grow_to_their_limit() {
        let mut pauses = Pauses::new();
        let all: Vec<u128> = (0..6).map(|_| pauses.longer().as_millis()).collect();
        assert_eq!(all, [200, 400, 800, 1600, 2000, 2000]);
    }
}
