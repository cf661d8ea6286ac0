//! A client's connection: its first bytes tell HTTP/2 with prior knowledge from HTTP/1.1, and are then read again; and one
//! that takes nothing of its answer for too long is ended.

use crate::body::Silence;
use crate::joined::write_joined;
use bytes::{Buf as _, BytesMut};
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, ReadBuf};

/// How HTTP/2 begins (RFC 9113, 3.4). No method of HTTP/1.1 begins so.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Read at once, so that a usual request costs one read.
const FIRST_READ: usize = 4096;

/// A connection of which some was read already.
#[derive(Debug)]
pub(crate) struct First<T> {
    read: BytesMut,
    rest: T,
    stuck: Silence,
}

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
}

impl<T> First<T> {
    /// A connection of which nothing was read. A client that takes nothing for as long as `stuck` holds an instance's answer
    /// without end, and is cut off.
    pub(crate) fn fresh(rest: T, stuck: Duration) -> Self {
        Self::of(BytesMut::new(), rest, stuck)
    }

    fn of(read: BytesMut, rest: T, stuck: Duration) -> Self {
        Self { read, rest, stuck: Silence::new(stuck) }
    }

    /// The same once HTTP is over, which had read `read` ahead: whoever has it now has limits of its own.
    pub(crate) fn patient(self, read: &[u8]) -> Self {
        let read = [read, &self.read[..]].concat();
        Self::of(read.as_slice().into(), self.rest, Duration::ZERO)
    }

    /// Ends a connection that takes nothing for too long.
    fn taken<V>(&mut self, written: Poll<io::Result<V>>, context: &mut Context<'_>) -> Poll<io::Result<V>> {
        match written {
            Poll::Pending if self.stuck.is_over(context) => Poll::Ready(Err(io::ErrorKind::TimedOut.into())),
            Poll::Pending => Poll::Pending,
            Poll::Ready(written) => {
                self.stuck.broken();
                Poll::Ready(written)
            }
        }
    }
}

/// Reads until it is clear what the client speaks; `None` when it ends without a word.
///
/// # Errors
/// The connection broke.
pub(crate) async fn listen_to<T: AsyncRead + Unpin>(
    mut rest: T,
    stuck: Duration,
) -> io::Result<Option<(Spoken, First<T>)>> {
    let mut read = BytesMut::with_capacity(FIRST_READ);
    loop {
        if rest.read_buf(&mut read).await? == 0 {
            if read.is_empty() {
                return Ok(None);
            }
            return Ok(Some((Spoken::Http1, First::of(read, rest, stuck))));
        }
        let known = read.len().min(PREFACE.len());
        if read[..known] != PREFACE[..known] {
            return Ok(Some((Spoken::Http1, First::of(read, rest, stuck))));
        }
        if known == PREFACE.len() {
            return Ok(Some((Spoken::Http2, First::of(read, rest, stuck))));
        }
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for First<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.read.is_empty() {
            return Pin::new(&mut self.rest).poll_read(context, into);
        }
        let some = self.read.len().min(into.remaining());
        into.put_slice(&self.read[..some]);
        self.read.advance(some);
        if self.read.is_empty() {
            self.read = BytesMut::new();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for First<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.rest).poll_write(context, bytes);
        self.taken(written, context)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.rest).poll_flush(context);
        self.taken(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.rest).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.rest.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = write_joined(&mut self.rest, slices, context);
        self.taken(written, context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (_client, server) = tokio::io::duplex(8);
        let mut stream = First::fresh(server, Duration::from_secs(60));
        let error = stream.write_all(&[0; 100]).await.expect_err("nobody reads");
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    }

    async fn told(pieces: &[&[u8]]) -> Option<(Spoken, Vec<u8>)> {
        let (mut client, server) = tokio::io::duplex(64);
        let pieces: Vec<Vec<u8>> = pieces.iter().map(|it| it.to_vec()).collect();
        let sent = tokio::spawn(async move {
            for piece in pieces {
                client.write_all(&piece).await.expect("room");
                tokio::task::yield_now().await;
            }
        });
        let (spoken, mut first) = listen_to(server, Duration::ZERO).await.expect("no error")?;
        let mut all = Vec::new();
        first.read_to_end(&mut all).await.expect("all of it");
        sent.await.expect("sent");
        Some((spoken, all))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]
        /// Whatever comes first, in whatever pieces: it is HTTP/2 exactly where it begins so, and all of it is read again.
        #[test]
        fn anything_may_come_first(
            begins in 0..=PREFACE.len(),
            damage in prop::option::of((0..PREFACE.len(), any::<u8>())),
            rest in prop::collection::vec(any::<u8>(), 0..30),
            cut in 1_usize..30,
        ) {
            let mut bytes = [&PREFACE[..begins], &rest].concat();
            if let Some((at, byte)) = damage && at < bytes.len() {
                bytes[at] = byte;
            }
            let pieces: Vec<&[u8]> = bytes.chunks(cut).collect();
            let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
            let told = runtime.block_on(told(&pieces));
            let spoken = if bytes.starts_with(PREFACE) { Spoken::Http2 } else { Spoken::Http1 };
            prop_assert_eq!(told, (!bytes.is_empty()).then_some((spoken, bytes)));
        }
    }

    #[tokio::test]
    async fn the_preface_tells_and_nothing_is_lost() {
        let cases: [(&[&[u8]], Spoken); 6] = [
            (&[b"GET / HTTP/1.1\r\n\r\n"], Spoken::Http1),
            (&[PREFACE, b"rest"], Spoken::Http2),
            (&[b"P", b"RI * HTTP/2.0\r\n", b"\r\nSM\r\n\r\nrest"], Spoken::Http2),
            (&[b"P", b"OST / HTTP/1.1\r\n\r\n"], Spoken::Http1),
            (&[b"PRI"], Spoken::Http1),
            (&[b"\r\n"], Spoken::Http1),
        ];
        for (pieces, spoken) in cases {
            let told = told(pieces).await.expect("something");
            assert_eq!(told, (spoken, pieces.concat()), "{pieces:?}");
        }
        assert!(told(&[]).await.is_none());
    }
}
