//! The server's side: TLS handshakes beside the accept loop, and a certificate that can change while it serves.

use super::error::IdentityError;
use super::files::Identity;
use super::name::TlsIo;
use super::tls;
use rustls::ServerConfig;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, PoisonError, RwLock};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::AbortHandle;
use tokio_rustls::TlsAcceptor;
use tokio_stream::Stream;

/// A client that has not finished its handshake by then is dropped; a plaintext or silent client costs no more.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Handshakes under way at a time; above it, new connections wait in the kernel's queue.
const HANDSHAKES_MAX: usize = 256;
/// Connections ready for the server and not yet taken by it.
const READY_MAX: usize = 16;
/// Pause after `accept` failed, as it does when the process is out of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// The server's TLS, whose certificate can be replaced while it serves. Clones share it.
#[derive(Clone, Debug)]
pub struct ServerTls {
    config: Arc<RwLock<Arc<ServerConfig>>>,
}

/// Makes the server's TLS: client certificates of the same authority are verified, and none is required, since
/// `Join` comes without ([`super::peer`] guards every other call).
///
/// # Errors
/// When the identity's certificate and key do not go together.
pub fn server_tls(identity: &Identity) -> Result<ServerTls, IdentityError> {
    Ok(ServerTls { config: Arc::new(RwLock::new(tls::server(identity)?)) })
}

impl ServerTls {
    /// Uses `identity` for every connection accepted from now on; open ones stay as they are.
    ///
    /// # Errors
    /// When the new identity cannot be used; the old one then stays.
    pub fn replace(&self, identity: &Identity) -> Result<(), IdentityError> {
        let config = tls::server(identity)?;
        *self.config.write().unwrap_or_else(PoisonError::into_inner) = config;
        Ok(())
    }

    fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.config.read().unwrap_or_else(PoisonError::into_inner).clone())
    }
}

/// The connections of a listener whose handshakes are done, for tonic's `serve_with_incoming`.
///
/// A failed handshake is that client's matter only and is not seen here. Dropping it stops accepting.
#[derive(Debug)]
pub struct Incoming {
    ready: mpsc::Receiver<io::Result<TlsIo>>,
    accepting: AbortHandle,
}

/// Accepts on `listener`, with handshakes beside one another. Must be called inside a tokio runtime.
#[must_use]
pub fn incoming(listener: TcpListener, tls: ServerTls) -> Incoming {
    let (sender, ready) = mpsc::channel(READY_MAX);
    let accepting = tokio::spawn(accept_all(listener, tls, sender)).abort_handle();
    Incoming { ready, accepting }
}

impl Stream for Incoming {
    type Item = io::Result<TlsIo>;
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.ready.poll_recv(context)
    }
}

impl Drop for Incoming {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept_all(listener: TcpListener, tls: ServerTls, ready: mpsc::Sender<io::Result<TlsIo>>) {
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES_MAX));
    while let Ok(permit) = Arc::clone(&handshakes).acquire_owned().await {
        // Every error of accept(2) is either about one connection or passes with time.
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(handshake(stream, tls.acceptor(), ready.clone(), permit));
            }
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
        if ready.is_closed() {
            return;
        }
    }
}

async fn handshake(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    ready: mpsc::Sender<io::Result<TlsIo>>,
    permit: OwnedSemaphorePermit,
) {
    // Heartbeats and small replies must not wait for Nagle; an old kernel that refuses is no reason to refuse too.
    let _ = stream.set_nodelay(true);
    if let Ok(Ok(connection)) = tokio::time::timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        let _ = ready.send(Ok(connection)).await;
    }
    drop(permit);
}
