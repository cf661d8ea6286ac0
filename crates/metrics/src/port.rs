//! The port that scrapers ask for the page.

use crate::page::CONTENT_TYPE as PAGE_TYPE;
use http::header::{ALLOW, CONTENT_TYPE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Scrapers at a time; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16;
/// A scraper that has not sent its request by then is gone.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// After a failed accept (no file descriptors left), so that failing is not all that is done.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A port that cannot be had is tried again this often.
const BIND_AGAIN: Duration = Duration::from_secs(5);

/// Listens at `address` and answers there until `stop`, with what `page` makes. A port that cannot be had is told, and
/// tried again: what a role does is worth more than its figures.
pub async fn keep(
    address: SocketAddr,
    page: impl Fn() -> String + Send + Sync + 'static,
    stop: CancellationToken,
) {
    let mut told = String::new();
    let listener = loop {
        match TcpListener::bind(address).await {
            Ok(listener) => break listener,
            Err(error) => {
                let why = error.to_string();
                if why != told {
                    tracing::error!(%address, error = why, "metrics cannot be served there; it is tried again");
                    told = why;
                }
            }
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(BIND_AGAIN) => {}
        }
    };
    let at = listener.local_addr().unwrap_or(address);
    tracing::info!(address = %at, "metrics are served at /metrics");
    serve(listener, page, stop).await;
}

/// Answers `GET /metrics` on `listener` until `stop`, with what `page` makes.
pub async fn serve(
    listener: TcpListener,
    page: impl Fn() -> String + Send + Sync + 'static,
    stop: CancellationToken,
) {
    let page = Arc::new(page);
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = stop.cancelled() => break,
            Some(_) = connections.join_next(), if !connections.is_empty() => {}
            accepted = listener.accept(), if connections.len() < CONNECTIONS_MAX => match accepted {
                Ok((stream, _)) => {
                    let page = Arc::clone(&page);
                    connections.spawn(async move {
                        let answers = service_fn(move |request| std::future::ready(answer(&request, &*page)));
                        let mut connection = http1::Builder::new();
                        connection.timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT);
                        if let Err(error) = connection.serve_connection(TokioIo::new(stream), answers).await {
                            tracing::debug!(%error, "a scraper's connection broke");
                        }
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a scraper cannot be accepted");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            },
        }
    }
    connections.shutdown().await;
}

fn answer(
    request: &Request<Incoming>,
    page: &impl Fn() -> String,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let text = |status, text: &'static str| {
        let mut answer = Response::new(Full::from(text));
        *answer.status_mut() = status;
        answer
    };
    Ok(match (request.uri().path(), request.method()) {
        ("/metrics", &Method::GET) => {
            let mut answer = Response::new(Full::from(page()));
            answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(PAGE_TYPE));
            answer
        }
        ("/metrics", _) => {
            let mut answer = text(StatusCode::METHOD_NOT_ALLOWED, "ask by GET\n");
            answer.headers_mut().insert(ALLOW, HeaderValue::from_static("GET"));
            answer
        }
        _ => text(StatusCode::NOT_FOUND, "the page is at /metrics\n"),
    })
}
