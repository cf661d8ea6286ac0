//! A client's connection: which HTTP it speaks, and what it may send.

use super::carry::carry;
use super::client::Client;
use super::respond::SLOW_HEAD;
use super::streams::{Streams, Taking};
use crate::alarm::{Alarm, HeadTimer};
use crate::listen::{First, Spoken};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};

/// A client that is silent on HTTP/2 for this long is asked whether it is there.
const PING_EVERY: Duration = Duration::from_secs(20);
/// One that does not say so by then is closed.
const PING_ANSWER: Duration = Duration::from_secs(10);
/// Room for bodies that come fast, for a stream and for a connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// A client of HTTP/2 that has no request and is told to go says by then that it has heard it.
const GOODBYE_WITHIN: Duration = Duration::from_secs(5);
/// One that never had a request.
const GOODBYE_UNHEARD: Duration = Duration::from_millis(500);
/// What of an answer waits for a slow client on each stream.
const SEND_BUFFER: usize = 256 * 1024;
/// As many as hyper allows by itself: it has room for them without asking for memory, which it does for any number that
/// it is told.
const USUAL_HEADERS: usize = 100;

/// Serves a connection until it ends. `alarm` was for its first bytes.
pub(crate) async fn serve<T>(client: Rc<Client>, spoken: Spoken, stream: First<T>, alarm: Option<Alarm>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    match spoken {
        Spoken::Http1 => {
            let timer = alarm.map_or_else(HeadTimer::default, HeadTimer::with);
            serve_http1(&client, stream, &timer).await;
            if let Some(alarm) = timer.take() {
                client.worker.alarms.give_back(alarm);
            }
        }
        Spoken::Http2 => {
            client.speaks_http2();
            // Boxed, so that connections of HTTP/1.1 need no room for it.
            Box::pin(serve_http2(client, stream)).await;
        }
    }
}

async fn serve_http1<T>(client: &Rc<Client>, stream: First<T>, timer: &HeadTimer)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let limits = &client.worker.shared.config.limits;
    let service = service_fn(|request| {
        let client = Rc::clone(client);
        async move { Ok::<_, Infallible>(carry(client, request).await) }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(timer.clone())
        .header_read_timeout(limits.header_timeout.duration())
        .max_header_size(limits.header_bytes);
    if limits.headers != USUAL_HEADERS {
        builder.max_headers(limits.headers);
    }
    let mut connection = builder.serve_connection(TokioIo::new(stream), service).with_upgrades();
    let ended = match client.until_lingered(Pin::new(&mut connection)).await {
        Some(ended) => ended,
        None => {
            Pin::new(&mut connection).graceful_shutdown();
            (&mut connection).await
        }
    };
    let Err(error) = ended else { return };
    tracing::debug!(client = %client.origin.address, %error, "a connection ended");
    if took_nothing(&error) {
        // Told to the answer, which is dropped with the connection.
        client.taking.set(Taking::Never);
    }
    if !error.is_timeout() {
        return;
    }
    // Silence between two requests is no fault; a head that was begun and not ended is.
    if let Some(parts) = connection.into_parts().filter(|parts| !parts.read_buf.is_empty()) {
        let mut stream = parts.io.into_inner();
        let _ = stream.write_all(SLOW_HEAD).await;
        let _ = stream.shutdown().await;
    }
}

/// Waits for the end of a connection whose client was told to go. One that asks for nothing and does not go either, as in the
/// middle of a head that does not come, is closed.
async fn say_goodbye(
    client: &Client,
    mut connection: Pin<&mut impl Future<Output = hyper::Result<()>>>,
) -> hyper::Result<()> {
    let within = if client.open.was_any() { GOODBYE_WITHIN } else { GOODBYE_UNHEARD };
    if client.is_idle() {
        if let Ok(ended) = tokio::time::timeout(within, connection.as_mut()).await {
            return ended;
        }
        if client.is_idle() {
            return Ok(());
        }
    }
    connection.await
}

/// Whether a connection ended since its client took nothing for too long: [`First`] says so.
fn took_nothing(error: &hyper::Error) -> bool {
    let source = error.source().and_then(|it| it.downcast_ref::<io::Error>());
    source.is_some_and(|it| it.kind() == io::ErrorKind::TimedOut)
}

async fn serve_http2<T>(client: Rc<Client>, stream: First<T>)
where
    T: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let shared = Arc::clone(&client.worker.shared);
    let limits = &shared.config.limits;
    let service = service_fn(|request| {
        let client = Rc::clone(&client);
        async move { Ok::<_, Infallible>(carry(client, request).await) }
    });
    let header_bytes = u32::try_from(limits.header_bytes).unwrap_or(u32::MAX);
    let mut builder = http2::Builder::new(Streams(Rc::clone(&client)));
    builder
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(header_bytes)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(SEND_BUFFER);
    let mut connection = std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
    let ended = match client.until_told(connection.as_mut()).await {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            say_goodbye(&client, connection).await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(client = %client.origin.address, %error, "a connection ended");
    }
}
