//! What follows a switch of protocols: bytes in both directions, until one side ends it or both are silent.
//!
//! A WebSocket whose instance leaves its route, or whose gateway leaves, is told to go: both sides get a close frame
//! between two of their own, and then the time to answer it. One that stays is in flight, and is counted as such.

use super::client::Client;
use super::relay::{Activity, PIECE};
use super::websocket::{CLOSE_TO_CLIENT, CLOSE_TO_INSTANCE, Frames};
use crate::access::Record;
use crate::listen::First;
use crate::pool::Lease;
use crate::upstream::InFlight;
use hyper::upgrade::{OnUpgrade, Parts, Upgraded};
use hyper_util::rt::TokioIo;
use std::cell::Cell;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio_rustls::server::TlsStream;

/// Why a WebSocket was cut off, in the access log.
const SILENT: &str = "both sides were silent for too long";
/// After both close frames: what is not closed by then is closed by us.
const CLOSE_WITHIN: Duration = Duration::from_secs(5);

/// A WebSocket between a client and an instance.
#[derive(Debug)]
pub(super) struct Tunnel {
    pub(super) ours: OnUpgrade,
    pub(super) theirs: OnUpgrade,
    pub(super) in_flight: InFlight,
    pub(super) lease: Lease,
    pub(super) idle: Duration,
    pub(super) record: Option<Record>,
}

impl Tunnel {
    /// Carries it to its end. `client` counts as a connection until then.
    pub(super) async fn carry(self, client: Rc<Client>) {
        let Self { ours, theirs, in_flight, lease, idle, record } = self;
        let (ours, theirs) = match (ours.await, theirs.await) {
            (Ok(ours), Ok(theirs)) => (patient(ours), TokioIo::new(theirs)),
            (Err(error), _) | (_, Err(error)) => {
                tracing::debug!(%error, "a switch of protocols did not come to its end");
                return;
            }
        };
        // The connection is no longer one of HTTP, and cannot be used for another request.
        drop(lease);
        let told = async {
            tokio::select! {
                () = in_flight.upstream().until_left() => {}
                () = client.worker.shared.leaving.cancelled() => {}
            }
        };
        let bytes = Cell::new(0);
        let ended = carry(ours, theirs, idle, told, &bytes).await;
        if let Err(error) = &ended {
            tracing::debug!(client = %client.origin.address, %error, "a WebSocket ended");
        }
        if let Some(record) = record {
            match ended {
                Err(error) if error.kind() == io::ErrorKind::TimedOut => record.broke(bytes.get(), SILENT),
                Ok(()) | Err(_) => record.ended(bytes.get()),
            }
        }
        drop(in_flight);
    }
}

/// A client's connection that is no longer one of HTTP. As long as neither side is silent for too long, it may take its time.
fn patient(ours: Upgraded) -> Box<dyn Stream> {
    let ours = match ours.downcast::<TokioIo<First<TcpStream>>>() {
        Ok(Parts { io, read_buf, .. }) => return Box::new(io.into_inner().patient(&read_buf)),
        Err(ours) => ours,
    };
    match ours.downcast::<TokioIo<First<TlsStream<TcpStream>>>>() {
        Ok(Parts { io, read_buf, .. }) => Box::new(io.into_inner().patient(&read_buf)),
        Err(ours) => Box::new(TokioIo::new(ours)),
    }
}

/// Bytes in both directions.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<T: AsyncRead + AsyncWrite + Unpin> Stream for T {}

