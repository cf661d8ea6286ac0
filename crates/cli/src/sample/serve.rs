//! Accepting, and the orderly end.
//!
//! ```text
//! serving ── asked to stop ──► accepts no more; each open connection gets one more answer, with
//!                              `Connection: close`; after `linger` idle ones are closed; then the rest finish
//! ```

use super::FINISH_LIMIT;
use super::answer::Site;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Pause after an accept that failed for want of descriptors or memory, so as not to spin.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves on all `listeners` until `stop` ends, then finishes in order.
pub(super) async fn serve(
    listeners: Vec<TcpListener>,
    site: Site,
    linger: Duration,
    stop: impl Future<Output = ()>,
) {
    let connections = TaskTracker::new();
    let close_idle = CancellationToken::new();
    let accepting: Vec<_> = listeners
        .into_iter()
        .map(|listener| tokio::spawn(accept(listener, site.clone(), connections.clone(), close_idle.clone())))
        .collect();
    stop.await;
    for task in &accepting {
        task.abort();
    }
    for task in accepting {
        // An aborted task says so; the listeners are closed once it is gone.
        let _ = task.await;
    }
    site.stopping.cancel();
    connections.close();
    if tokio::time::timeout(linger, connections.wait()).await.is_ok() {
        return;
    }
    close_idle.cancel();
    // Whoever is slower than this is cut off; the supervisor would do so a moment later.
    let _ = tokio::time::timeout(FINISH_LIMIT, connections.wait()).await;
}

async fn accept(listener: TcpListener, site: Site, connections: TaskTracker, close_idle: CancellationToken) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                connections.spawn(converse(stream, site.clone(), close_idle.clone()));
            }
            // The peer left before it was accepted, or we are out of descriptors: both pass.
            Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
        }
    }
}

/// One connection, to its end.
async fn converse(stream: TcpStream, site: Site, close_idle: CancellationToken) {
    // Answers are small: waiting to fill a segment only delays them.
    let _ = stream.set_nodelay(true);
    let service = service_fn(move |request| {
        let site = site.clone();
        async move { Ok::<_, Infallible>(site.answer(request).await) }
    });
    let connection =
        http1::Builder::new().timer(TokioTimer::new()).serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let closed = tokio::select! {
        _ = connection.as_mut() => true,
        () = close_idle.cancelled() => false,
    };
    if !closed {
        connection.as_mut().graceful_shutdown();
        // The client may be gone already; there is nobody to tell.
        let _ = connection.await;
    }
}
