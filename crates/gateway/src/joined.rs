//! Several short pieces go to a socket as one; and a peer that takes no more is heard to its end.
//!
//! The head and the body of a message are two pieces in memory. Handing both to the kernel in one call (`writev`) costs
//! it more than copying a short body to its head costs us, since a socket has a shorter way for one piece (`send`).
//!
//! An instance may answer a request before it has read its body, and close (413, 401). Writing more then fails, while its
//! answer waits to be read: so that is no error here. What is written from then on goes nowhere, and reading goes on, to the
//! end that the kernel has put behind what came.

use std::cell::Cell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is put together. Longer ones cost more to copy than they save.
const SHORT: usize = 4096;

thread_local! {
    /// Where a thread puts pieces together.
    static ROOM: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// A connection to which short pieces are written as one.
#[derive(Debug)]
pub(crate) struct Joined<T> {
    io: T,
    /// The peer takes no more: it has closed, and its end will be read.
    deaf: bool,
}

impl<T> Joined<T> {
    pub(crate) const fn new(io: T) -> Self {
        Self { io, deaf: false }
    }

    /// What became of `all` bytes that were to be written: they are, where nobody takes them any more.
    fn heard(
        &mut self,
        written: Poll<io::Result<usize>>,
        all: impl FnOnce() -> usize,
    ) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Err(error)) if has_closed(&error) => {
                self.deaf = true;
                Poll::Ready(Ok(all()))
            }
            written => written,
        }
    }
}

/// Whether writing failed since the peer has closed.
fn has_closed(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// Writes pieces in one call.
pub(crate) fn write_joined<T: AsyncWrite + Unpin>(
    into: &mut T,
    pieces: &[IoSlice<'_>],
    context: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    if let [only] = pieces {
        return Pin::new(into).poll_write(context, only);
    }
    if pieces.iter().map(|piece| piece.len()).sum::<usize>() > SHORT {
        return Pin::new(into).poll_write_vectored(context, pieces);
    }
    let mut all = ROOM.take();
    all.clear();
    pieces.iter().for_each(|piece| all.extend_from_slice(piece));
    let written = Pin::new(into).poll_write(context, &all);
    ROOM.set(all);
    written
}

impl<T: AsyncRead + Unpin> AsyncRead for Joined<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_read(context, into)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Joined<T> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        if self.deaf {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = Pin::new(&mut self.io).poll_write(context, bytes);
        self.heard(written, || bytes.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.deaf { Poll::Ready(Ok(())) } else { Pin::new(&mut self.io).poll_flush(context) }
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let all = || pieces.iter().map(|piece| piece.len()).sum();
        if self.deaf {
            return Poll::Ready(Ok(all()));
        }
        let written = write_joined(&mut self.io, pieces, context);
        self.heard(written, all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;

    /// Counts calls, and takes what it is given.
    #[derive(Default)]
    struct Calls {
        single: usize,
        vectored: usize,
        written: Vec<u8>,
    }

    impl AsyncWrite for Calls {
        fn poll_write(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            bytes: &[u8],
        ) -> Poll<io::Result<usize>> {
            self.single += 1;
            self.written.extend_from_slice(bytes);
            Poll::Ready(Ok(bytes.len()))
        }

        fn poll_write_vectored(
            mut self: Pin<&mut Self>,
            _: &mut Context<'_>,
            pieces: &[IoSlice<'_>],
        ) -> Poll<io::Result<usize>> {
            self.vectored += 1;
            pieces.iter().for_each(|piece| self.written.extend_from_slice(piece));
            Poll::Ready(Ok(pieces.iter().map(|piece| piece.len()).sum()))
        }

        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    #[tokio::test]
    async fn short_pieces_are_one_and_long_ones_are_not_copied() {
        for (sizes, single) in
            [(&[][..], true), (&[0, 3], true), (&[9000], true), (&[96, 4000], true), (&[97, 4000], false)]
        {
            let texts: Vec<Vec<u8>> =
                sizes.iter().zip(b'a'..).map(|(size, byte)| vec![byte; *size]).collect();
            let pieces: Vec<IoSlice<'_>> = texts.iter().map(|text| IoSlice::new(text)).collect();
            let mut calls = Joined::new(Calls::default());
            let written = poll_fn(|context| Pin::new(&mut calls).poll_write_vectored(context, &pieces)).await;
            assert_eq!(written.expect("all of it"), texts.concat().len(), "{sizes:?}");
            assert_eq!(calls.io.written, texts.concat(), "{sizes:?}");
            assert_eq!(
                (calls.io.single, calls.io.vectored),
                (usize::from(single), usize::from(!single)),
                "{sizes:?}"
            );
        }
    }
}