/// Passes frames in both directions; once `told`, a close frame follows the latest in each. `bytes` counts what the
/// client got.
async fn carry<C, I>(
    client: C,
    instance: I,
    idle: Duration,
    told: impl Future<Output = ()>,
    bytes: &Cell<u64>,
) -> io::Result<()>
where
    C: AsyncRead + AsyncWrite + Unpin,
    I: AsyncRead + AsyncWrite + Unpin,
{
    let activity = Activity::new(idle);
    let (go, going) = watch::channel(false);
    let closed = watch::Sender::new(0_u8);
    let (client_reads, client_writes) = tokio::io::split(client);
    let (instance_reads, instance_writes) = tokio::io::split(instance);
    let direction = |close| Direction {
        going: going.clone(),
        closed: &closed,
        close,
        activity: &activity,
        frames: Frames::default(),
    };
    let up = direction(&CLOSE_TO_INSTANCE[..]).pass(client_reads, instance_writes, |_| {});
    let down = direction(&CLOSE_TO_CLIENT[..]).pass(instance_reads, client_writes, |some| {
        bytes.set(bytes.get() + some);
    });
    let goodbye = async {
        told.await;
        go.send_replace(true);
        let _ = closed.subscribe().wait_for(|directions| *directions == 2).await;
        tokio::time::sleep(CLOSE_WITHIN).await;
    };
    tokio::select! {
        ended = async { tokio::try_join!(up, down) } => ended.map(|_| ()),
        silence = activity.silence() => Err(silence),
        () = goodbye => Ok(()),
    }
}

/// One direction.
struct Direction<'a> {
    going: watch::Receiver<bool>,
    /// How many directions have had their close frame.
    closed: &'a watch::Sender<u8>,
    close: &'static [u8],
    activity: &'a Activity,
    frames: Frames,
}

impl Direction<'_> {
    async fn pass(
        mut self,
        mut from: impl AsyncRead + Unpin,
        mut to: impl AsyncWrite + Unpin,
        count: impl Fn(u64),
    ) -> io::Result<()> {
        let mut piece = vec![0; PIECE];
        let (mut told, mut closed) = (false, false);
        loop {
            let read = tokio::select! {
                read = from.read(&mut piece) => Some(read?),
                going = self.going.wait_for(|going| *going), if !told => {
                    told = going.is_ok();
                    None
                }
            };
            self.activity.note();
            if let Some(some) = read {
                if some == 0 {
                    return to.shutdown().await;
                }
                self.frames.pass(&piece[..some]);
                // After our close frame nothing may follow (RFC 6455, 5.5.1).
                if !closed {
                    to.write_all(&piece[..some]).await?;
                    to.flush().await?;
                    self.activity.note();
                    count(some as u64);
                }
            }
            if told && !closed && self.frames.is_between() {
                closed = true;
                to.write_all(self.close).await?;
                to.flush().await?;
                self.closed.send_modify(|directions| *directions += 1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_close_frame_follows_the_frame_that_is_under_way() {
        tokio::task::LocalSet::new().run_until(told_in_the_middle_of_a_frame()).await;
    }

    async fn told_in_the_middle_of_a_frame() {
        let (mut client, near) = tokio::io::duplex(64);
        let (far, mut instance) = tokio::io::duplex(64);
        let (tell, told) = tokio::sync::oneshot::channel::<()>();
        let carried = tokio::task::spawn_local(async move {
            let told = async {
                let _ = told.await;
            };
            carry(near, far, Duration::ZERO, told, &Cell::new(0)).await
        });
        // Half of a text frame of four bytes, then the order to go, then its other half.
        instance.write_all(&[0x81, 4, b'a', b'b']).await.expect("room");
        let mut got = [0; 4];
        client.read_exact(&mut got).await.expect("the first half");
        tell.send(()).expect("it waits");
        let mut to_instance = [0; 8];
        instance.read_exact(&mut to_instance).await.expect("that direction is between frames");
        assert_eq!(to_instance, CLOSE_TO_INSTANCE);
        instance.write_all(b"cd").await.expect("room");
        let mut rest = [0; 6];
        client.read_exact(&mut rest).await.expect("the other half and the close frame");
        assert_eq!(rest[..2], *b"cd");
        assert_eq!(rest[2..], CLOSE_TO_CLIENT);
        drop((client, instance));
        carried.await.expect("joined").expect("both sides closed");
    }
}
