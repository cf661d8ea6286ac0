//! Bytes in both directions, each at its own pace, until both have ended or neither has anything for too long.

use std::cell::Cell;
use std::io;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::time::Instant;

/// What is read at once in each direction.
pub(super) const PIECE: usize = 16 * 1024;

/// When something last passed, in either direction.
#[derive(Debug)]
pub(super) struct Activity {
    latest: Cell<Instant>,
    idle: Duration,
}

impl Activity {
    pub(super) fn new(idle: Duration) -> Self {
        Self { latest: Cell::new(Instant::now()), idle }
    }

    /// Something passes.
    pub(super) fn note(&self) {
        self.latest.set(Instant::now());
    }

    /// Completes once nothing has passed for too long; without a limit, never.
    pub(super) async fn silence(&self) -> io::Error {
        if self.idle.is_zero() {
            return std::future::pending().await;
        }
        loop {
            let end = self.latest.get() + self.idle;
            if end <= Instant::now() {
                return io::ErrorKind::TimedOut.into();
            }
            tokio::time::sleep_until(end).await;
        }
    }
}

/// Passes bytes in both directions until both have ended, or neither has anything for `idle`; zero waits for ever.
///
/// # Errors
/// A side broke, or both were silent for too long.
pub(crate) async fn copy_both<A, B>(one: A, two: B, idle: Duration) -> io::Result<()>
where
    A: AsyncRead + AsyncWrite + Unpin,
    B: AsyncRead + AsyncWrite + Unpin,
{
    let activity = Activity::new(idle);
    let (one_reads, one_writes) = tokio::io::split(one);
    let (two_reads, two_writes) = tokio::io::split(two);
    let both = async {
        tokio::try_join!(copy(one_reads, two_writes, &activity), copy(two_reads, one_writes, &activity))
    };
    tokio::select! {
        ended = both => ended.map(|_| ()),
        silence = activity.silence() => Err(silence),
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    activity: &Activity,
) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    loop {
        let some = from.read(&mut piece).await?;
        activity.note();
        if some == 0 {
            return to.shutdown().await;
        }
        to.write_all(&piece[..some]).await?;
        to.flush().await?;
        activity.note();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn each_direction_goes_on_though_the_other_is_stuck() {
        tokio::task::LocalSet::new().run_until(stuck_in_one_direction()).await;
    }

    async fn stuck_in_one_direction() {
        let (mut client, near) = tokio::io::duplex(8);
        let (far, mut instance) = tokio::io::duplex(8);
        let relayed = tokio::task::spawn_local(copy_both(near, far, Duration::ZERO));
        let flood = async { while client.write_all(&[1; 64]).await.is_ok() {} };
        // The instance reads nothing; what it sends arrives all the same.
        let said = tokio::select! {
            () = flood => None,
            said = async {
                instance.write_all(b"hello").await.expect("room");
                std::future::pending::<Option<()>>().await
            } => said,
            () = tokio::time::sleep(Duration::from_millis(200)) => Some(()),
        };
        assert!(said.is_some());
        let mut got = [0; 5];
        client.read_exact(&mut got).await.expect("it came through");
        assert_eq!(&got, b"hello");
        relayed.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn silence_ends_it_and_the_end_of_both_sides_does() {
        let (_client, near) = tokio::io::duplex(8);
        let (far, _instance) = tokio::io::duplex(8);
        let error = copy_both(near, far, Duration::from_secs(5)).await.expect_err("silence");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let (client, near) = tokio::io::duplex(8);
        let (far, instance) = tokio::io::duplex(8);
        drop((client, instance));
        copy_both(near, far, Duration::ZERO).await.expect("both ended");
    }
}
