//! Accepting: as many connections as are allowed, each in a task of its own.

use crate::listen::{First, Listener, Place, Purpose, Spoken, listen_to};
use crate::serve::{Client, Origin, serve};
use crate::tcp;
use crate::worker::Worker;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

/// The pause after the process has no descriptor left: one of its own must be closed before there is another.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts on one socket until the gateway leaves. What is accepted no more stays in the kernel's queue, where the next
/// program finds it.
pub(crate) async fn accept(worker: Rc<Worker>, listener: Listener) {
    let place = listener.place;
    // What is accepted has it too (Linux copies the listener's), and so it costs a call for a socket, not for a client.
    if let Err(error) = rustix::net::sockopt::set_tcp_nodelay(&listener.socket, true) {
        tracing::warn!(address = %place.address, %error, "small answers may wait for larger ones here");
    }
    let socket = match tokio::net::TcpListener::from_std(listener.socket) {
        Ok(socket) => socket,
        Err(error) => {
            tracing::error!(address = %place.address, %error, "this socket cannot be listened on");
            return;
        }
    };
    let leaving = worker.shared.leaving.clone();
    let mut leaves = std::pin::pin!(leaving.cancelled());
    loop {
        let next = async {
            let places = Arc::clone(&worker.shared.connections);
            let permit = places.acquire_owned().await.map_err(io::Error::other)?;
            let (stream, client) = socket.accept().await?;
            Ok::<_, io::Error>((stream, client, permit))
        };
        let accepted = tokio::select! {
            biased;
            () = leaves.as_mut() => break,
            accepted = next => accepted,
        };
        match accepted {
            Ok((stream, client, permit)) => spawn(&worker, stream, client, place, permit),
            // The client was gone before we were there.
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            Err(error) => {
                tracing::warn!(address = %place.address, %error, "no connection could be accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    if !worker.shared.relieved.is_cancelled() {
        accept_the_rest(&worker, socket, place);
    }
}

/// Accepts what the kernel has queued for a gateway that leaves and that no other program follows: it would be reset.
fn accept_the_rest(worker: &Rc<Worker>, socket: tokio::net::TcpListener, place: Place) {
    let Ok(socket) = socket.into_std() else { return };
    while let Ok(permit) = Arc::clone(&worker.shared.connections).try_acquire_owned() {
        let Ok((stream, client)) = socket.accept() else { return };
        let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
        if let Ok(stream) = stream {
            spawn(worker, stream, client, place, permit);
        }
    }
}

fn spawn(
    worker: &Rc<Worker>,
    stream: TcpStream,
    client: SocketAddr,
    place: Place,
    permit: OwnedSemaphorePermit,
) {
    let worker = Rc::clone(worker);
    tokio::task::spawn_local(async move {
        if let Err(error) = begin(worker, stream, client, place, permit).await {
            tracing::debug!(%client, %error, "a connection ended before its first request");
        }
    });
}

/// Finds out what is spoken, and serves it.
///
/// A task is moved three times before it runs, and is as large as the largest thing that it may come to do. So all but
/// HTTP/1.1 without TLS is boxed when it comes to it.
async fn begin(
    worker: Rc<Worker>,
    stream: TcpStream,
    client: SocketAddr,
    place: Place,
    permit: OwnedSemaphorePermit,
) -> io::Result<()> {
    let limits = &worker.shared.config.limits;
    let (patience, stuck) = (limits.header_timeout.duration(), limits.send_timeout.duration());
    let origin = |encrypted| Origin { address: client.ip().to_canonical(), encrypted };
    match place.purpose {
        Purpose::Tcp => {
            Box::pin(tcp::carry(&worker, stream, client, place.address.port(), permit)).await;
        }
        Purpose::Http => {
            let client = Client::new(&worker, origin(false), permit);
            let deadline = Instant::now() + patience;
            let mut alarm = worker.alarms.take(deadline);
            let first = {
                let mut words = std::pin::pin!(listen_to(stream, stuck));
                let mut first =
                    std::pin::pin!(std::future::poll_fn(|context| match words.as_mut().poll(context) {
                        Poll::Pending =>
                            alarm.poll(deadline, context).map(|()| Err(io::ErrorKind::TimedOut.into())),
                        said @ Poll::Ready(_) => said,
                    }));
                // One that says nothing while the gateway leaves is as good as idle.
                client.until_lingered(first.as_mut()).await.transpose()?.flatten()
            };
            match first {
                Some((spoken, stream)) => serve(client, spoken, stream, Some(alarm)).await,
                None => worker.alarms.give_back(alarm),
            }
        }
        Purpose::Https => Box::pin(encrypt(worker, stream, origin(true), permit)).await?,
    }
    Ok(())
}

/// The same over TLS.
async fn encrypt(
    worker: Rc<Worker>,
    stream: TcpStream,
    origin: Origin,
    permit: OwnedSemaphorePermit,
) -> io::Result<()> {
    let Some(tls) = worker.shared.tls.clone() else { return Ok(()) };
    let limits = &worker.shared.config.limits;
    let (patience, stuck) = (limits.header_timeout.duration(), limits.send_timeout.duration());
    let stream =
        tokio::time::timeout(patience, tls.accept(stream)).await.map_err(|_| io::ErrorKind::TimedOut)??;
    let spoken = match stream.get_ref().1.alpn_protocol() {
        Some(b"h2") => Spoken::Http2,
        Some(_) | None => Spoken::Http1,
    };
    serve(Client::new(&worker, origin, permit), spoken, First::fresh(stream, stuck), None).await;
    Ok(())
}
